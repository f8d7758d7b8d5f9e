"""Adapters that peft and transformers would load without a word, though they belong to another base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from guardreasoner_moderation import IncompatibleModelError, InputError
from guardreasoner_moderation.engines.transformers import TransformersEngine


@pytest.fixture
def adapter(tiny_adapter: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))


def change(adapter: Path, changed: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Changes its tensors."""
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    changed(tensors)
    save_file(tensors, file)


LAYER = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"


def test_an_adapter_of_a_base_with_more_layers_is_refused(adapter: Path, tiny_base: Path) -> None:
    def deeper(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({LAYER.format(7, half): tensors[LAYER.format(1, half)].clone() for half in "AB"})

    change(adapter, deeper)
    with pytest.raises(IncompatibleModelError, match=r"the base has no place for .*layers\.7"):
        TransformersEngine(adapter, base=tiny_base)


def test_an_adapter_that_lacks_some_of_its_weights_is_refused(adapter: Path, tiny_base: Path) -> None:
    change(adapter, lambda tensors: tensors.pop(LAYER.format(1, "B")))
    with pytest.raises(IncompatibleModelError, match=r"it lacks .*layers\.1\.self_attn\.q_proj\.lora_B"):
        TransformersEngine(adapter, base=tiny_base)


def test_an_adapter_of_a_base_with_other_sizes_is_refused(adapter: Path, tiny_base: Path) -> None:
    change(adapter, lambda tensors: tensors.update({LAYER.format(1, "A"): torch.ones(4, 16)}))
    with pytest.raises(IncompatibleModelError, match=r"does not fit the base model: (?s:.*)size mismatch"):
        TransformersEngine(adapter, base=tiny_base)


def test_an_adapter_whose_weights_are_no_numbers_is_refused(adapter: Path, tiny_base: Path) -> None:
    change(adapter, lambda tensors: tensors.update({LAYER.format(1, "B"): torch.full((32, 4), torch.nan)}))
    with pytest.raises(IncompatibleModelError, match="does not fit the base model: NaNs detected"):
        TransformersEngine(adapter, base=tiny_base)


def test_an_adapter_with_another_vocabulary_is_refused(adapter: Path, tiny_base: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(adapter)
    file = adapter / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    words = content["model"]["vocab"]
    first, second = list(words)[-2:]
    words[first], words[second] = words[second], words[first]
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(IncompatibleModelError, match=r"was trained with another vocabulary than that of .*the token"):
        TransformersEngine(adapter, base=tiny_base)


def test_an_adapter_with_the_tokenizer_of_its_base_is_loaded(adapter: Path, tiny_base: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(adapter)
    TransformersEngine(adapter, base=tiny_base).close()


@pytest.mark.parametrize("device", ["gpu", "cuda:7", "cpu:x"])
def test_a_device_that_is_not_there_is_an_input_error(tiny_base: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"there is no device '{device}' here"):
        TransformersEngine(tiny_base, device=device)
