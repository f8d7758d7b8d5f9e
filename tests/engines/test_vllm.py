"""What the engine asks vLLM for: a stand-in takes vLLM's place, with a tiny model of transformers behind it.

vLLM itself needs a GPU, and none of this shows that it runs there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from guardreasoner_moderation import EngineError, IncompatibleModelError, InputError, MissingDependencyError, Moderator
from guardreasoner_moderation.engines.base import Engine
from guardreasoner_moderation.engines.transformers import TransformersEngine
from guardreasoner_moderation.engines.vllm import VllmEngine
from guardreasoner_moderation.models import find_folder
from guardreasoner_moderation.prompts import Prompt, Span
from guardreasoner_moderation.verdicts import SLOTS

PROMPTS = [Prompt((Span("Answers:\nRequest:"),)), Prompt((Span("how do I bake bread without yeast?\nResponse:"),))]
LABELS = ["harmful", "unharmful"]


class LLM:
    """Takes the arguments of vLLM 0.33 that the engine uses, and no others."""

    made: ClassVar[list[LLM]] = []

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "auto",
        quantization: str | None = None,
        enable_prefix_caching: bool | None = None,
        enable_lora: bool = False,
        max_lora_rank: int = 16,
        max_model_len: int = 512,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.options = dict(vars() | {"self": None})
        self.model = AutoModelForCausalLM.from_pretrained(model)
        self.adapter: str | None = None
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model_config = SimpleNamespace(max_model_len=max_model_len)
        self.calls: list[tuple[list[dict[str, list[int]]], list[SamplingParams], Any]] = []
        LLM.made.append(self)

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def generate(
        self,
        prompts: list[dict[str, list[int]]],
        sampling_params: list[SamplingParams],
        *,
        lora_request: Any,
        use_tqdm: bool,
    ) -> list[Any]:
        assert not use_tqdm
        self.calls.append((prompts, sampling_params, lora_request))
        if lora_request is not None and self.adapter is None:
            from peft import PeftModel

            self.adapter = lora_request.lora_path
            self.model = PeftModel.from_pretrained(self.model, self.adapter)
        assert self.adapter == (lora_request and lora_request.lora_path)  # vLLM changes adapters; this one cannot
        return [
            SimpleNamespace(outputs=[self._write(self.model, prompt["prompt_token_ids"], how)])
            for prompt, how in zip(prompts, sampling_params, strict=True)
        ]

    def _write(self, model: Any, ids: list[int], how: SamplingParams) -> Any:
        import torch

        written: list[int] = []
        rows: list[dict[int, Any]] = []
        for _ in range(how.max_tokens):
            with torch.inference_mode():
                row = model(torch.tensor([[*ids, *written]])).logits[0, -1].log_softmax(-1)
            token = int(row.argmax())
            asked = [*(how.logprob_token_ids or ()), token]
            rows.append({one: SimpleNamespace(logprob=float(row[one])) for one in asked})
            written.append(token)
        text = self.tokenizer.decode(written, skip_special_tokens=True)
        logprobs = rows if how.logprob_token_ids else None
        return SimpleNamespace(
            text=text, token_ids=tuple(written), logprobs=logprobs, finish_reason="length", stop_reason=None
        )


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int = 16
    stop: list[str] | None = None
    include_stop_str_in_output: bool = False
    logprob_token_ids: list[int] | None = None


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    module.LLM, module.SamplingParams, request.LoRARequest = LLM, SamplingParams, LoRARequest  # type: ignore[attr-defined]
    for one in (module, lora, request):
        monkeypatch.setitem(sys.modules, one.__name__, one)
    LLM.made.clear()
    yield
    LLM.made.clear()


def test_it_keeps_the_protocol(tiny_base: Path) -> None:
    assert isinstance(VllmEngine(tiny_base), Engine)


def test_a_merged_model_is_loaded_with_prefix_caching(tiny_base: Path) -> None:
    VllmEngine(tiny_base, quantization="4bit", max_model_len=256)
    options = LLM.made[0].options
    assert options["model"] == str(tiny_base)
    assert options["enable_prefix_caching"] is True
    assert options["quantization"] == "bitsandbytes"
    assert options["max_model_len"] == 256
    assert not options["enable_lora"]


def test_an_adapter_is_a_lora_request_on_its_base(tiny_base: Path, tiny_adapter: Path) -> None:
    engine = VllmEngine(tiny_adapter, base=tiny_base)
    engine.generate(PROMPTS[:1], max_new_tokens=1)
    assert LLM.made[0].options["model"] == str(tiny_base)
    assert LLM.made[0].options["max_lora_rank"] == 8  # the least that holds the adapter's rank 4
    assert LLM.made[0].calls[0][2] == LoRARequest("guard", 1, str(tiny_adapter))


def test_texts_and_readings_are_those_of_the_transformers_engine(tiny_base: Path, tiny_adapter: Path) -> None:
    ours, theirs = VllmEngine(tiny_adapter, base=tiny_base), TransformersEngine(tiny_adapter, base=tiny_base)
    for one, other in zip(
        ours.generate(PROMPTS, max_new_tokens=6, slots=SLOTS),
        theirs.generate(PROMPTS, max_new_tokens=6, slots=SLOTS),
        strict=True,
    ):
        assert (one.text, one.prompt_tokens) == (other.text, other.prompt_tokens)
        assert {heading: pytest.approx(reading, abs=1e-3) for heading, reading in one.slots.items()} == other.slots
    words = [LABELS, ["privacy", "privacy_org", "other"]]
    for mine, reference in zip(ours.score(PROMPTS, words), theirs.score(PROMPTS, words), strict=True):
        assert mine == pytest.approx(reference, abs=1e-3)
    theirs.close()


def test_one_call_takes_all_prompts_as_token_ids(tiny_base: Path) -> None:
    engine = VllmEngine(tiny_base)
    engine.generate(PROMPTS, max_new_tokens=3, slots=SLOTS, stop=["x"])
    ((prompts, params, lora),) = LLM.made[0].calls
    assert [prompt["prompt_token_ids"] for prompt in prompts] == [engine._encoder.encode(one) for one in PROMPTS]
    assert (params[0].temperature, params[0].max_tokens, params[0].stop) == (0.0, 3, ["x"])
    assert params[0].include_stop_str_in_output
    assert lora is None


def test_the_text_is_told_at_the_end(tiny_base: Path) -> None:
    heard: list[tuple[int, str]] = []
    generations = VllmEngine(tiny_base).generate(
        PROMPTS, max_new_tokens=2, on_text=lambda number, text: heard.append((number, text))
    )
    assert heard == [(number, one.text) for number, one in enumerate(generations)]


def test_a_prompt_beyond_the_context_is_an_error(tiny_base: Path) -> None:
    with pytest.raises(EngineError, match="more than the model's 512"):
        VllmEngine(tiny_base).generate([Prompt((Span("bread " * 600),))], max_new_tokens=1)


def test_what_vllm_raises_is_an_engine_error(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("out of memory")

    engine = VllmEngine(tiny_base)
    monkeypatch.setattr(LLM, "generate", fail)
    with pytest.raises(EngineError, match="out of memory"):
        engine.score(PROMPTS, [LABELS, LABELS])
    monkeypatch.setattr(LLM, "__init__", fail)
    with pytest.raises(IncompatibleModelError, match="out of memory"):
        VllmEngine(tiny_base)


def test_a_closed_engine_says_so(tiny_base: Path) -> None:
    engine = VllmEngine(tiny_base)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate(PROMPTS, max_new_tokens=1)


def test_it_cannot_load_the_embedded_base() -> None:
    with pytest.raises(IncompatibleModelError, match=r"training/export\.py"):
        VllmEngine(find_folder("embedded"), base="smollm2-135m")


def test_a_rank_beyond_vllms_is_an_error(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "r": 1024}))
    with pytest.raises(InputError, match="up to rank 512, found 1024"):
        VllmEngine(tmp_path, base=tiny_base)


def test_without_vllm_the_extra_is_named(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingDependencyError, match=r"guardreasoner-moderation\[vllm\]"):
        VllmEngine(tiny_base)


def test_from_pretrained_takes_it_by_name(tiny_adapter: Path) -> None:
    with Moderator.from_pretrained(tiny_adapter, engine="vllm") as guard:
        assert guard.model.engine.name == "vllm"
        result = guard.classify("How do I pick a lock?", "Ask a locksmith.", mode="verdict")
    assert len(result.verdicts()) == 3
