"""Reasoning as it is written, without the headings and the answers around it."""

from __future__ import annotations

from collections.abc import Callable


class ReasoningStream:
    """Hands on the steps of a growing text, piece by piece; a step ends with a line break."""

    def __init__(self, put: Callable[[str], None]) -> None:
        self._put = put
        self._line = ""
        self._shown = False
        self._done = False

    def __call__(self, _: int, piece: str) -> None:
        """Takes the next piece of the text; the number of the prompt, always the same here, is not used."""
        for part in piece.splitlines(keepends=True):
            self._line += part
            whole = self._line.endswith("\n")
            start = self._line.lstrip()
            # Hold a line back until it is clear that it is no heading, rule or answer block.
            self._done = self._done or start.startswith(("---", "Answers:"))
            if not self._done and not start.startswith("#") and (self._shown or whole or len(start) > len("Answers:")):
                text = part if self._shown else self._line
                if text.strip() or self._shown:
                    self._put(text)
                    self._shown = True
            if whole:
                self._line, self._shown = "", False
