from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from guardreasoner_moderation import IncompatibleModelError
from guardreasoner_moderation.checkpoint import Checkpoint, add_lora, read_gguf

UP_PROJ = "base_model.model.model.layers.1.mlp.up_proj"


@pytest.fixture
def checkpoint(tiny_gguf: Path) -> Checkpoint:
    return read_gguf(tiny_gguf)


def write_lora(folder: Path, name: str, shape: tuple[int, int], **config: Any) -> tuple[Any, Any]:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6, **config}))
    dice = np.random.default_rng(1)
    down = dice.normal(size=(2, shape[1])).astype(np.float32)
    up = dice.normal(size=(shape[0], 2)).astype(np.float32)
    prefix = f"base_model.model.model.layers.1.{name}"
    save_file({f"{prefix}.lora_A.weight": down, f"{prefix}.lora_B.weight": up}, folder / "adapter_model.safetensors")
    return down, up


def test_shape_and_control_tokens(checkpoint: Checkpoint) -> None:
    shape = checkpoint.shape
    assert (shape.layers, shape.heads, shape.kv_heads, shape.hidden, shape.feed_forward) == (2, 4, 2, 32, 64)
    assert (checkpoint.bos_token, checkpoint.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert checkpoint.tokenizer.encode("<|im_end|>").ids == [2]


def test_query_and_key_rows_are_put_in_hugging_faces_order(checkpoint: Checkpoint, tiny_gguf: Path) -> None:
    """Row 2i of a head in llama.cpp's order is row i in Hugging Face's, row 2i + 1 is row size / 2 + i."""
    raw = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tiny_gguf).tensors}
    for name, ours, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        stored = raw[f"blk.0.{name}.weight"].reshape(heads, 8, 32)
        found = checkpoint.tensors[f"model.layers.0.self_attn.{ours}.weight"].reshape(heads, 8, 32)
        for row in range(4):
            assert np.array_equal(found[:, row], stored[:, 2 * row])
            assert np.array_equal(found[:, 4 + row], stored[:, 2 * row + 1])
    assert np.array_equal(
        checkpoint.tensors["model.layers.1.self_attn.v_proj.weight"], raw["blk.1.attn_v.weight"].reshape(16, 32)
    )


def test_transformers_loads_every_tensor(checkpoint: Checkpoint) -> None:
    from guardreasoner_moderation.engines.transformers import llama_from_checkpoint

    state = llama_from_checkpoint(checkpoint).state_dict()
    assert set(state) == {*checkpoint.tensors, "lm_head.weight"}
    assert all(np.array_equal(state[name].numpy(), array) for name, array in checkpoint.tensors.items())


def test_lora_is_added_with_its_scale(checkpoint: Checkpoint, tmp_path: Path) -> None:
    down, up = write_lora(tmp_path / "adapter", "mlp.up_proj", (64, 32))
    name = "model.layers.1.mlp.up_proj.weight"
    before = checkpoint.tensors[name].copy()
    add_lora(checkpoint, tmp_path / "adapter")
    assert np.allclose(checkpoint.tensors[name], before + 3 * up @ down, atol=1e-5)


def test_rank_stabilised_lora_has_its_own_scale(checkpoint: Checkpoint, tmp_path: Path) -> None:
    down, up = write_lora(tmp_path / "adapter", "mlp.up_proj", (64, 32), use_rslora=True)
    name = "model.layers.1.mlp.up_proj.weight"
    before = checkpoint.tensors[name].copy()
    add_lora(checkpoint, tmp_path / "adapter")
    assert np.allclose(checkpoint.tensors[name], before + 6 / 2**0.5 * up @ down, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "config", "message"),
    [
        ("mlp.up_proj", (64, 16), {}, "trained for another base"),
        ("mlp.side_proj", (64, 32), {}, "which the base model does not have"),
        ("mlp.up_proj", (64, 32), {"use_dora": True}, "with use_dora"),
        ("mlp.up_proj", (64, 32), {"peft_type": "IA3"}, "of type 'IA3'"),
        ("mlp.up_proj", (64, 32), {"fan_in_fan_out": True}, "with fan_in_fan_out"),
        ("mlp.up_proj", (64, 32), {"r": 0}, "r must be a whole number of at least 1, found 0"),
        ("mlp.up_proj", (64, 32), {"r": "2"}, "r must be a whole number"),
        ("mlp.up_proj", (64, 32), {"lora_alpha": None}, "lora_alpha must be a finite number, found None"),
        ("mlp.up_proj", (64, 32), {"r": 3}, "has the ranks 2 and 2, its configuration says 3"),
    ],
)
def test_an_adapter_that_does_not_fit_is_an_error(
    checkpoint: Checkpoint, tmp_path: Path, name: str, shape: tuple[int, int], config: dict[str, Any], message: str
) -> None:
    write_lora(tmp_path / "adapter", name, shape, **config)
    with pytest.raises(IncompatibleModelError, match=message):
        add_lora(checkpoint, tmp_path / "adapter")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model.model.model.embed_tokens.weight": np.ones((8, 32))}, "which is no part of a plain LoRA"),
        ({"base_model.model.x.lora_A.weight": np.ones((2, 32))}, "one half of the change of x alone"),
        ({f"{UP_PROJ}.lora_B.weight": np.full((64, 2), np.nan)}, "is no matrix of numbers"),
        ({f"{UP_PROJ}.lora_B.weight": np.ones(64)}, "is no matrix of numbers"),
        (None, "holds no weights"),
    ],
)
def test_an_adapter_that_would_be_added_in_part_or_wrongly_is_an_error(
    checkpoint: Checkpoint, tmp_path: Path, changes: dict[str, Any] | None, message: str
) -> None:
    write_lora(tmp_path / "adapter", "mlp.up_proj", (64, 32))
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({} if changes is None else {**load_file(file), **changes}, file)
    with pytest.raises(IncompatibleModelError, match=message):
        add_lora(checkpoint, tmp_path / "adapter")


def test_a_damaged_adapter_is_an_error(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_lora(tmp_path / "adapter", "mlp.up_proj", (64, 32))
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"cut")
    with pytest.raises(IncompatibleModelError, match=r"adapter_model\.safetensors cannot be read"):
        add_lora(checkpoint, tmp_path / "adapter")


@pytest.mark.parametrize("keep", [0, 3, 500])
def test_a_damaged_gguf_file_is_an_error(tiny_gguf: Path, tmp_path: Path, keep: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:keep])
    with pytest.raises(IncompatibleModelError, match="not a readable GGUF file"):
        read_gguf(tmp_path / "cut.gguf")


def test_another_architecture_is_an_error(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(IncompatibleModelError, match="'mamba'"):
        read_gguf(tmp_path / "other.gguf")


def test_a_gguf_file_whose_vocabulary_is_not_that_of_its_embeddings_is_an_error(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = gguf.GGUFReader(tiny_gguf)
    shorter = reader.fields["tokenizer.ggml.tokens"].contents()[:-1]
    field = SimpleNamespace(contents=lambda: shorter)
    monkeypatch.setitem(reader.fields, "tokenizer.ggml.tokens", field)
    monkeypatch.setattr(gguf, "GGUFReader", lambda path: reader)
    with pytest.raises(IncompatibleModelError, match=r"embeddings and speaks of .* tokens: it is damaged"):
        read_gguf(tiny_gguf)
