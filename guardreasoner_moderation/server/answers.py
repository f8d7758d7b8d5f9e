"""The JSON that the server answers with: judgements, errors, models, probes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from guardreasoner_moderation.server.requests import LabelName, ModeName


class Verdict(BaseModel):
    """The answer to one task."""

    label: LabelName
    score: float = Field(ge=0, le=1, description="Calibrated probability of the risky label: harmful or refusal.")
    threshold: float = Field(ge=0, le=1)
    reasoning: list[str]


class Cost(BaseModel):
    """What a judgement cost; items of a batch carry an equal share of its seconds."""

    prompt_tokens: int
    completion_tokens: int
    seconds: float


class Place(BaseModel):
    """The part of a long text that decided a verdict, in characters."""

    index: int
    count: int
    field: str
    start: int
    end: int


class Result(BaseModel):
    """The judgement of one item, as ``ModerationResult.to_dict`` writes it.

    With ``error`` nothing was judged: the verdicts are null and ``flagged`` is true.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "flagged": True,
                    "request": {"label": "harmful", "score": 0.91, "threshold": 0.5, "reasoning": ["It asks ..."]},
                    "completion": None,
                    "response": None,
                    "category": "cyberattack",
                    "mode": "think",
                    "model": "embedded",
                    "usage": {"prompt_tokens": 61, "completion_tokens": 40, "seconds": 0.41},
                }
            ]
        }
    )

    flagged: bool = Field(description="Whether any harm verdict reached its threshold, or nothing could be judged.")
    request: Verdict | None
    completion: Verdict | None
    response: Verdict | None
    category: str | None
    mode: ModeName
    model: str
    usage: Cost
    windows: dict[str, Place] | None = Field(default=None, description="Only where a text was longer than a window.")
    error: str | None = Field(default=None, description="Why nothing was judged.")


class Results(BaseModel):
    """The judgements of a batch, in the order of its items."""

    model: str
    results: list[Result]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    code: str
    param: str | None


class ErrorBody(BaseModel):
    """The body of every answer other than 200."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "message": "unknown key 'promt'; did you mean 'prompt'?",
                        "type": "invalid_request_error",
                        "code": "unknown_key",
                        "param": None,
                    }
                }
            ]
        }
    )

    error: ErrorDetail


class Model(BaseModel):
    """A model, as OpenAI's API lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class Models(BaseModel):
    """The models of this server: one."""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """What the probes answer."""

    status: Literal["ok", "ready"]
