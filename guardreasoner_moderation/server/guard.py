"""``/v1/guard``: a client shows a growing response, and is told how much of it may go on to the user.

Each call holds all there is to know. So the server keeps nothing between calls, a call may be sent again, and the calls
of one response may go to different processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field
from pydantic import Tag as Variant

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.guarding import due, must_stop, part_to_judge, placed
from guardreasoner_moderation.interactions import Interaction, to_interaction
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import ModerationResult
from guardreasoner_moderation.server.answers import Result
from guardreasoner_moderation.server.problems import Problem
from guardreasoner_moderation.server.requests import MessagesItem, ModeName, Options, PromptItem, Tag, Text


def _kind_of_every(value: Any) -> Tag:
    return Tag.TEXT if isinstance(value, str) else Tag.NUMBER


class Growing(Options):
    """A response that is being written, and how it is guarded."""

    mode: ModeName | None = Field(default="verdict", description="As for `/v1/classify`; null is the server's mode.")
    response: str | None = Field(
        default=None, description="All of it that has come. Left out, the request is judged by itself."
    )
    released: int = Field(default=0, ge=0, description="`released` of the answer before, or 0.")
    final: bool = Field(default=False, description="Nothing more will come: judge all that waits.")
    every: Annotated[
        Annotated[Literal["sentence"], Variant(Tag.TEXT)] | Annotated[int, Field(ge=1), Variant(Tag.NUMBER)],
        Discriminator(_kind_of_every),
    ] = Field(default="sentence", description="Judge after each sentence, or whenever so many characters wait.")
    stop_on_request: bool = Field(default=False, description="Stop at a harmful request, where that is judged.")

    def to(self, request: Interaction) -> Interaction:
        """The request with the response so far; a blank one is none.

        Raises:
            InputError: the request has a response of its own, or a text is blank.
        """
        if request.response is not None:
            raise InputError("the last message is the assistant's; send its text as 'response'")
        return to_interaction(replace(request, response=self.response if (self.response or "").strip() else None))


class GuardPrompt(Growing, PromptItem):
    """One request, and the response to it as far as it has come."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "prompt": "How do I bake bread?",
                    "response": "Mix flour, water, salt and yeast, and knead. Then let it re",
                    "released": 0,
                }
            ]
        }
    )

    prompt: Text = Field(description="What the user wrote.")

    def interaction(self) -> Interaction:
        """Raises InputError where a text is blank."""
        return self.to(Interaction(self.prompt, None, (), self.system))


class GuardMessages(Growing, MessagesItem):
    """A conversation that ends with the user's message, and the response to it as far as it has come."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"messages": [{"role": "user", "content": "How do I bake bread?"}], "stop_on_request": True}]
        }
    )

    def interaction(self) -> Interaction:
        """Raises InputError where there is no request, a response of its own, or a text is blank."""
        return self.to(super().interaction())


def _kind_of_request(value: Any) -> Tag:
    found = "messages" in value if isinstance(value, dict) else isinstance(value, GuardMessages)
    return Tag.MESSAGES if found else Tag.PROMPT


GuardRequest: TypeAlias = Annotated[
    Annotated[GuardPrompt, Variant(Tag.PROMPT)] | Annotated[GuardMessages, Variant(Tag.MESSAGES)],
    Discriminator(_kind_of_request),
]


class GuardAnswer(BaseModel):
    """What may go on to the user."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "stop": True,
                    "release": "",
                    "released": 45,
                    "result": {
                        "flagged": True,
                        "request": {"label": "unharmful", "score": 0.02, "threshold": 0.5, "reasoning": []},
                        "completion": {"label": "compliance", "score": 0.01, "threshold": 0.5, "reasoning": []},
                        "response": {"label": "harmful", "score": 0.83, "threshold": 0.5, "reasoning": []},
                        "category": "fraud_illegal",
                        "mode": "verdict",
                        "model": "embedded",
                        "usage": {"prompt_tokens": 71, "completion_tokens": 19, "seconds": 0.23},
                    },
                }
            ]
        }
    )

    stop: bool = Field(description="Whether the response ends here; nothing more of it may be shown.")
    release: str = Field(description="Text that may be shown now, after all that was released before.")
    released: int = Field(ge=0, description="How much was released so far, in characters, for the next call.")
    result: Result | None = Field(description="The judgement, if there was something to judge.")


async def next_answer(
    body: GuardPrompt | GuardMessages,
    interaction: Interaction,
    guard: Moderator,
    judge: Callable[[Interaction], Awaitable[ModerationResult]],
) -> GuardAnswer:
    """Judges what is due of a growing response, or the request where there is no response yet.

    Args:
        body: the call.
        interaction: its request, and its response so far.
        guard: whose window bounds what is read.
        judge: judges one interaction; where it could not, the result has an ``error``.

    Raises:
        Problem: 422, more is said to be released than there is; or what ``judge`` raises.
    """
    response = body.response or ""
    if body.released > len(response):
        message = f"released: {body.released} characters, but the response has {len(response)}"
        raise Problem(422, "invalid_value", message, param="released")
    if body.response is None:
        result = await judge(interaction)
        stop = must_stop(result, result.request if body.stop_on_request else None)
        return GuardAnswer(stop=stop, release="", released=0, result=_plain(result))
    held = response[body.released :]
    text = held[: due(held, body.every, final=body.final)]
    end = body.released + len(text)
    if not text or text.isspace():
        return GuardAnswer(stop=False, release=text, released=end, result=None)
    # An engine in another process may be asked for the tokens, and may be slow to answer.
    part, start = await asyncio.to_thread(
        part_to_judge, interaction, response[:end], body.released, guard.model.engine.encode, guard.window_tokens
    )
    result = placed(await judge(part), start, end)
    if must_stop(result, result.response):
        return GuardAnswer(stop=True, release="", released=body.released, result=_plain(result))
    return GuardAnswer(stop=False, release=text, released=end, result=_plain(result))


def _plain(result: ModerationResult) -> Result:
    return Result.model_validate(result.to_dict())
