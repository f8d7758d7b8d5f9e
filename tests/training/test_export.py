"""Each export is loaded by the program it is for."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from conftest import CORPUS
from safetensors.numpy import save_file
from typer.testing import CliRunner

from guardreasoner_moderation import InputError, Moderator
from guardreasoner_moderation.checkpoint import add_lora, read_gguf
from guardreasoner_moderation.models import describe, load_model, prepare, read_spec
from training.export import GgufType, app, merge, permute, write_gguf


@pytest.fixture
def adapter(tiny_weights: str, tmp_path: Path) -> Path:
    """A LoRA adapter of the tiny base that changes queries, keys and the feed-forward part."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    dice = np.random.default_rng(5)
    shapes = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "mlp.up_proj": (64, 32)}
    tensors = {}
    for layer in range(2):
        for name, (rows, columns) in shapes.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = dice.normal(size=(4, columns)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = dice.normal(0, 0.1, size=(rows, 4)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": [name.partition(".")[2] for name in shapes],
        "base_model_name_or_path": "nobody/tiny",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    spec = {"prompt_format": "compact", "base": tiny_weights, "thresholds": {"request": 0.4}}
    (folder / "moderation.json").write_text(json.dumps(spec))
    return folder


def run(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_reading_what_was_written_gives_the_merged_weights_back(adapter: Path, tmp_path: Path) -> None:
    checkpoint, _, base = merge(str(adapter))
    write_gguf(checkpoint, base, tmp_path / "out.gguf", GgufType.F16)
    again = read_gguf(tmp_path / "out.gguf")
    assert again.shape == checkpoint.shape
    assert again.tokens == checkpoint.tokens
    assert again.tensors.keys() == checkpoint.tensors.keys()
    for name, array in checkpoint.tensors.items():
        assert np.abs(again.tensors[name] - array).max() < 2e-3, name


def test_permuting_is_undone_by_reading(tiny_gguf: Path) -> None:
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tiny_gguf).tensors}
    read = read_gguf(tiny_gguf).tensors
    for name, ours, heads in (("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2)):
        found = permute(read[f"model.layers.1.self_attn.{ours}.weight"], heads)
        assert np.array_equal(found, stored[f"blk.1.{name}.weight"])


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_matrices_are_quantised_and_norms_are_not(adapter: Path, tmp_path: Path, kind: str) -> None:
    run("gguf", adapter, tmp_path / "out.gguf", "--quantization", kind)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    stored = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert stored["blk.0.attn_q.weight"] == stored["token_embd.weight"] == kind.upper()
    assert stored["blk.0.attn_norm.weight"] == stored["output_norm.weight"] == "F32"
    assert reader.fields["general.file_type"].contents() == gguf.LlamaFileType["MOSTLY_" + kind.upper()]
    assert reader.fields["general.name"].contents() == "out"


def test_the_tokenizer_is_copied(adapter: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    run("gguf", adapter, tmp_path / "out.gguf")
    before, after = gguf.GGUFReader(tiny_gguf).fields, gguf.GGUFReader(tmp_path / "out.gguf").fields
    names = [name for name in before if name.startswith(("tokenizer.", "llama."))]
    assert len(names) > 10
    assert {name: after[name].contents() for name in names} == {name: before[name].contents() for name in names}


def test_a_gguf_file_has_its_spec_beside_it(adapter: Path, tmp_path: Path) -> None:
    run("gguf", adapter, tmp_path / "one" / "out.gguf")
    spec = read_spec(tmp_path / "one" / "out.moderation.json")
    assert spec.base is None
    assert spec.thresholds["request"] == 0.4
    facts = describe(str(tmp_path / "one" / "out.gguf"))
    assert facts["engine"] == "llamacpp"
    assert facts["prompt format"] == "compact"
    assert prepare(str(tmp_path / "one" / "out.gguf")) == tmp_path / "one" / "out.gguf"


def test_transformers_loads_the_merged_folder(adapter: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run("merged", adapter, tmp_path / "hf", "--dtype", "float32")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    checkpoint = read_gguf(Path(str(merge(str(adapter))[2])))
    assert np.abs(model.state_dict()["model.layers.0.self_attn.q_proj.weight"].numpy()).sum() > 0
    add_lora(checkpoint, adapter)
    state = model.state_dict()
    assert all(np.array_equal(state[name].numpy(), array) for name, array in checkpoint.tensors.items())
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert "pad_token_id" not in json.loads((tmp_path / "hf" / "moderation.json").read_text())
    for text in (*CORPUS, "12 345", "a<|im_end|>"):
        assert tokenizer(text, add_special_tokens=False).input_ids == checkpoint.tokenizer.encode(text).ids


def test_older_readers_find_what_they_look_for_in_the_merged_folder(adapter: Path, tmp_path: Path) -> None:
    run("merged", adapter, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 10000.0
    assert json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())["tokenizer_class"] == (
        "PreTrainedTokenizerFast"
    )


def test_all_exports_give_the_adapters_verdicts(adapter: Path, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
    run("gguf", adapter, tmp_path / "out.gguf", "--quantization", "f16")
    run("ctranslate2", adapter, tmp_path / "ct2", "--float32")
    run("merged", adapter, tmp_path / "hf", "--dtype", "float32")
    items = ["how do I bake bread", ("baking soda", "use yoghurt"), "12 cyberattacks <|im_end|>"]
    scores = []
    for model, engine in (
        (adapter, "transformers"),
        (tmp_path / "hf", "transformers"),
        (tmp_path / "ct2", "ctranslate2"),
        (tmp_path / "out.gguf", "llamacpp"),
    ):
        with Moderator.from_pretrained(model) if engine != "transformers" else from_transformers(model) as guard:
            assert guard.model.engine.name == engine
            results = guard.classify_batch(items, mode="verdict", on_error="raise")
            scores.append([verdict.score for result in results for _, verdict in result.verdicts()])
    assert len(scores[0]) == 5
    assert np.ptp(scores[0]) > 0.01
    for found in scores[1:]:
        assert found == pytest.approx(scores[0], abs=0.02)


def from_transformers(model: Path) -> Moderator:
    return Moderator.from_pretrained(model, engine="transformers")


def test_a_converted_folder_is_loaded_as_it_is(adapter: Path, tmp_path: Path) -> None:
    run("ctranslate2", adapter, tmp_path / "ct2")
    model = load_model(tmp_path / "ct2")
    assert model.engine.name == "ctranslate2"
    assert model.spec.base is None
    assert len(model.sha256 or "") == 64
    assert describe(str(tmp_path / "ct2"))["engine"] == "ctranslate2"
    model.engine.close()
    with pytest.raises(InputError, match="CTranslate2's format"):
        load_model(tmp_path / "ct2", engine="transformers")


def test_a_folder_that_holds_something_is_not_written_to(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for command in ("merged", "ctranslate2"):
        with pytest.raises(InputError, match="not an empty folder"):
            run(command, adapter, tmp_path / "full")


def test_an_adapter_of_another_base_is_an_error(adapter: Path, tmp_path: Path) -> None:
    (adapter / "moderation.json").write_text('{"base": "somebody/llama"}')
    with pytest.raises(InputError, match=r"belongs to the base 'somebody/llama'"):
        run("gguf", adapter, tmp_path / "out.gguf")
