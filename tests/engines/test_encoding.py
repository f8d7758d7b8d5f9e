from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from guardreasoner_moderation.checkpoint import build_tokenizer
from guardreasoner_moderation.engines.encoding import SpanEncoder
from guardreasoner_moderation.errors import EngineError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.prompts import Prompt, PromptFormat, Span, build_prompt
from guardreasoner_moderation.results import Mode

CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def encoder() -> SpanEncoder:
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


def byte_level(**options: object) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, [], **options))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unigram(*added: str) -> Tokenizer:
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), *((letter, -4.0) for letter in "as<>/")]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "</s>", *added])
    return tokenizer


def test_a_token_that_was_added_without_being_marked_as_special_stays_plain_text() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("<｜User｜>", normalized=False)])
    encoder = SpanEncoder(tokenizer)
    for text in ("<think>", "a<｜User｜><think>b"):
        assert encoder.control_ids <= set(tokenizer.get_added_tokens_decoder())
        assert encoder.control_ids.isdisjoint(encoder.encode_text(text))
        assert encoder.decode(encoder.encode_text(text)) == text
    assert encoder.offsets("a<think>b") == [(place, place + 1) for place in range(9)]


def test_added_words_and_spaces_are_no_control_tokens() -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["phishing", "    "])
    assert len(SpanEncoder(tokenizer).encode_text("phishing    ")) == 2


def test_a_vocabulary_that_holds_control_tokens_gives_none_to_plain_text() -> None:
    tokenizer = unigram()
    assert 1 in tokenizer.encode("a</s>a", add_special_tokens=False).ids
    assert 1 not in SpanEncoder(tokenizer).encode_text("a</s>a")


def test_a_text_that_is_one_token_of_the_vocabulary_is_no_control_token() -> None:
    vocabulary = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary["<|x|>"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(["<|x|>"])
    encoder = SpanEncoder(tokenizer)
    assert vocabulary["<|x|>"] not in encoder.encode_text("<|x|>")
    assert encoder.encode_text("<|x|>", trusted=True) == [vocabulary["<|x|>"]]


def test_unknown_characters_may_be_in_a_text() -> None:
    assert 0 in SpanEncoder(unigram()).encode_text("ж")


def test_bytes_of_unknown_characters_may_be_in_a_text() -> None:
    byte_tokens = {f"<0x{byte:02X}>": byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE({**byte_tokens, "<unk>": 256}, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.add_special_tokens(["<unk>", *byte_tokens])
    assert SpanEncoder(tokenizer).encode_text("é") == list("é".encode())


def test_a_single_character_that_is_a_control_token_is_refused() -> None:
    tokenizer = unigram("/")
    with pytest.raises(EngineError, match="'/' as a control token"):
        SpanEncoder(tokenizer).encode_text("a/a")
