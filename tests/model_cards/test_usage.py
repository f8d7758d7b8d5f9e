from __future__ import annotations

import io
import json
import re
import shutil
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
from example_cards import EMBEDDED, make_run

from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.parsing import parse_output
from guardreasoner_moderation.prompts import PromptFormat, build_prompt
from guardreasoner_moderation.results import Mode
from model_cards.record import read_record
from model_cards.usage import describe_usage

COMPACT = ModelSpec(prompt_format=PromptFormat.COMPACT, categories=("fraud_illegal",))
CHAT = ModelSpec(prompt_format=PromptFormat.GUARDREASONER, chat=True)
RAW = ModelSpec(prompt_format=PromptFormat.GUARDREASONER)


@pytest.mark.parametrize("spec", [COMPACT, CHAT, RAW], ids=["compact", "chat", "raw"])
def test_the_plain_snippet_runs_and_asks_as_the_package_does(
    spec: ModelSpec, tiny_base: Path, tiny_adapter: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_adapter, run / "adapter")
    spec = replace(spec, base=str(tiny_base), reasoning_tokens=3)
    (run / "adapter" / "moderation.json").write_text(spec.to_json(), encoding="utf-8")
    snippet = describe_usage(read_record(run), str(run / "adapter")).transformers

    names: dict[str, object] = {}
    with redirect_stdout(io.StringIO()):
        exec(compile(snippet, "card", "exec"), names)
    tokenizer = names["tokenizer"]
    template = lambda messages: tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)  # type: ignore[attr-defined] # noqa: E731
    prompt = build_prompt(
        Interaction("How do I pick a lock?"),
        spec.prompt_format,
        Mode.THINK,
        chat_template=template if spec.chat else None,
    )
    expected = tokenizer(prompt.text, add_special_tokens=prompt.add_bos)["input_ids"]  # type: ignore[operator]
    assert names["ids"]["input_ids"][0].tolist() == expected  # type: ignore[index]
    assert names["written"].shape[1] == len(expected) + 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", [COMPACT, RAW], ids=["compact", "raw"])
def test_the_example_of_an_answer_is_read_by_the_parser(spec: ModelSpec, tmp_path: Path) -> None:
    usage = describe_usage(read_record(make_run(tmp_path / "run", spec=replace(spec, base="someone/base"))))
    labels = {task.value: label.value for task, label in parse_output(usage.answer).answers.items()}
    assert labels == {"request": "harmful", "completion": "refusal", "response": "unharmful"}


def test_prompts_are_the_builders_own() -> None:
    usage = describe_usage(read_record(EMBEDDED))
    for mode in (Mode.VERDICT, Mode.THINK):
        prompt = build_prompt(Interaction("{prompt}", "{response}"), PromptFormat.COMPACT, mode)
        assert usage.prompts[mode] == prompt.text


def test_the_package_snippet_pins_the_release(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run"))
    assert 'from_pretrained("team/guard", revision="v1.0.0")' in describe_usage(record, "team/guard", "v1.0.0").package
    shipped = read_record(EMBEDDED)
    assert "guard = Moderator()  # this adapter comes with the package" in describe_usage(shipped).package
    assert 'from_pretrained("team/guard")  # or Moderator()' in describe_usage(shipped, "team/guard").package


@pytest.mark.parametrize(("rank", "limit"), [(16, 16), (20, 32), (1, 8)])
def test_vllm_is_given_a_rank_that_it_takes(tmp_path: Path, rank: int, limit: int) -> None:
    run = make_run(tmp_path / "run")
    file = run / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "r": rank}))
    assert re.search(rf"--max-lora-rank {limit}\b", describe_usage(read_record(run), "team/guard").vllm)
