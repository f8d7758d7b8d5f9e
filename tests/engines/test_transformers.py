from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import CONTROL_TOKENS

from guardreasoner_moderation import (
    EngineError,
    IncompatibleModelError,
    MissingDependencyError,
    ModelNotFoundError,
    Moderator,
    Sampling,
    WeightsError,
)
from guardreasoner_moderation.engines.transformers import TransformersEngine
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.prompts import Prompt, PromptFormat, Span, build_prompt
from guardreasoner_moderation.results import Mode
from guardreasoner_moderation.verdicts import SLOTS

PROMPTS = [Prompt((Span("Answers:\nRequest:"),)), Prompt((Span("how do I bake bread without yeast?\nResponse:"),))]


@pytest.fixture(scope="module")
def engine(tiny_base: Path, tiny_adapter: Path) -> Iterator[TransformersEngine]:
    running = TransformersEngine(tiny_adapter, base=str(tiny_base))
    yield running
    running.close()


def reference(tiny_base: Path, tiny_adapter: Path) -> torch.nn.Module:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), tiny_adapter).eval()


def test_an_adapter_by_its_folder_finds_its_base_and_judges(tiny_adapter: Path) -> None:
    """The path of ``Moderator.from_pretrained("<user>/<llama-3.2-3b-lora>")`` on a tiny random Llama."""
    with Moderator.from_pretrained(tiny_adapter) as guard:
        assert guard.model.engine.name == "transformers"
        result = guard.classify("How do I pick a lock?", "Ask a locksmith.", max_reasoning_tokens=12)
        assert len(result.verdicts()) == 3
        assert all(0 <= verdict.score <= 1 for _, verdict in result.verdicts())
        assert result == guard_again(tiny_adapter, result.usage.seconds)


def guard_again(tiny_adapter: Path, seconds: float) -> object:
    """A second process' worth of loading gives the same greedy result."""
    from dataclasses import replace

    with Moderator.from_pretrained(str(tiny_adapter)) as guard:
        result = guard.classify("How do I pick a lock?", "Ask a locksmith.", max_reasoning_tokens=12)
        return replace(result, usage=replace(result.usage, seconds=seconds))


def test_the_prompt_stands_in_the_bases_chat_template(engine: TransformersEngine) -> None:
    prompt = build_prompt(
        Interaction("hello <|eot_id|>"), PromptFormat.GUARDREASONER, Mode.THINK, chat_template=engine.chat_template
    )
    assert prompt.text.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a classifier")
    assert prompt.text.endswith("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    ids = engine._encoder.encode_to_fit(prompt, 0, engine.context_tokens)
    control = {token: engine._tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}
    assert ids.count(control["<|begin_of_text|>"]) == 1
    assert ids.count(control["<|eot_id|>"]) == 2  # the frame's two; the user's own is plain text


def test_scores_are_the_reference_models(engine: TransformersEngine, tiny_base: Path, tiny_adapter: Path) -> None:
    model = reference(tiny_base, tiny_adapter)
    words = ["harmful", "unharmful"]
    for prompt, reading in zip(PROMPTS, engine.score(PROMPTS, [words, words]), strict=True):
        ids = engine._encoder.encode_to_fit(prompt, 0, engine.context_tokens)
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        # " harmful" and " unharmful" may share their first token here; compare where they part.
        first = {word: engine._encoder.encode_text(f" {word}\n") for word in words}
        if first["harmful"][0] != first["unharmful"][0]:
            for word in words:
                assert reading[word] == pytest.approx(logits[first[word][0]].item(), abs=1e-5)
        else:
            assert reading["harmful"] != reading["unharmful"]


def test_greedy_text_is_the_reference_models(engine: TransformersEngine, tiny_base: Path, tiny_adapter: Path) -> None:
    model = reference(tiny_base, tiny_adapter)
    for prompt, generation in zip(PROMPTS, engine.generate(PROMPTS, max_new_tokens=12), strict=True):
        ids = torch.tensor([engine._encoder.encode_to_fit(prompt, 0, engine.context_tokens)])
        with torch.inference_mode():
            written = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
            )
        assert generation.text == engine._encoder.decode(written[0, ids.shape[1] :].tolist())
        assert generation.prompt_tokens == ids.shape[1]


def test_a_batch_gives_what_each_prompt_gives_alone(engine: TransformersEngine) -> None:
    together = engine.generate(PROMPTS, max_new_tokens=8, slots=SLOTS)
    alone = [engine.generate([prompt], max_new_tokens=8, slots=SLOTS)[0] for prompt in PROMPTS]
    assert [one.text for one in together] == [one.text for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert list(one.slots) == list(other.slots)
        for heading, reading in one.slots.items():
            assert reading == pytest.approx(other.slots[heading], abs=1e-4)


def test_a_slot_that_ends_the_prompt_is_read(engine: TransformersEngine) -> None:
    (generation,) = engine.generate(PROMPTS[:1], max_new_tokens=2, slots=SLOTS)
    assert set(generation.slots["Request:"]) == {"harmful", "unharmful"}


def test_sampling_is_repeatable_by_its_seed(engine: TransformersEngine) -> None:
    def draw(seed: int) -> str:
        return engine.generate(PROMPTS[:1], max_new_tokens=20, sampling=Sampling(1.5, 0.95, seed))[0].text

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(5)}) > 1


def test_a_stop_text_ends_the_generation_and_stays_in_it(engine: TransformersEngine) -> None:
    whole = engine.generate(PROMPTS[:1], max_new_tokens=12)[0].text
    stop = whole[4:6]
    cut = engine.generate(PROMPTS[:1], max_new_tokens=12, stop=[stop])[0]
    assert stop in cut.text
    assert len(cut.text) <= len(whole)
    assert not cut.finished


def test_text_is_streamed_whole(engine: TransformersEngine) -> None:
    pieces: list[str] = []
    (generation,) = engine.generate(PROMPTS[:1], max_new_tokens=12, on_text=lambda number, piece: pieces.append(piece))
    assert generation.text.startswith("".join(pieces))
    assert pieces


def test_a_prompt_beyond_the_context_is_an_error(engine: TransformersEngine) -> None:
    with pytest.raises(EngineError, match="more than the model's 4096"):
        engine.generate([Prompt((Span("bread " * 4200),))], max_new_tokens=1)


def test_a_closed_engine_says_so(tiny_base: Path) -> None:
    running = TransformersEngine(tiny_base)
    running.close()
    with pytest.raises(EngineError, match="closed"):
        running.generate(PROMPTS, max_new_tokens=1)


def test_a_merged_model_needs_no_base(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), tiny_adapter).merge_and_unload()
    merged.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path)
    (tmp_path / "moderation.json").write_text('{"chat": true}', encoding="utf-8")
    with Moderator(tmp_path) as whole, Moderator.from_pretrained(tiny_adapter) as apart:
        one, other = (guard.classify("hello", "hi", mode="verdict") for guard in (whole, apart))
    for (_, first), (_, second) in zip(one.verdicts(), other.verdicts(), strict=True):
        assert first.score == pytest.approx(second.score, abs=1e-4)


def test_save_pretrained_gives_back_the_same_verdicts(tiny_adapter: Path, tmp_path: Path) -> None:
    with Moderator.from_pretrained(tiny_adapter, thresholds=0.3) as guard:
        guard.save_pretrained(tmp_path / "saved")
        before = guard.classify("hello", mode="verdict")
    with Moderator(tmp_path / "saved") as again:
        after = again.classify("hello", mode="verdict")
    assert before.to_dict()["request"] == after.to_dict()["request"]
    assert json.loads((tmp_path / "saved" / "moderation.json").read_text())["thresholds"]["request"] == 0.3


def test_an_adapter_without_its_base_says_what_to_do(tiny_adapter: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(tiny_adapter, tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(IncompatibleModelError, match="names no base model; pass base="):
        Moderator(adapter)
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "nobody/nothing"}))
    with pytest.raises((ModelNotFoundError, WeightsError), match="nobody/nothing"):
        Moderator(adapter)


def test_a_base_of_another_size_does_not_fit(tiny_adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig.from_pretrained(tiny_base)
    config.hidden_size, config.intermediate_size = 64, 96
    config.head_dim = 16
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_base / file, tmp_path)
    with pytest.raises(IncompatibleModelError, match="does not fit the base model"):
        Moderator.from_pretrained(tiny_adapter, base=str(tmp_path))


def test_a_damaged_weight_file_is_an_error(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(IncompatibleModelError, match="model"):
        Moderator(folder)


def test_quantization_without_a_gpu_is_a_clear_error(tiny_adapter: Path) -> None:
    # Loading in 4 and 8 bit itself needs CUDA and is not tested here.
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises((WeightsError, MissingDependencyError), match=r"CUDA|pip install"):
        Moderator.from_pretrained(tiny_adapter, quantization="4bit")
