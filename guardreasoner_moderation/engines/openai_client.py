"""Talks to an OpenAI-compatible server: retries what may pass, and says clearly what will not.

An HTTP client of its own rather than the ``openai`` package, which takes keys, organisations and headers from the
environment and would send them to whatever server is named here.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from guardreasoner_moderation.errors import (
    EngineError,
    InputError,
    MissingDependencyError,
    brief,
    harmless,
    without_secrets,
)

if TYPE_CHECKING:
    import httpx

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between attempts
_PASSING = (408, 425, 429)  # and all of 500 and above


class RefusedError(EngineError):
    """The server understood, and will not do it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ServerClient:
    """One server. Safe to use from several threads; the key is in no message and no representation."""

    def __init__(self, server: str, *, api_key: str | None, concurrency: int, timeout: float, retries: int) -> None:
        """Opens no connection yet.

        Args:
            server: address of the API, such as "http://localhost:8000/v1".
            api_key: sent as a bearer token.
            concurrency: requests under way at once.
            timeout: seconds for a connection, and between two pieces of an answer; a whole answer is one piece.
            retries: attempts after the first, where the server is busy, fails, or cannot be reached.
        """
        try:
            import httpx
        except ImportError as exc:
            raise MissingDependencyError("the openai engine", "openai") from exc
        try:
            url = httpx.URL(server)
        except httpx.InvalidURL as exc:
            raise InputError(f"server is no address: {brief(str(exc))}") from harmless(exc)
        if url.scheme not in ("http", "https") or not url.host:
            raise InputError("server must be an address such as 'http://localhost:8000/v1'")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key.strip()):
            raise InputError("the server's API key is empty or holds characters that no key has")
        self._key = api_key
        if url.query:
            raise InputError("server must be an address without a query; pass a key as api_key=")
        # User and password go into a header: httpx writes whole addresses into its log.
        self._url = self._shown = str(url.copy_with(username=None, password=None)).rstrip("/")
        login = httpx.BasicAuth(url.username, url.password) if url.username or url.password else None
        self._retries = retries
        self._timeout = timeout
        self._places = threading.BoundedSemaphore(concurrency)
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client = httpx.Client(headers=headers, auth=login, timeout=timeout)
        self._counting = threading.Lock()
        self._under_way = 0
        self._closed = False

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer to a request.

        Raises:
            RefusedError: the server will not do it.
            EngineError: it cannot be reached, fails, or answers with something else.
        """
        with self._answer(path, body) as response:
            return self._object(response.text)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The parts of a streamed answer (server-sent events). Errors as for :meth:`ask`; closing it hangs up."""
        import httpx

        with self._answer(path, {**body, "stream": True}) as response:
            try:
                for line in response.iter_lines():
                    content = line.removeprefix("data:").strip()
                    if content == "[DONE]":
                        return
                    if line.startswith("data:"):
                        yield self._object(content)
            except httpx.HTTPError as exc:
                raise EngineError(f"{self._shown} broke off in the midst of an answer: {type(exc).__name__}") from exc

    def close(self) -> None:
        """Further calls raise EngineError, and so do attempts after the one that is under way.

        The connections are closed with the last request: closed under a thread that reads from it, a socket's number
        may be another socket's before the thread wakes up.
        """
        with self._counting:
            self._closed = True
            if not self._under_way:
                self._client.close()

    @contextmanager
    def _answer(self, path: str, body: Mapping[str, Any]) -> Iterator[httpx.Response]:
        with self._places, self._counted():
            response = self._send(path, body)
            try:
                yield response
            finally:
                response.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            self._under_way += 1
        try:
            yield
        finally:
            with self._counting:
                self._under_way -= 1
                if self._closed and not self._under_way:
                    self._client.close()

    def _send(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        """The first good response; a whole answer is read here, so that one that breaks off is asked for again."""
        import httpx

        for attempt in range(self._retries + 1):
            if self._closed:
                raise EngineError("this engine is closed")
            wait = min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT) * random.uniform(0.5, 1)  # noqa: S311 - spreads retries
            try:
                request = self._client.build_request("POST", self._url + path, json=body)
                response = self._client.send(request, stream=True)
                if not (body.get("stream") and response.is_success):
                    response.read()
            except (httpx.ReadTimeout, httpx.WriteTimeout) as exc:  # asking again would only add to what it has to do
                raise EngineError(f"{self._shown} gave no answer within {self._timeout:g} seconds") from exc
            except (httpx.TransportError, httpx.DecodingError) as exc:
                problem = f"{self._shown} gives no answer: {type(exc).__name__}"
            else:
                if response.is_success:
                    return response
                status = response.status_code
                problem = f"{self._shown} answers with HTTP status {status}: {self._message(response.text)}"
                if status not in _PASSING and status < 500:
                    raise RefusedError(problem + _advice(status), status)
                asked = _retry_after(response.headers.get("retry-after"))
                if asked is not None and asked > _LONGEST_WAIT:
                    raise EngineError(f"{problem}. It asks to be left alone for {asked:.0f} seconds")
                wait = wait if asked is None else max(asked, wait)
            if attempt < self._retries:
                time.sleep(wait)
        raise EngineError(f"{problem}; tried {self._retries + 1} times")

    def _object(self, content: str) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except ValueError as exc:
            raise EngineError(f"{self._shown} does not answer in JSON") from exc
        if not isinstance(answer, dict):
            raise EngineError(f"{self._shown} answers with something else than an object")
        if answer.get("error"):
            raise EngineError(f"{self._shown} failed: {self._message(content)}")
        return answer

    def _message(self, content: str) -> str:
        """What a server says of an error, in OpenAI's shape, FastAPI's or as text; without the key, and shortened."""
        try:
            said = json.loads(content)
        except ValueError:
            said = content
        for name in ("error", "message", "detail"):
            if isinstance(said, dict) and said.get(name):
                said = said[name]
        if isinstance(said, dict):
            said = said.get("message", "")
        if isinstance(said, list):  # pydantic's; the rest of it repeats the request
            said = "; ".join(str(problem.get("msg", "")) for problem in said if isinstance(problem, dict))
        message = " ".join(str(said).split())
        return without_secrets(message if self._key is None else message.replace(self._key, "***"))[:300]


def _advice(status: int) -> str:
    if status in (401, 403):
        return ". Pass api_key=, or set GUARDREASONER_SERVER_KEY"
    if status == 404:
        return ". Check the model's name and the address, which mostly ends in /v1"
    return ""


def _retry_after(header: str | None) -> float | None:
    """Seconds from now; the header holds them, or a date. None where it says nothing of use."""
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header or "") - datetime.now(timezone.utc)).total_seconds()
        except (ValueError, TypeError):  # no date, or one without a time zone
            return None
    return seconds if seconds > 0 else None
