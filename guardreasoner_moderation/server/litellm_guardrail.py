"""LiteLLM's generic guardrail API: what its proxy sends, and what it reads in the answer.

Source of the shape: https://docs.litellm.ai/docs/adding_provider/generic_guardrail_api and the proxy's own models
(``GenericGuardrailAPIRequest``), of which the fields that matter here are read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction, from_messages, to_interaction
from guardreasoner_moderation.results import ModerationResult, Task
from guardreasoner_moderation.server.answers import Result
from guardreasoner_moderation.server.conversations import Conversation

_CHAT_ROLES = ("system", "developer", "user", "assistant")
_MEDIA = ("image", "audio", "video", "file", "document")
MEDIA = "the call holds images or other files, which this guard cannot judge"


class ToolFunction(BaseModel):
    """The function that a model calls."""

    arguments: str | dict[str, Any] | None = None


class ToolCall(BaseModel):
    """A call that a model wrote: its arguments are text that a model chose."""

    function: ToolFunction | None = None

    def text(self) -> str:
        """The arguments, as text."""
        arguments = self.function.arguments if self.function is not None else None
        return arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""


class GuardrailRequest(BaseModel):
    """What the proxy sends. Keys that are not named here differ between its versions and are not read.

    ``additional_provider_specific_params`` is not read on purpose: callers of the proxy can add to it, and no caller
    may loosen the guard that watches him.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "input_type": "request",
                    "texts": ["How do I pick a lock?"],
                    "structured_messages": [{"role": "user", "content": "How do I pick a lock?"}],
                    "request_data": {},
                }
            ]
        }
    )

    input_type: Literal["request", "response"]
    texts: list[str] | None = Field(default=None, description="Every text of the request, or of the response.")
    structured_messages: list[dict[str, Any]] | None = Field(default=None, description="The request as chat messages.")
    images: list[str] | None = Field(default=None, description="Images cannot be judged; they block the call.")
    tool_calls: list[ToolCall] | None = Field(default=None, description="Their arguments are judged as texts.")
    litellm_call_id: str | None = Field(default=None, description="Joins a response to its request.")

    def conversation(self) -> list[dict[str, str]]:
        """The chat messages that hold text."""
        return _chat(self.structured_messages or [])

    def interactions(self, asked: Conversation = ()) -> list[Interaction]:
        """What is judged.

        A request that comes as chat messages is one conversation; every text that is not part of it is judged by
        itself. A response is judged beside the request where that is known, or else by itself.

        Args:
            asked: the conversation that a response belongs to, if the proxy does not send it.
        """
        messages = self.structured_messages or []
        given = [*(self.texts or []), *(call.text() for call in self.tool_calls or [])]
        if self.input_type == "response":
            conversation = self.conversation() or asked
            return [_answered(conversation, text) for text in _distinct(given)]
        given += [text for message in messages for text in _texts_of(message)]
        whole = _judgeable(self.conversation())
        if whole is None:
            return [to_interaction(text) for text in _distinct(given)]
        covered = {text for message in messages if message.get("role") in _CHAT_ROLES for text in _texts_of(message)}
        return [whole, *(to_interaction(text) for text in _distinct(given) if text not in covered)]

    def holds_media(self) -> bool:
        """Whether there is something that is no text, such as an image."""
        parts = [part for message in self.structured_messages or [] for part in _parts_of(message)]
        kinds = [str(part.get("type")) for part in parts]
        return bool(self.images) or any(medium in kind for kind in kinds for medium in _MEDIA)


class GuardrailResponse(BaseModel):
    """What the proxy reads: ``BLOCKED`` raises its reason to the caller, ``NONE`` lets the call through."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"action": "NONE", "blocked_reason": None, "guardreasoner": []}]}
    )

    action: Literal["NONE", "BLOCKED"]
    blocked_reason: str | None
    guardreasoner: list[Result] = Field(description="The judgements; the proxy does not read them.")


def to_litellm(results: Sequence[ModerationResult], *, blocked_by: str | None = None) -> GuardrailResponse:
    """Blocks where anything is flagged (an item that could not be judged is), or for a reason of its own."""
    reasons = [reason_of(result) for result in results if result.flagged]
    reason = blocked_by or (reasons[0] if reasons else None)
    return GuardrailResponse(
        action="NONE" if reason is None else "BLOCKED",
        blocked_reason=reason,
        guardreasoner=[Result.model_validate(result.to_dict()) for result in results],
    )


def reason_of(result: ModerationResult) -> str:
    """One sentence on why a result is flagged; it repeats none of the text."""
    if result.error is not None:
        return "the text could not be judged"
    task, verdict = max(
        ((task, verdict) for task, verdict in result.verdicts() if task is not Task.COMPLETION),
        key=lambda pair: (pair[1].risky, pair[1].score),
    )
    kind = "" if result.category is None else f" ({result.category})"
    return f"the {task} was judged harmful{kind}, score {verdict.score:.2f}"


def _chat(messages: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The messages of people and assistants that hold text; results of tools and the like are judged by themselves."""
    chat = [(str(message.get("role")), "\n".join(_texts_of(message))) for message in messages]
    return [{"role": role, "content": text} for role, text in chat if role in _CHAT_ROLES and text.strip()]


def _texts_of(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in _parts_of(message) if isinstance(part.get("text"), str)]


def _parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _distinct(texts: Sequence[str]) -> list[str]:
    """Each text once, in order, without blank ones: there is nothing to judge in those."""
    return [text for text in dict.fromkeys(texts) if text.strip()]


def _judgeable(conversation: Conversation) -> Interaction | None:
    try:
        return from_messages(conversation)
    except InputError:  # such as no user message: the texts are judged one by one
        return None


def _answered(conversation: Conversation, text: str) -> Interaction:
    return _judgeable([*conversation, {"role": "assistant", "content": text}]) or to_interaction(text)
