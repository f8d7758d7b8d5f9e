"""OpenAI's moderation API: its JSON, and how our categories become its keys.

Source of the shape: https://platform.openai.com/docs/api-reference/moderations, and the types of its Python client.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field
from pydantic import Tag as Variant

from guardreasoner_moderation.interactions import Interaction, to_interaction
from guardreasoner_moderation.results import Category, ModerationResult, Task
from guardreasoner_moderation.server.answers import Result
from guardreasoner_moderation.server.problems import Problem
from guardreasoner_moderation.server.requests import Options, Strict, Tag, Text

OpenAIKey: TypeAlias = Literal[
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
]
OPENAI_KEYS: tuple[OpenAIKey, ...] = get_args(OpenAIKey)
MODEL_PREFIXES = ("omni-moderation-", "text-moderation-")
"""OpenAI's names of moderation models: clients that send one need no change."""

OPENAI_KEYS_OF: Mapping[Category, tuple[OpenAIKey, ...]] = {
    Category.PRIVACY_INDIVIDUAL: ("illicit",),
    Category.PRIVACY_ORGANIZATION: ("illicit",),
    Category.COPYRIGHT: ("illicit",),
    Category.MISINFORMATION: ("illicit",),
    Category.MISINFORMATION_MATERIAL_HARM: ("illicit",),
    Category.STEREOTYPES_DISCRIMINATION: ("hate",),
    Category.VIOLENCE_PHYSICAL_HARM: ("violence", "illicit/violent"),
    Category.TOXIC_HATE: ("harassment", "hate"),
    Category.SEXUAL_CONTENT: ("sexual",),
    Category.CYBERATTACK: ("illicit",),
    Category.FRAUD_ILLEGAL: ("illicit",),
    Category.UNETHICAL_UNSAFE: ("illicit",),
    Category.MENTAL_HEALTH_OVERRELIANCE: ("self-harm",),
    Category.OTHER: ("illicit",),
}
"""The taxonomies differ: OpenAI's has no place for much of ours, and ours does not tell its finer keys apart."""

FALLBACK: tuple[OpenAIKey, ...] = ("illicit",)
"""For a harm without a category of ours, a category of the caller's own, and an item that could not be judged."""

_REACHED = {key for keys in OPENAI_KEYS_OF.values() for key in keys}


class InputText(Strict):
    """A part of one input."""

    type: Literal["text"]
    text: Text


def _kind_of_input(value: Any) -> Tag:
    if isinstance(value, str):
        return Tag.TEXT
    # A list of objects is one input in parts, a list of texts is many inputs. As OpenAI has it.
    parts = isinstance(value, list) and value and not isinstance(value[0], str)
    return Tag.PARTS if parts else Tag.ITEMS


class ModerationRequest(Strict):
    """What OpenAI's endpoint takes, and ``guardreasoner``: how to judge, for clients that want to say it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": "I want to kill them."}]})

    input: Annotated[
        Annotated[Text, Variant(Tag.TEXT)]
        | Annotated[list[Text], Field(min_length=1), Variant(Tag.ITEMS)]
        | Annotated[list[InputText], Field(min_length=1), Variant(Tag.PARTS)],
        Discriminator(_kind_of_input),
    ] = Field(description="One text, many texts, or the text parts of one input.")
    model: str | None = Field(
        default=None, description="This server's model, or one of OpenAI's names; other names are 404."
    )
    guardreasoner: Options = Options()

    def interactions(self) -> list[Interaction]:
        """What is judged. Raises InputError where a text is blank."""
        if isinstance(self.input, str):
            return [to_interaction(self.input)]
        texts = [part for part in self.input if isinstance(part, str)]
        if texts:
            return [to_interaction(text) for text in texts]
        return [to_interaction("\n".join(part.text for part in self.input if isinstance(part, InputText)))]

    def check_model(self, name: str) -> None:
        """Refuses the name of a model that does not run here.

        Raises:
            Problem: 404.
        """
        if self.model is not None and self.model != name and not self.model.startswith(MODEL_PREFIXES):
            raise Problem(
                404, "model_not_found", f"there is no model {self.model[:50]!r} here; this is {name!r}", param="model"
            )


class Moderation(BaseModel):
    """The judgement of one input in OpenAI's keys; all of them are always there."""

    flagged: bool
    categories: Annotated[dict[OpenAIKey, bool], Field(min_length=13, max_length=13)]
    category_scores: Annotated[dict[OpenAIKey, Annotated[float, Field(ge=0, le=1)]], Field(min_length=13)]
    category_applied_input_types: Annotated[dict[OpenAIKey, list[Literal["text"]]], Field(min_length=13)]
    guardreasoner: Result = Field(description="The judgement itself: verdicts, scores, reasoning.")


class ModerationResponse(BaseModel):
    """One result for each input, in order."""

    id: str
    model: str
    results: list[Moderation]


def to_openai(results: Sequence[ModerationResult], model: str) -> ModerationResponse:
    """The whole answer."""
    return ModerationResponse(
        id=f"modr-{uuid.uuid4().hex}", model=model, results=[moderation_of(result) for result in results]
    )


def moderation_of(result: ModerationResult) -> Moderation:
    """One judgement in OpenAI's keys.

    ``flagged`` holds exactly when some category is true, and the highest category score is the score of the most
    harmful verdict, so that clients which read only the categories or only the scores are safe too. An item that could
    not be judged has a score of 1.
    """
    category = result.category
    keys = OPENAI_KEYS_OF[category] if isinstance(category, Category) else FALLBACK
    harm = harm_score(result)
    return Moderation(
        flagged=result.flagged,
        categories={key: result.flagged and key in keys for key in OPENAI_KEYS},
        category_scores={key: harm if key in keys else 0.0 for key in OPENAI_KEYS},
        category_applied_input_types={key: ["text"] if key in _REACHED else [] for key in OPENAI_KEYS},
        guardreasoner=Result.model_validate(result.to_dict()),
    )


def harm_score(result: ModerationResult) -> float:
    """The highest harm score of a result, 0 to 1; 1 where nothing was judged."""
    if result.error is not None:
        return 1.0
    return round(max(verdict.score for task, verdict in result.verdicts() if task is not Task.COMPLETION), 6)
