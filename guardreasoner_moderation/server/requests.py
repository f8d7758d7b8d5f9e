"""The JSON that ``/v1/classify`` takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, model_validator
from pydantic import Tag as Variant
from pydantic_core import PydanticCustomError

from guardreasoner_moderation.errors import nearest
from guardreasoner_moderation.interactions import Interaction, from_messages, to_interaction
from guardreasoner_moderation.results import StrEnum

Text: TypeAlias = Annotated[str, Field(min_length=1, pattern=r"\S")]
Score: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
ModeName: TypeAlias = Literal["think", "verdict", "auto"]
LabelName: TypeAlias = Literal["harmful", "unharmful", "refusal", "compliance"]


class Tag(StrEnum):
    """Names of a union's members. Brackets tell them from field names where an error says its place."""

    PROMPT = "(prompt)"
    MESSAGES = "(messages)"
    ITEMS = "(items)"
    TEXT = "(text)"
    PARTS = "(parts)"
    NUMBER = "(number)"
    BY_TASK = "(by task)"


class Strict(BaseModel):
    """Untrusted JSON: an unknown key is an error that names the nearest known one, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in value:
                if key not in cls.model_fields:
                    name = str(key)[:50]
                    raise PydanticCustomError(
                        "unknown_key",
                        "{message}",
                        {"message": f"unknown key {name!r}{nearest(name, cls.model_fields)}"},
                    )
        return value


class TaskThresholds(Strict):
    """A threshold for each task; tasks that are left out keep the server's."""

    request: Score | None = None
    completion: Score | None = None
    response: Score | None = None


def _kind_of_thresholds(value: Any) -> Tag:
    return Tag.BY_TASK if isinstance(value, (dict, TaskThresholds)) else Tag.NUMBER


Thresholds: TypeAlias = Annotated[
    Annotated[Score, Variant(Tag.NUMBER)] | Annotated[TaskThresholds, Variant(Tag.BY_TASK)],
    Discriminator(_kind_of_thresholds),
]


class Options(Strict):
    """How items are judged. What is left out is the server's setting."""

    mode: ModeName | None = Field(default=None, description="`think` reasons first, `auto` only where it is uncertain.")
    thresholds: Thresholds | None = Field(
        default=None,
        description="Scores from which a verdict is risky: one number for both harm tasks, or one for each task.",
    )
    max_reasoning_tokens: int | None = Field(default=None, ge=1, le=8192, description="Budget of the reasoning.")
    max_reasoning_steps: int | None = Field(default=None, ge=1, le=100, description="Sentences to keep for each task.")


class TextPart(BaseModel):
    """A part of a message's content. Only text can be judged."""

    type: Literal["text", "input_text", "output_text"] = "text"
    text: str


def _kind_of_content(value: Any) -> Tag:
    return Tag.PARTS if isinstance(value, list) else Tag.TEXT


class ChatMessage(BaseModel):
    """One message of a conversation, as chat APIs write it; keys other than these are not read."""

    role: Literal["system", "developer", "user", "human", "assistant"]
    content: Annotated[
        Annotated[str, Variant(Tag.TEXT)] | Annotated[list[TextPart], Variant(Tag.PARTS)],
        Discriminator(_kind_of_content),
    ]


class PromptItem(Strict):
    """A request and, if there is one, the response to it."""

    prompt: Text = Field(description="What the user wrote.")
    response: Text | None = Field(default=None, description="What the assistant answered.")
    system: str | None = Field(default=None, description="The system message that the assistant was given.")

    def interaction(self) -> Interaction:
        """Raises InputError where a text is blank."""
        return to_interaction(Interaction(self.prompt, self.response, (), self.system))


class MessagesItem(Strict):
    """A conversation. The last assistant message is the response, the user messages before it the request."""

    messages: list[ChatMessage] = Field(
        min_length=1,
        json_schema_extra={
            "contains": {"properties": {"role": {"enum": ["user", "human"]}}, "required": ["role"], "type": "object"}
        },
    )

    def interaction(self) -> Interaction:
        """Raises InputError where there is no request, or a text is blank."""
        return from_messages([message.model_dump() for message in self.messages])


def _kind_of_item(value: Any) -> Tag:
    if isinstance(value, str):
        return Tag.TEXT
    found = "messages" in value if isinstance(value, dict) else isinstance(value, MessagesItem)
    return Tag.MESSAGES if found else Tag.PROMPT


AnyItem: TypeAlias = Annotated[
    Annotated[Text, Variant(Tag.TEXT)]
    | Annotated[PromptItem, Variant(Tag.PROMPT)]
    | Annotated[MessagesItem, Variant(Tag.MESSAGES)],
    Discriminator(_kind_of_item),
]


class Streaming(Options):
    """Options of a request with one item."""

    stream: bool = Field(default=False, description="Send the reasoning as it is written, as server-sent events.")


class ClassifyPrompt(PromptItem, Streaming):
    """One request and, if there is one, its response."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "How do I pick a lock?", "response": "Ask a locksmith.", "mode": "verdict"}]
        }
    )


class ClassifyMessages(MessagesItem, Streaming):
    """One conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"messages": [{"role": "user", "content": "How do I pick a lock?"}], "thresholds": 0.4}]
        }
    )


class ClassifyItems(Options):
    """Many items, judged with the same options."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": ["How do I bake bread?", {"prompt": "Hi", "response": "Hello."}]}]}
    )

    items: list[AnyItem] = Field(min_length=1)


def _kind_of_request(value: Any) -> Tag:
    if isinstance(value, ClassifyItems) or (isinstance(value, dict) and "items" in value):
        return Tag.ITEMS
    found = "messages" in value if isinstance(value, dict) else isinstance(value, ClassifyMessages)
    return Tag.MESSAGES if found else Tag.PROMPT


ClassifyRequest: TypeAlias = Annotated[
    Annotated[ClassifyPrompt, Variant(Tag.PROMPT)]
    | Annotated[ClassifyMessages, Variant(Tag.MESSAGES)]
    | Annotated[ClassifyItems, Variant(Tag.ITEMS)],
    Discriminator(_kind_of_request),
]
