"""What goes wrong, in one shape: ``{"error": {"message", "type", "code", "param"}}``, as OpenAI's clients expect it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from guardreasoner_moderation.server.answers import ErrorBody
from guardreasoner_moderation.server.requests import Tag

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 408: "slow_body", 413: "body_too_large"}

MEANINGS: Mapping[int, str] = {
    400: "The body is not JSON, or holds a key twice.",
    401: "The API key is missing or wrong.",
    404: "There is no such path or model.",
    405: "The path does not take this method.",
    408: "The body did not arrive in time.",
    413: "The body is larger than the server allows.",
    415: "The body is not declared as JSON.",
    422: "A field is missing, unknown or of a wrong kind, or there are too many items or too long ones.",
    429: "The queue is full. Try again after `Retry-After` seconds.",
    500: "The server failed. Nothing was judged: treat the text as unsafe.",
    503: "The server is starting or stopping, or its engine is started again. Try again after `Retry-After` seconds.",
    504: "The request took too long. Nothing was judged: treat the text as unsafe.",
}


_PLAINER = {
    "string_pattern_mismatch": "the text is empty; there is nothing to judge",
    "string_too_short": "the text is empty; there is nothing to judge",
    "string_unicode": "the text holds half a surrogate pair, which has no UTF-8 form",
}


class Problem(Exception):  # noqa: N818 - an answer to the client, not a failure of the server
    """An answer other than 200.

    Args:
        status: the HTTP status.
        code: one word for programs.
        message: one sentence for people; it never holds the text that was sent.
        param: which field is meant, such as ``items[3].prompt``.
        retry_after: seconds after which another try makes sense.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        return {
            "error": {
                # Names of keys come from the client, and half a surrogate pair has no UTF-8 form.
                "message": _encodable(self.message),
                "type": kind,
                "code": self.code,
                "param": None if self.param is None else _encodable(self.param),
            }
        }

    def response(self) -> JSONResponse:
        """The HTTP answer."""
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route, for the OpenAPI document."""
    answers: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*statuses, 401, 500}):
        answers[status] = {"model": ErrorBody, "description": MEANINGS[status]}
        if status in (429, 503):
            answers[status]["headers"] = {
                "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
            }
    return answers


def install_handlers(app: FastAPI) -> None:
    """Makes every error of the application take this shape."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, Problem)  # noqa: S101 - what the handler is registered for
        return exc.response()

    @app.exception_handler(HTTPException)
    async def on_http(_: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, HTTPException)  # noqa: S101
        message = exc.detail if exc.status_code in (400, 408, 413) else MEANINGS.get(exc.status_code, exc.detail)
        answer = Problem(exc.status_code, _CODES.get(exc.status_code, "error"), message).response()
        answer.headers.update(exc.headers or {})  # such as Allow
        return answer

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, exc: Exception) -> JSONResponse:
        assert isinstance(exc, RequestValidationError)  # noqa: S101
        return from_validation(exc.errors()).response()


def from_validation(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """The first of a body's errors, as a sentence that names the field and never repeats its content."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return Problem(400, "bad_json", f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][1]}")
    param = _path([part for part in first["loc"][1:] if part not in set(Tag)])
    if first["type"] == "missing" and param is None:
        return Problem(422, "invalid_value", "the body is empty; send a JSON object")
    code = "unknown_key" if first["type"] == "unknown_key" else "invalid_value"
    message = _PLAINER.get(first["type"]) or f"{first['msg'][:1].lower()}{first['msg'][1:]}"
    return Problem(422, code, f"{param or 'the body'}: {message}", param=param)


def _path(place: Sequence[str | int]) -> str | None:
    """``["items", 3, "prompt"]`` as ``items[3].prompt``."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{str(part)[:50]}"
    return text.removeprefix(".") or None


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")
