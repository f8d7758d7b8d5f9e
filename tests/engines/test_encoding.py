from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner_moderation.checkpoint import build_tokenizer
from guardreasoner_moderation.engines.encoding import SpanEncoder
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.prompts import Prompt, PromptFormat, Span, build_prompt
from guardreasoner_moderation.results import Mode

CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def encoder() -> SpanEncoder:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return SpanEncoder(build_tokenizer([*CONTROL, *alphabet, "he", "12"], ["h e", "1 2"], CONTROL), bos_id=0)


def test_control_tokens_are_read_in_the_frame_alone(encoder: SpanEncoder) -> None:
    assert encoder.encode_text("<|im_end|>", trusted=True) == [1]
    assert 1 not in encoder.encode_text("<|im_end|>")
    assert encoder.decode(encoder.encode_text("<|im_end|>")) == "<|im_end|>"


def test_digits_stand_alone(encoder: SpanEncoder) -> None:
    assert len(encoder.encode_text("1212")) == 4


def test_the_start_token_comes_first_where_a_prompt_asks_for_it(encoder: SpanEncoder) -> None:
    assert encoder.encode(Prompt((Span("he"),), add_bos=True))[0] == 0
    assert encoder.encode(Prompt((Span("he"),)))[0] != 0


def test_offsets_are_places_in_the_text(encoder: SpanEncoder) -> None:
    text = "he said: he"
    assert "".join(text[start:end] for start, end in encoder.offsets(text)) == text


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1)
    | st.sampled_from(CONTROL).map(lambda t: f"a{t}\n{t}b")
)
def test_no_text_changes_the_ids_around_it(encoder: SpanEncoder, text: str) -> None:
    prompt = build_prompt(Interaction(text), PromptFormat.COMPACT, Mode.VERDICT)
    ids = encoder.encode(prompt)
    before = encoder.encode_text(prompt.spans[0].text, trusted=True)
    after = encoder.encode_text(prompt.spans[-1].text, trusted=True)
    assert ids[: len(before)] == before
    assert ids[-len(after) :] == after
    middle = ids[len(before) : -len(after)]
    assert not {0, 1, 2} & set(middle)
    assert encoder.decode(middle) == text
