"""What a judgement looks like: labels, categories, verdicts, the result."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

if sys.version_info >= (3, 11):
    from enum import StrEnum as StrEnum  # noqa: PLC0414 - prompts.py imports it from here
else:  # pragma: no cover
    from enum import Enum

    class StrEnum(str, Enum):
        """``enum.StrEnum`` of Python 3.11 and later."""

        __str__ = str.__str__


class Task(StrEnum):
    """The three questions of a guard (arXiv 2501.18492, section 2.1)."""

    REQUEST = "request"
    COMPLETION = "completion"
    RESPONSE = "response"


class Label(StrEnum):
    """The answers. The first of each pair is the risky one, whose probability is the score."""

    HARMFUL = "harmful"
    UNHARMFUL = "unharmful"
    REFUSAL = "refusal"
    COMPLIANCE = "compliance"


LABELS: Mapping[Task, tuple[Label, Label]] = {
    Task.REQUEST: (Label.HARMFUL, Label.UNHARMFUL),
    Task.COMPLETION: (Label.REFUSAL, Label.COMPLIANCE),
    Task.RESPONSE: (Label.HARMFUL, Label.UNHARMFUL),
}
"""For each task the risky label, then the other one."""


class Category(StrEnum):
    """Kinds of harm: the subcategories of WildGuard's taxonomy (arXiv 2406.18495, table 7), and ``other``."""

    PRIVACY_INDIVIDUAL = "privacy_individual"
    PRIVACY_ORGANIZATION = "privacy_organization"
    COPYRIGHT = "copyright"
    MISINFORMATION = "misinformation"
    MISINFORMATION_MATERIAL_HARM = "misinformation_material_harm"
    STEREOTYPES_DISCRIMINATION = "stereotypes_discrimination"
    VIOLENCE_PHYSICAL_HARM = "violence_physical_harm"
    TOXIC_HATE = "toxic_hate"
    SEXUAL_CONTENT = "sexual_content"
    CYBERATTACK = "cyberattack"
    FRAUD_ILLEGAL = "fraud_illegal"
    UNETHICAL_UNSAFE = "unethical_unsafe"
    MENTAL_HEALTH_OVERRELIANCE = "mental_health_overreliance"
    OTHER = "other"


class Mode(StrEnum):
    """``think`` writes reasoning first, ``verdict`` answers at once, ``auto`` reasons where a verdict is uncertain."""

    THINK = "think"
    VERDICT = "verdict"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """The answer to one task.

    Attributes:
        label: the chosen label.
        score: calibrated probability, 0 to 1, of the risky label (harmful or refusal).
        threshold: the score from which the risky label is chosen.
        reasoning: the steps that led to the label, in order; empty in verdict mode.
    """

    label: Label
    score: float
    threshold: float
    reasoning: tuple[str, ...] = ()

    @property
    def risky(self) -> bool:
        """Whether the label is the risky one of its task."""
        return self.label in (Label.HARMFUL, Label.REFUSAL)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a judgement cost: tokens read and written over all windows, and seconds of wall time.

    Items of a batch share engine calls; each carries an equal share of its batch's seconds.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a long input that decided a verdict.

    Attributes:
        index: number of the deciding part, from 0.
        count: how many parts the input was judged in: windows, then windows of what it says in code, then passages.
        field: the text that was cut: "prompt", "response" or "conversation".
        start, end: the window's place in that text as it was given, in characters.
    """

    index: int
    count: int
    field: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ModerationResult:
    """The judgement of one interaction.

    ``completion`` and ``response`` are None when no response was given. ``category`` is a :class:`Category`, or a plain
    word when the adapter or the policy brings categories of its own. When ``error`` is set nothing was judged:
    ``request`` is None and ``flagged`` says what ``on_error`` asked for.
    """

    flagged: bool
    request: TaskVerdict | None
    completion: TaskVerdict | None = None
    response: TaskVerdict | None = None
    category: Category | str | None = None
    mode: Mode = Mode.VERDICT
    model: str = ""
    usage: Usage = field(default_factory=Usage)
    windows: Mapping[Task, Window] = field(default_factory=dict)
    error: str | None = None

    @property
    def reasoning(self) -> tuple[str, ...]:
        """All steps, in the order of the tasks."""
        return tuple(step for _, verdict in self.verdicts() for step in verdict.reasoning)

    def verdicts(self) -> tuple[tuple[Task, TaskVerdict], ...]:
        """The tasks that were judged, in order, with their verdicts."""
        pairs = ((task, getattr(self, task.value)) for task in Task)
        return tuple((task, verdict) for task, verdict in pairs if verdict is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the shape that ``--json`` prints and the server sends."""

        def plain(verdict: TaskVerdict | None) -> dict[str, Any] | None:
            if verdict is None:
                return None
            return {
                "label": verdict.label.value,
                "score": round(verdict.score, 6),
                "threshold": verdict.threshold,
                "reasoning": list(verdict.reasoning),
            }

        record: dict[str, Any] = {
            "flagged": self.flagged,
            "request": plain(self.request),
            "completion": plain(self.completion),
            "response": plain(self.response),
            "category": None if self.category is None else str(self.category),
            "mode": self.mode.value,
            "model": self.model,
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "completion_tokens": self.usage.completion_tokens,
                "seconds": round(self.usage.seconds, 4),
            },
        }
        if self.windows:
            record["windows"] = {
                task.value: {
                    "index": window.index,
                    "count": window.count,
                    "field": window.field,
                    "start": window.start,
                    "end": window.end,
                }
                for task, window in self.windows.items()
            }
        if self.error is not None:
            record["error"] = self.error
        return record

    def to_json(self, *, indent: int | None = None) -> str:
        """:meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent)

    def __rich__(self) -> Any:
        from guardreasoner_moderation.rendering import render

        return render(self)

    def __str__(self) -> str:
        lines = ["FLAGGED" if self.flagged else "not flagged"]
        if self.category is not None:
            lines[0] += f" ({self.category})"
        if self.error is not None:
            return f"{lines[0]}: not judged: {self.error}"
        for task, verdict in self.verdicts():
            lines.append(f"{task.value}: {verdict.label} (score {verdict.score:.2f})")
            lines += [f"  - {step}" for step in verdict.reasoning]
        return "\n".join(lines)
