"""The routes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPBearer
from starlette.routing import Route

from guardreasoner_moderation import __version__
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import ModerationResult
from guardreasoner_moderation.server.answers import Health, Model, Models, Result, Results
from guardreasoner_moderation.server.conversations import Conversations
from guardreasoner_moderation.server.gate import Gate
from guardreasoner_moderation.server.guard import GuardAnswer, GuardRequest, next_answer
from guardreasoner_moderation.server.litellm_guardrail import MEDIA, GuardrailRequest, GuardrailResponse, to_litellm
from guardreasoner_moderation.server.metrics import CONTENT_TYPE, Metrics
from guardreasoner_moderation.server.microbatch import Plan
from guardreasoner_moderation.server.openai_moderations import ModerationRequest, ModerationResponse, to_openai
from guardreasoner_moderation.server.problems import documented, install_handlers
from guardreasoner_moderation.server.reading import Reader, gone
from guardreasoner_moderation.server.requests import ClassifyItems, ClassifyRequest
from guardreasoner_moderation.server.service import Service
from guardreasoner_moderation.server.settings import ServerSettings
from guardreasoner_moderation.server.strict_route import StrictRoute

_POST_ERRORS = documented(400, 408, 413, 415, 422, 429, 503, 504)
_EVENT = {
    "type": "object",
    "description": "One event; `data` is JSON.",
    "properties": {"event": {"enum": ["reasoning", "result", "error"]}, "data": {"type": "string"}},
    "required": ["event", "data"],
}
_STREAM = (
    'event: reasoning\ndata: {"text": "It asks how to open a lock."}\n\n'
    'event: result\ndata: {"flagged": false, "request": {"label": "unharmful", ...}, ...}\n\n'
)


def build_app(guard: Moderator, settings: ServerSettings) -> FastAPI:
    """See :func:`guardreasoner_moderation.server.create_app`."""
    metrics = Metrics()
    service = Service(guard, settings, metrics)
    reader = Reader(settings)
    asked_before = Conversations()
    started = int(time.time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="GuardReasoner moderation",
        description="Moderation of LLM traffic that explains itself.",
        version=__version__,
        lifespan=lifespan,
        # The interactive pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        # Spans and log records would carry validation errors, and those carry the text.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.router.route_class = StrictRoute
    install_handlers(app)
    locked = [Depends(HTTPBearer(auto_error=False, description="The server's API key."))] if settings.api_key else []

    @app.post(
        "/v1/classify",
        response_model=Result | Results,
        response_model_exclude_unset=True,
        responses={
            **_POST_ERRORS,
            200: {
                "description": "The judgement of the item, or of each of the `items`. With `stream`, server-sent "
                "events: `reasoning` as it is written, then `result`, or `error`.",
                "content": {"text/event-stream": {"schema": _EVENT, "example": _STREAM}},
            },
        },
        dependencies=locked,
        tags=["moderation"],
        summary="Judge one item or many",
    )
    async def classify(request: Request, body: Annotated[ClassifyRequest, Body()]) -> Any:
        plan = reader.plan(body)
        if isinstance(body, ClassifyItems):
            results = await service.judge(reader.items(body.items), plan, gone(request))
            return Results(model=service.model, results=[Result.model_validate(one.to_dict()) for one in results])
        interaction = reader.one(body)
        if body.stream:
            return StreamingResponse(
                service.open_stream(interaction, plan),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            )
        (result,) = await service.judge([interaction], plan, gone(request))
        return Result.model_validate(result.to_dict())

    @app.post(
        "/v1/moderations",
        response_model_exclude_unset=True,
        responses={**_POST_ERRORS, **documented(404)},
        dependencies=locked,
        tags=["moderation"],
        summary="Judge texts, in the shape of OpenAI's API",
    )
    async def moderations(request: Request, body: ModerationRequest) -> ModerationResponse:
        body.check_model(service.model)
        interactions = reader.all_of(body.interactions, "input")
        results = await service.judge(interactions, reader.plan(body.guardreasoner), gone(request))
        return to_openai(results, service.model)

    @app.post(
        "/v1/guard",
        response_model_exclude_unset=True,
        responses=_POST_ERRORS,
        dependencies=locked,
        tags=["moderation"],
        summary="Judge a response while it is written",
    )
    async def guard_response(request: Request, body: Annotated[GuardRequest, Body()]) -> GuardAnswer:
        plan, interaction = reader.plan(body), reader.one(body)
        service.refuse_unless_ready()

        async def judge(part: Interaction) -> ModerationResult:
            (result,) = await service.judge([part], plan, gone(request))
            return result

        return await next_answer(body, interaction, guard, judge)

    @app.post(
        "/beta/litellm_basic_guardrail_api",
        response_model_exclude_unset=True,
        responses=_POST_ERRORS,
        dependencies=locked,
        tags=["moderation"],
        summary="LiteLLM's generic guardrail API",
    )
    async def litellm_guardrail(request: Request, body: GuardrailRequest) -> GuardrailResponse:
        asked = asked_before.of(body.litellm_call_id or "")
        interactions = reader.all_of(partial(body.interactions, asked), "texts")
        results = await service.judge(interactions, Plan(settings.mode), gone(request)) if interactions else []
        answer = to_litellm(results, blocked_by=MEDIA if body.holds_media() and not settings.allow_images else None)
        if body.input_type == "request" and body.litellm_call_id and answer.action == "NONE":
            # A response beside its request is judged better than alone: "I can't help with that" names no harm.
            asked_before.remember(body.litellm_call_id, body.conversation())
        return answer

    @app.get("/v1/models", responses=documented(), dependencies=locked, tags=["server"], summary="The model that runs")
    async def models() -> Models:
        return Models(data=[Model(id=service.model, created=started, owned_by="guardreasoner-moderation")])

    @app.get("/healthz", responses={500: documented()[500]}, tags=["server"], summary="Whether the process answers")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get(
        "/readyz",
        responses={status: documented(503)[status] for status in (500, 503)},
        tags=["server"],
        summary="Whether the model has judged a first text",
    )
    async def readyz() -> Health:
        service.refuse_unless_ready()
        return Health(status="ready")

    @app.get(
        "/metrics",
        response_class=Response,
        responses={**documented(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        dependencies=locked,
        tags=["server"],
        summary="Counters for Prometheus",
    )
    async def exposition() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)

    routes = [route for route in app.routes if isinstance(route, Route)]
    app.add_middleware(
        Gate,
        settings=settings,
        metrics=metrics,
        paths=[route.path for route in routes],
        posted=[route.path for route in routes if "POST" in (route.methods or ())],
    )
    return app
