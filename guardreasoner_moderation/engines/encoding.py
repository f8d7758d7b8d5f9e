"""Prompts to token ids, with control tokens recognised in the frame alone."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from guardreasoner_moderation.errors import EngineError, IncompatibleModelError
from guardreasoner_moderation.prompts import Prompt

if TYPE_CHECKING:
    from tokenizers import Tokenizer


# Whatever a vocabulary may have for a control token: <|im_end|>, <s>, <start_of_turn>, </think>, [INST], [/INST], ]~b].
_CONTROL = re.compile(r"<(?=[^\s<>]+>)|\[(?=/?[A-Z][A-Z0-9_]*\])|<(?=[|｜])|(?<=[|｜])(?=>)|\](?=~)|\[(?=e~)")

_MARKUP = re.compile(r"[^\w\s▁]")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


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
    """Encodes each span of a prompt on its own: ``<|im_end|>`` in an untrusted span stays plain text.

    A tokenizer's own switch for that is not enough: it leaves tokens such as ``<think>`` or ``<｜User｜>``, which many
    tokenizers add without marking them as special, and vocabularies from which ordinary text can be put together to
    ``</s>`` (Unigram, or ``ignore_merges``). So the ids are looked at too.
    """

    def __init__(self, tokenizer: Tokenizer, bos_id: int | None = None) -> None:
        # A second tokenizer, because the switch is its state and engines are used from several threads.
        self._frame = tokenizer
        self._plain = deepcopy(tokenizer)
        self._plain.encode_special_tokens = True
        for one in (self._frame, self._plain):
            one.no_truncation()
            one.no_padding()
        self._bos_id = bos_id
        self.control_ids = control_ids(tokenizer)

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
        """Token ids of one piece of text.

        Raises:
            EngineError: the tokenizer takes a single character of an untrusted text for a control token.
        """
        if not trusted:
            return [token for token, _ in self._encode_plain(text)]
        ids: list[int] = self._frame.encode(text, add_special_tokens=False).ids
        return ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """For each token of an untrusted text, where it stands: (start, end) in characters."""
        return [place for _, place in self._encode_plain(text)]

    def decode(self, ids: list[int]) -> str:
        """Text of generated tokens, control tokens left out."""
        text: str = self._frame.decode(ids, skip_special_tokens=True)
        return text

    def _encode_plain(self, text: str, begin: int = 0) -> list[tuple[int, tuple[int, int]]]:
        """Ids and places of an untrusted text that begins at ``begin``. What would be a control token is cut in two."""
        encoding = self._plain.encode(text, add_special_tokens=False)
        if self.control_ids.isdisjoint(encoding.ids):
            return [
                (token, (begin + start, begin + end))
                for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            ]
        cuts = [0]
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token in self.control_ids:
                if end - start < 2:
                    raise EngineError(f"the model's tokenizer reads {text[start:end]!r} as a control token")
                cuts.append(start + 1)
        return [
            pair
            for start, end in pairwise((*cuts, len(text)))
            for pair in self._encode_plain(text[start:end], begin + start)
        ]


def control_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that no untrusted text may become: special ones, and added ones that are no mere words or spaces.

    Tokens for what is unknown, and for the bytes of characters that the vocabulary lacks, are none of them.
    """
    model = tokenizer.model
    if hasattr(model, "unk_token"):
        unknown = tokenizer.token_to_id(model.unk_token or "")
    else:  # Unigram tells it in its state alone
        unknown = json.loads(tokenizer.to_str())["model"].get("unk_id")
    return frozenset(
        token
        for token, added in tokenizer.get_added_tokens_decoder().items()
        if token != unknown
        and not _BYTE.fullmatch(added.content)
        and (added.special or (len(added.content) > 1 and _MARKUP.search(added.content)))
    )
