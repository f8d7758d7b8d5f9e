"""What is judged: one exchange between a human user and an AI assistant, and the shapes a caller may write it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from guardreasoner_moderation.checks import encodable
from guardreasoner_moderation.errors import InputError, nearest, shown

_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"}
_ITEM_KEYS = ("prompt", "response", "system", "messages")


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier message of a conversation; ``role`` is "user" or "assistant"."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Interaction:
    """One request, its response if there is one, and what came before them."""

    prompt: str
    response: str | None = None
    history: tuple[Turn, ...] = ()
    system: str | None = None


Message: TypeAlias = Mapping[str, Any]
Item: TypeAlias = str | Interaction | Mapping[str, Any] | Sequence[Any]
"""A prompt; a (prompt, response) pair; a dict with ``prompt`` and optionally ``response`` and ``system``, or with
``messages``; a list of chat messages; or an :class:`Interaction`."""


def to_interaction(item: Item) -> Interaction:
    """Reads any accepted shape of an item. The item is not changed.

    Raises:
        InputError: the shape is unknown, a text is missing, or a text is empty.
    """
    if isinstance(item, Interaction):
        return _checked(item)
    if isinstance(item, str):
        return _checked(Interaction(item))
    if isinstance(item, Mapping):
        return _from_mapping(item)
    if isinstance(item, Sequence) and not isinstance(item, (bytes, bytearray)):
        messages = [part for part in item if isinstance(part, Mapping)]
        if messages and len(messages) == len(item):
            return from_messages(messages)
        if len(item) == 2:
            return _checked(Interaction(item[0], item[1]))
        raise InputError(
            f"a sequence item must be a (prompt, response) pair or a list of chat messages, found {len(item)} elements"
        )
    raise InputError(
        f"an item must be text, a (prompt, response) pair, a dict or a list of chat messages, found {_kind(item)}"
    )


def from_messages(messages: Sequence[Message]) -> Interaction:
    """Reads chat messages: the last assistant turn is the response, the user turns before it are the request.

    Several user messages in a row are one request, joined by a blank line. Earlier turns become the history, system
    messages are kept apart. When the last turn is the user's there is no response yet.

    Raises:
        InputError: there is no list of messages, a role is unknown, a content is not text, or there is no user message
            before the last turn.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes, bytearray)):
        raise InputError(f"messages must be a list of chat messages, found {_kind(messages)}")
    system: list[str] = []
    turns: list[Turn] = []
    for number, message in enumerate(messages, 1):
        role, text = _read_message(message, number)
        if role == "system":
            system.append(text)
        elif turns and turns[-1].role == role:
            turns[-1] = Turn(role, f"{turns[-1].text}\n\n{text}")
        else:
            turns.append(Turn(role, text))
    response = turns.pop().text if turns and turns[-1].role == "assistant" else None
    if not turns:
        raise InputError("the messages hold no user message that could be judged")
    prompt = turns.pop().text
    return _checked(Interaction(prompt, response, tuple(turns), "\n\n".join(system) or None))


def _read_message(message: Message, number: int) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise InputError(f"every chat message must be a dict with 'role' and 'content', found {_kind(message)}")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InputError(f"message {number} has the role {shown(role)}{nearest(role, _ROLES)}")
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, (str, bytes)):
        # OpenAI's content parts; a part that is not text cannot be judged by a text model, so it is an error.
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise InputError(f"message {number} has a content part that is not text; only text can be judged")
        content = "\n".join(str(part) for part in parts)
    if not isinstance(content, str):
        raise InputError(f"message {number} has a content of {_kind(content)}, not text")
    return _ROLES[role], content


def _from_mapping(item: Mapping[str, Any]) -> Interaction:
    unknown = [key for key in item if key not in _ITEM_KEYS]
    if unknown:
        raise InputError(f"unknown key {shown(unknown[0])} in an item{nearest(unknown[0], _ITEM_KEYS)}")
    if "messages" in item:
        if len(item) > 1:
            raise InputError("an item with 'messages' takes no other key")
        return from_messages(item["messages"])
    if "prompt" not in item:
        raise InputError("an item needs a 'prompt' (or 'messages')")
    return _checked(Interaction(item["prompt"], item.get("response"), (), item.get("system")))


def _checked(interaction: Interaction) -> Interaction:
    history: object = interaction.history
    if not isinstance(history, (tuple, list)) or not all(isinstance(turn, Turn) for turn in history):
        raise InputError("the history of an interaction must be a tuple of Turns")
    for turn in interaction.history:
        if turn.role not in ("user", "assistant"):
            raise InputError(f"a turn of the history has the role {shown(turn.role)}; it must be 'user' or 'assistant'")
    texts: list[tuple[str, Any]] = [("prompt", interaction.prompt)]
    texts += [(f"history turn {number}", turn.text) for number, turn in enumerate(interaction.history, 1)]
    texts += [(name, value) for name in ("response", "system") if (value := getattr(interaction, name)) is not None]
    for name, text in texts:
        if not isinstance(text, str):
            raise InputError(f"the {name} must be text, found {_kind(text)}")
        # Tokenizers take UTF-8, and half a surrogate pair has no UTF-8 form.
        if not encodable(text):
            raise InputError(f"the {name} holds a lone surrogate; decode the text with errors='replace' first")
    if not interaction.prompt.strip():
        raise InputError("the prompt is empty: there is nothing to judge")
    if interaction.response is not None and not interaction.response.strip():
        raise InputError("the response is empty; pass None when there is no response")
    return interaction


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
