"""Prompts to token ids, with control tokens recognised in the frame alone."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from guardreasoner_moderation.errors import EngineError, IncompatibleModelError
from guardreasoner_moderation.prompts import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# Whatever a vocabulary may have for a control token: <|im_end|>, <s>, <start_of_turn>, </think>, [INST], [/INST], ]~b].
_CONTROL = re.compile(r"<(?=[^\s<>]+>)|\[(?=/?[A-Z][A-Z0-9_]*\])|<(?=[|｜])|(?<=[|｜])(?=>)|\](?=~)|\[(?=e~)")


def defused(text: str) -> str:
    """A text in which nothing is a control token, for programs that read them: ``<|im_end|>`` becomes ``< |im_end| >``.

    It is an approximation, as the vocabulary is not known: a tag such as ``<b>`` is broken up too, and a control token
    that looks like none of the common ones is not. Token ids from :class:`SpanEncoder` need none of this.
    """
    return _CONTROL.sub(lambda found: f"{found[0]} ", text)


def apply_chat_template(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """Chat messages in the template of a tokenizer of transformers, with the assistant's turn opened.

    Raises:
        EngineError: it has none.
    """
    if not tokenizer.chat_template:
        raise EngineError("the model's tokenizer has no chat template; set chat to false in moderation.json")
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer in a folder's ``tokenizer.json``.

    Raises:
        IncompatibleModelError: there is none, or it is damaged.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(file))
    except Exception as exc:  # what the library raises has no class of its own
        raise IncompatibleModelError(f"{file} cannot be read: {exc}") from exc


class TextEncoder(Protocol):
    """What scoring needs of a tokenizer."""

    def encode_text(self, text: str, *, trusted: bool = False) -> list[int]:
        """Token ids of one piece of text; control tokens are recognised in trusted text alone."""


class SpanEncoder:
    """Encodes each span of a prompt on its own: ``<|im_end|>`` in an untrusted span stays plain text."""

    def __init__(self, tokenizer: Tokenizer, bos_id: int | None = None) -> None:
        # A second tokenizer, because the switch is its state and engines are used from several threads.
        self._frame = tokenizer
        self._plain = deepcopy(tokenizer)
        self._plain.encode_special_tokens = True
        for one in (self._frame, self._plain):
            one.no_truncation()
            one.no_padding()
        self._bos_id = bos_id

    @classmethod
    def of(cls, tokenizer: Any) -> SpanEncoder:
        """The encoder for a tokenizer of transformers, with its start token if it puts one before texts."""
        bos = tokenizer.bos_token_id
        begins = getattr(tokenizer, "add_bos_token", False) or tokenizer("a").input_ids[:1] == [bos]
        return cls(tokenizer.backend_tokenizer, bos if begins else None)

    def to_json(self) -> str:
        """The tokenizer, for another process."""
        text: str = self._frame.to_str()
        return text

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the whole prompt, without filler."""
        ids = [self._bos_id] if prompt.add_bos and self._bos_id is not None else []
        for span in prompt.needed:
            ids += self.encode_text(span.text, trusted=span.trusted)
        return ids

    def encode_to_fit(self, prompt: Prompt, max_new_tokens: int, context_tokens: int) -> list[int]:
        """:meth:`encode`, of a prompt after which there is room to write.

        Raises:
            EngineError: the model's context is too short for that.
        """
        ids = self.encode(prompt)
        if len(ids) + max_new_tokens > context_tokens:
            raise EngineError(
                f"the prompt has {len(ids)} tokens; with {max_new_tokens} to write that is more than the model's "
                f"{context_tokens}"
            )
        return ids

    def encode_text(self, text: str, *, trusted: bool = False) -> list[int]:
        """Token ids of one piece of text."""
        tokenizer = self._frame if trusted else self._plain
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """For each token of an untrusted text, where it stands: (start, end) in characters."""
        offsets: list[tuple[int, int]] = self._plain.encode(text, add_special_tokens=False).offsets
        return offsets

    def decode(self, ids: list[int]) -> str:
        """Text of generated tokens, control tokens left out."""
        text: str = self._frame.decode(ids, skip_special_tokens=True)
        return text
