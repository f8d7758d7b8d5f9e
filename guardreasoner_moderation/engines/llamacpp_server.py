"""llama.cpp's own server inside this process: it reads several prompts at once, and what they share only once.

Answers are asked for directly. The tokenizer is only to be had over the server's HTTP port; that port is a free one of
the loopback address, and closed to everyone without a key that is drawn here.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from guardreasoner_moderation.engines.parallel import available_threads
from guardreasoner_moderation.errors import EngineError, IncompatibleModelError, InputError, MissingDependencyError

_CONTROL_SHAPE = re.compile(rb"[<\[\]]\S+")


class LlamaServer:
    """One GGUF file that is loaded, for at most ``parallel`` prompts at once. Safe to use from several threads."""

    def __init__(self, file: Path, *, device: str | None, context_tokens: int, parallel: int, threads: int) -> None:
        """Loads a model; the arguments are those of :class:`guardreasoner_moderation.engines.llamacpp.LlamaCppEngine`.

        Raises:
            InputError: an unknown device.
            MissingDependencyError: xllamacpp is not installed.
            IncompatibleModelError: llama.cpp cannot load the file.
        """
        try:
            import xllamacpp
        except ImportError as exc:
            raise MissingDependencyError("the llamacpp engine", "llamacpp") from exc
        if device not in (None, "auto", "cpu"):
            raise InputError(f"llama.cpp takes the device 'cpu', or the GPUs that it finds (None), found {device!r}")
        key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = context_tokens * parallel
        params.n_parallel = parallel
        params.n_gpu_layers = 0 if device == "cpu" else -1
        # llama.cpp's own choice knows nothing of a container's limits, and threads without a core cost it dearly.
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or available_threads()
        params.api_keys = [key]
        params.ui = params.endpoint_slots = False
        params.cache_ram_mib = 0  # it would keep what was judged before
        params.verbosity = 1  # errors
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as exc:
            raise IncompatibleModelError(f"llama.cpp cannot load {file}; it printed the reason above") from exc
        self.address: str = self._server.listening_address.partition("//")[2]
        self._file = file
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        about = self._call("/props")
        self.context_tokens: int = about["default_generation_settings"]["n_ctx"]
        self.start_text: str = about["bos_token"]

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The one ``choice`` of a whole answer."""
        return _only_choice(self._running().handle_completions(dict(body)))

    def stream(self, body: Mapping[str, Any], take: Callable[[dict[str, Any], dict[str, Any]], bool]) -> None:
        """Hands each part of an answer on as it comes: its ``choice`` and its ``timings``; True stops the model.

        What ``take`` raises stops it too, and is raised here.
        """
        raised: list[BaseException] = []

        def hand_on(part: dict[str, Any]) -> bool:
            try:  # xllamacpp would swallow what is raised here
                return take(_only_choice(part), part.get("timings", {}))
            except BaseException as exc:  # noqa: BLE001 - raised again below
                raised.append(exc)
                return True

        self._running().handle_completions({**body, "stream": True}, hand_on)
        if raised:
            raise raised[0]

    def tokenize(self, text: str, *, trusted: bool) -> list[tuple[int, bytes]]:
        """Token ids of a text, and the bytes of each; control tokens are recognised in trusted text alone."""
        body = {"content": text, "add_special": False, "parse_special": trusted, "with_pieces": True}
        tokens = [
            (token["id"], piece.encode() if isinstance(piece := token["piece"], str) else bytes(piece))
            for token in self._call("/tokenize", body)["tokens"]
        ]
        if trusted:
            return tokens
        # llama.cpp finds tokens that a file calls "user defined", such as <think>, in any text.
        marks = [end - len(piece) + 1 for end, (token, piece) in _with_ends(tokens) if self._is_control(token, piece)]
        if not marks:
            return tokens
        content = text.encode()  # cut after an ASCII character
        return [
            token
            for start, end in pairwise((0, *marks, len(content)))
            for token in self.tokenize(content[start:end].decode(), trusted=False)
        ]

    def start_tokens(self) -> list[int]:
        """The token that the model's tokenizer puts before every prompt, if it does."""
        added: list[int] = self._call("/tokenize", {"content": "", "add_special": True})["tokens"]
        start = [token for token, _ in self.tokenize(self.start_text, trusted=True)]
        return start if start and added[:1] == start else []  # an end token may be added too

    def chat_template(self, messages: list[dict[str, str]]) -> str:
        """The messages in the file's template, or as ChatML where it has none."""
        text: str = self._call("/apply-template", {"messages": messages})["prompt"]
        return text

    def close(self) -> None:
        """Frees the model; further calls raise EngineError."""
        self._server = None

    def _is_control(self, token: int, piece: bytes) -> bool:
        # The file is asked only about what looks like one, as reading its vocabulary takes a second.
        return bool(_CONTROL_SHAPE.fullmatch(piece)) and token in self._control_ids

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        """The tokens that the file's vocabulary marks as control tokens or as user defined."""
        from gguf import GGUFReader, TokenType

        kinds = GGUFReader(self._file).fields["tokenizer.ggml.token_type"].contents()
        return frozenset(
            token for token, kind in enumerate(kinds) if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
        )

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks over HTTP. Directly, since a proxy for other hosts may be set in the environment."""
        self._running()
        connection = HTTPConnection(self.address)
        try:
            connection.request("POST" if body else "GET", path, json.dumps(body) if body else None, self._headers)
            content = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError) as exc:
            raise EngineError(f"llama.cpp does not answer: {exc}") from exc
        finally:
            connection.close()
        return _checked(content)

    def _running(self) -> Any:
        server = self._server
        if server is None:
            raise EngineError("this engine is closed")
        return server


def _with_ends(tokens: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Each token with the place in the text where it ends, in bytes."""
    return zip(accumulate(len(piece) for _, piece in tokens), tokens, strict=True)


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise EngineError(f"llama.cpp failed: {answer['error'].get('message', answer['error'])}")
    return answer


def _only_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = _checked(answer)["choices"][0]
    return choice
