from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guardreasoner_moderation.checkpoint import read_gguf
from guardreasoner_moderation.engines.encoding import SpanEncoder
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.prompts import PromptFormat, build_prompt, opening
from guardreasoner_moderation.results import Category, Label, Mode, Task
from training.data import Example, LabelledInteraction, build_example, read_interactions, to_row, write_rows

ROW = {
    "id": "own-1",
    "source": "own",
    "license": "CC0-1.0",
    "split": "train",
    "prompt": "How do I open my neighbour's letters?",
    "response": "I would not do that.",
    "request": "harmful",
    "completion": "refusal",
    "response_harm": "unharmful",
    "category": "privacy_individual",
    "reasoning": {"request": ["Reading mail."], "completion": ["It declines."], "response": ["Nothing bad."]},
    "flag": None,
}


def write_lines(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def read_row(folder: Path, **changes: Any) -> LabelledInteraction:
    (item,) = read_interactions(write_lines(folder, {**ROW, **changes}))
    return item


@pytest.fixture(scope="module")
def encoder(tiny_gguf: Path) -> SpanEncoder:
    return SpanEncoder(read_gguf(tiny_gguf).tokenizer)


def build(item: LabelledInteraction, mode: Mode, encoder: SpanEncoder, **options: Any) -> Example:
    return build_example(item, mode, encoder.encode, 2, **options)


def learned(example: Example, encoder: SpanEncoder) -> str:
    return encoder.decode([token for token, weight in zip(example.ids, example.weights, strict=True) if weight])


def test_a_row_is_read(tmp_path: Path) -> None:
    item = read_row(tmp_path)
    assert item.labels == {
        Task.REQUEST: Label.HARMFUL,
        Task.COMPLETION: Label.REFUSAL,
        Task.RESPONSE: Label.UNHARMFUL,
    }
    assert item.category is Category.PRIVACY_INDIVIDUAL
    assert item.can_think
    assert not item.doubtful


def test_a_prompt_alone_has_one_label(tmp_path: Path) -> None:
    item = read_row(tmp_path, response=None, completion=None, response_harm=None, reasoning=None, flag="wrong label")
    assert item.labels == {Task.REQUEST: Label.HARMFUL}
    assert not item.can_think
    assert item.doubtful


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request": "bad"}, "'bad' is not a valid Label"),
        ({"request": "refusal"}, "expected harmful or unharmful"),
        ({"request": None}, "the key 'request' is missing"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"category": "gardening"}, "'gardening' is not a valid Category"),
    ],
)
def test_a_bad_row_names_file_and_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write_lines(tmp_path, ROW, {**ROW, **changes})
    with pytest.raises(InputError, match=rf"rows\.jsonl, line 2: .*{message}"):
        read_interactions(file)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no interactions"):
        read_interactions(write_lines(tmp_path))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_interactions(tmp_path / "nowhere.jsonl")


def test_an_example_is_the_engines_prompt_and_the_answer(tmp_path: Path, encoder: SpanEncoder) -> None:
    item = read_row(tmp_path)
    example = build(item, Mode.THINK, encoder)
    prompt = encoder.encode(build_prompt(item.interaction, PromptFormat.COMPACT, Mode.THINK))
    assert list(example.ids[: len(prompt)]) == prompt
    assert not any(example.weights[: len(prompt)])
    assert opening(PromptFormat.COMPACT, Mode.THINK) + learned(example, encoder) == (
        "# Task 1\nReading mail.\n# Task 2\nIt declines.\n# Task 3\nNothing bad.\n---\n"
        "Answers:\nRequest: harmful\nCategory: privacy_individual\nCompletion: refusal\nResponse: unharmful"
    )
    assert example.ids[-1] == 2
    assert example.weights[-1] == 1.0


def test_the_first_token_of_a_label_carries_its_weight(tmp_path: Path, encoder: SpanEncoder) -> None:
    example = build(read_row(tmp_path), Mode.VERDICT, encoder, label_weight=8.0)
    assert [(task, label) for _, task, label in example.labels] == list(read_row(tmp_path).labels.items())
    heavy = [position for position, weight in enumerate(example.weights) if weight == 8.0]
    assert heavy == [position for position, _, _ in example.labels]
    for position, _, label in example.labels:
        assert f" {label}".startswith(encoder.decode([example.ids[position]]))


def test_an_unknown_category_is_not_taught_to_be_left_out(tmp_path: Path, encoder: SpanEncoder) -> None:
    item = read_row(tmp_path, category=None)
    assert learned(build(item, Mode.VERDICT, encoder), encoder) == " harmful refusal\nResponse: unharmful"
    harmless = read_row(tmp_path, category=None, request="unharmful")
    assert learned(build(harmless, Mode.VERDICT, encoder), encoder) == (
        " unharmful\nCompletion: refusal\nResponse: unharmful"
    )


def test_answers_alone_under_a_think_prompt(tmp_path: Path, encoder: SpanEncoder) -> None:
    example = build(read_row(tmp_path), Mode.THINK, encoder, answer_mode=Mode.VERDICT)
    text = encoder._frame.decode(list(example.ids), skip_special_tokens=False)
    assert "/think" in text
    assert "assistant\nAnswers:\nRequest: harmful\n" in text


def test_a_labelled_response_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 1: a response is labelled, but there is no response"):
        read_row(tmp_path, response=None)


@pytest.mark.parametrize("changes", [{}, {"style": "short"}, {"reasoning": None, "category": None, "flag": "wrong"}])
def test_a_row_is_written_as_it_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    item = read_row(tmp_path, **changes)
    write_rows([to_row(item)], tmp_path / "again" / "rows.jsonl")
    assert read_interactions(tmp_path / "again" / "rows.jsonl") == [item]


def test_a_conversation_is_written_as_messages(tmp_path: Path) -> None:
    roles = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Letters?"), ("assistant", "No.")]
    messages = [{"role": role, "content": content} for role, content in roles]
    row = {key: value for key, value in ROW.items() if key not in ("prompt", "response")} | {"messages": messages}
    (item,) = read_interactions(write_lines(tmp_path, row))
    assert item.interaction.system == "Be kind."
    assert len(item.interaction.history) == 2
    assert to_row(item)["messages"] == messages


def test_a_file_that_could_not_be_written_whole_is_not_there(tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"id": "a"}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_rows(rows(), tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_a_guardreasoner_example_teaches_no_category(tmp_path: Path, encoder: SpanEncoder) -> None:
    example = build(read_row(tmp_path), Mode.THINK, encoder, prompt_format=PromptFormat.GUARDREASONER, label_weight=3.0)
    assert "Category" not in learned(example, encoder)
    assert learned(example, encoder).endswith("Answers: \nRequest: harmful\nCompletion: refusal\nResponse: unharmful")
    assert [example.weights[position] for position, _, _ in example.labels] == [3.0] * 3
    unknown = build(read_row(tmp_path, category=None), Mode.THINK, encoder, prompt_format=PromptFormat.GUARDREASONER)
    assert (
        unknown.ids == build(read_row(tmp_path), Mode.THINK, encoder, prompt_format=PromptFormat.GUARDREASONER).ids
    )  # and so no line after it is left out of the loss
    assert 0.0 not in unknown.weights[unknown.weights.index(1.0) :]


def test_a_guardreasoner_example_stands_in_the_chat_template(tmp_path: Path, encoder: SpanEncoder) -> None:
    def template(messages: list[dict[str, str]]) -> str:
        return "".join(f"<{one['role']}>{one['content']}" for one in messages) + "<assistant>"

    example = build(
        read_row(tmp_path), Mode.VERDICT, encoder, prompt_format=PromptFormat.GUARDREASONER, chat_template=template
    )
    text = encoder.decode(list(example.ids))
    assert text.startswith("<system>You are a classifier")
    assert "<assistant>Answers: \nRequest: harmful" in text
