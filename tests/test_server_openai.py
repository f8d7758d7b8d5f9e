"""OpenAI's moderation API with OpenAI's own client, and LiteLLM's guardrail API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from test_server import Served, serving

from guardreasoner_moderation import Category, Label, Mode, ModerationResult, TaskVerdict
from guardreasoner_moderation.server.conversations import Conversations
from guardreasoner_moderation.server.litellm_guardrail import GuardrailRequest, reason_of
from guardreasoner_moderation.server.openai_moderations import OPENAI_KEYS, OPENAI_KEYS_OF, moderation_of

GUARDRAIL = "/beta/litellm_basic_guardrail_api"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with serving(api_key="sesame", max_items=8) as served:
        yield served


@pytest.fixture
def client(server: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="sesame", max_retries=0) as client:
        yield client


def test_the_openai_client_reads_one_text(client: OpenAI) -> None:
    answer = client.moderations.create(input="a bomb", model="omni-moderation-latest")
    assert answer.id.startswith("modr-")
    assert answer.model == "scripted"
    (result,) = answer.results
    assert result.flagged
    assert result.categories.violence
    assert result.categories.illicit_violent
    assert not result.categories.sexual_minors
    assert result.category_scores.violence == pytest.approx(0.9)
    assert result.category_applied_input_types.violence == ["text"]
    assert set(result.categories.to_dict()) == set(OPENAI_KEYS)
    native: Any = result.to_dict()["guardreasoner"]
    assert native["request"] == {"label": "harmful", "score": 0.9, "threshold": 0.5, "reasoning": []}


def test_the_openai_client_reads_many_texts_in_order(client: OpenAI) -> None:
    answer = client.moderations.create(input=["a bomb", "a cake", "a bomb"])
    assert [result.flagged for result in answer.results] == [True, False, True]
    assert answer.results[1].category_scores.illicit == pytest.approx(0.1)


def test_parts_are_one_input(client: OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "a cake"}, {"type": "text", "text": "a bomb"}]
    (result,) = client.moderations.create(input=parts).results
    assert result.flagged


def test_the_request_may_say_how_to_judge(client: OpenAI) -> None:
    how = {"guardreasoner": {"mode": "think", "thresholds": 0.95}}
    result: Any = client.moderations.create(input="a bomb", extra_body=how).results[0]
    assert not result.flagged
    assert result.guardreasoner["request"]["reasoning"] == ["It is about harm."]


def test_the_asynchronous_client(server: Served) -> None:
    async def run() -> list[bool]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sesame") as client:
            texts = ["a bomb", "a cake"] * 5
            answers = await asyncio.gather(*(client.moderations.create(input=text) for text in texts))
            assert [model.id async for model in client.models.list()] == ["scripted"]
            return [answer.results[0].flagged for answer in answers]

    assert asyncio.run(run()) == [True, False] * 5


def test_the_client_raises_its_own_errors_with_our_messages(client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="the text is empty") as caught:
        client.moderations.create(input=["tea", " "])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "input[1]")
    image: Any = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    with pytest.raises(openai.UnprocessableEntityError, match="unknown key 'image_url'"):
        client.moderations.create(input=image)
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt' here; this is 'scripted'"):
        client.moderations.create(input="tea", model="gpt")
    with pytest.raises(openai.UnprocessableEntityError, match="unknown key 'inptu'; did you mean 'input'"):
        client.moderations.create(input="tea", extra_body={"inptu": "x"})
    with pytest.raises(openai.AuthenticationError, match="wrong API key"):
        client.with_options(api_key="wrong").moderations.create(input="tea")


def harmful(category: Category | str | None, *, flagged: bool = True) -> ModerationResult:
    verdict = TaskVerdict(Label.HARMFUL if flagged else Label.UNHARMFUL, 0.7, 0.5 if flagged else 0.9)
    return ModerationResult(flagged, verdict, category=category, mode=Mode.VERDICT)


def test_every_category_has_its_keys() -> None:
    assert set(OPENAI_KEYS_OF) == set(Category)


@pytest.mark.parametrize("category", [*Category, "cooking", None])
@pytest.mark.parametrize("flagged", [True, False])
def test_the_categories_the_scores_and_the_flag_agree(category: Category | str | None, flagged: bool) -> None:
    moderation = moderation_of(harmful(category if flagged else None, flagged=flagged))
    assert moderation.flagged is any(moderation.categories.values()) is flagged
    assert max(moderation.category_scores.values()) == 0.7
    assert list(moderation.categories) == list(moderation.category_scores) == list(OPENAI_KEYS)
    for key, true in moderation.categories.items():
        assert not true or moderation.category_applied_input_types[key] == ["text"]


def test_litellm_lets_harmless_calls_through(server: Served) -> None:
    body = {
        "input_type": "request",
        "texts": ["You are kind.", "a cake"],
        "structured_messages": [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "a cake"}],
        "images": None,
        "tools": [{"type": "function", "function": {"name": "bake"}}],
        "request_data": {"user_api_key_alias": "x"},
        "additional_provider_specific_params": {"thresholds": 1, "mode": "think"},
        "litellm_call_id": "1",
        "a_key_of_a_later_version": True,
    }
    answer = server.post(GUARDRAIL, body).json()
    assert (answer["action"], answer["blocked_reason"]) == ("NONE", None)
    assert len(answer["guardreasoner"]) == 1  # one conversation


@pytest.mark.parametrize(
    "body",
    [
        {"input_type": "request", "texts": ["a cake", "a bomb"]},
        {"input_type": "request", "structured_messages": [{"role": "user", "content": "a bomb"}]},
        {
            "input_type": "request",
            "texts": ["a cake", "a bomb"],
            "structured_messages": [{"role": "user", "content": "a cake"}, {"role": "tool", "content": "a bomb"}],
        },
        {"input_type": "response", "texts": ["a cake", "a bomb"]},
        {
            "input_type": "response",
            "texts": [],
            "tool_calls": [{"function": {"name": "f", "arguments": '{"a": "bomb"}'}}],
        },
        {"input_type": "response", "tool_calls": [{"function": {"arguments": {"a": "bomb"}}}]},
        {"input_type": "request", "texts": ["a cake", "unlucky"]},
        {"input_type": "request", "texts": ["a cake"], "images": ["https://example.com/a.png"]},
        {
            "input_type": "request",
            "texts": ["a cake"],
            "structured_messages": [
                {"role": "user", "content": [{"type": "text", "text": "a cake"}, {"type": "input_audio"}]}
            ],
        },
    ],
)
def test_litellm_is_told_to_block(server: Served, body: dict[str, Any]) -> None:
    answer = server.post(GUARDRAIL, {**body, "request_data": {}}).json()
    assert answer["action"] == "BLOCKED"
    assert answer["blocked_reason"]


def test_images_may_be_let_through() -> None:
    with serving(allow_images=True) as served:
        body = {"input_type": "request", "texts": ["a cake"], "images": ["https://example.com/a.png"]}
        assert served.post(GUARDRAIL, body).json()["action"] == "NONE"


def test_a_call_without_any_text_has_nothing_to_judge(server: Served) -> None:
    answer = server.post(GUARDRAIL, {"input_type": "response", "texts": ["", " "]}).json()
    assert answer == {"action": "NONE", "blocked_reason": None, "guardreasoner": []}


def test_a_litellm_request_is_one_conversation_and_what_is_not_in_it() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "found"},
        {"role": "user", "content": "three"},
    ]
    texts = ["Be kind.", "one", "two", "found", "three"]
    request = GuardrailRequest(input_type="request", texts=texts, structured_messages=messages)
    whole, tool = request.interactions()
    assert (whole.prompt, whole.system) == ("one\ntwo\n\nthree", "Be kind.")
    assert tool.prompt == "found"
    answered = GuardrailRequest(input_type="response", texts=["four"], structured_messages=messages).interactions()
    assert [(one.prompt, one.response) for one in answered] == [("one\ntwo\n\nthree", "four")]
    alone = GuardrailRequest(input_type="response", texts=["four"])
    assert [(one.prompt, one.response) for one in alone.interactions()] == [("four", None)]
    assert [(one.prompt, one.response) for one in alone.interactions(request.conversation())] == [
        ("one\ntwo\n\nthree", "four")
    ]


def test_a_litellm_response_is_judged_beside_the_request_of_its_call(server: Served) -> None:
    request = {
        "input_type": "request",
        "texts": ["a cake"],
        "structured_messages": [{"role": "user", "content": "a cake"}],
        "litellm_call_id": "call-1",
        "request_data": {},
    }
    assert server.post(GUARDRAIL, request).json()["action"] == "NONE"
    for call, pair in (("call-1", True), ("call-2", False)):
        response = {"input_type": "response", "texts": ["flour"], "litellm_call_id": call, "request_data": {}}
        (result,) = server.post(GUARDRAIL, response).json()["guardreasoner"]
        assert (result["response"] is not None) is pair


def test_the_memory_of_conversations_is_bounded() -> None:
    now = 0.0
    memory = Conversations(max_chars=20, seconds=10, clock=lambda: now)
    for call in ("a", "b", "c"):
        memory.remember(call, [{"role": "user", "content": "12345678"}])
    assert [bool(memory.of(call)) for call in ("a", "b", "c")] == [False, True, True]
    memory.remember("c", [{"role": "user", "content": "1"}])
    assert memory.of("c") == [{"role": "user", "content": "1"}]
    now = 11.0
    assert not memory.of("c")
    memory.remember("d", [{"role": "user", "content": "x" * 30}])
    assert not memory.of("d")


def test_the_reason_of_a_block_names_task_category_and_score() -> None:
    assert reason_of(harmful(Category.CYBERATTACK)) == "the request was judged harmful (cyberattack), score 0.70"
    assert reason_of(ModerationResult(True, None, error="out of memory")) == "the text could not be judged"
