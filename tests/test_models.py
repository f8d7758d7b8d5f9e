from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from guardreasoner_moderation import (
    Category,
    IncompatibleModelError,
    InputError,
    Mode,
    ModelError,
    ModelNotFoundError,
    Task,
    UnsafeModelError,
    models,
)
from guardreasoner_moderation.models import (
    ModelSpec,
    describe,
    find_folder,
    load_model,
    read_spec,
    refuse_pickles,
    weights_sha256,
)
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.verdicts import Calibration

SPEC = {
    "prompt_format": "compact",
    "categories": ["fraud_illegal", "other"],
    "base": "smollm2-135m",
    "calibration": {"think": {"request": {"scale": 0.5, "shift": 0.1}}},
    "thresholds": {"response": 0.4},
    "window_tokens": 300,
    "auto_bounds": [0.1, 0.9],
}


def write_spec(folder: Path, **changes: Any) -> Path:
    file = folder / "moderation.json"
    file.write_text(json.dumps({**SPEC, **changes}), encoding="utf-8")
    return file


def test_a_spec_is_read_with_defaults_for_what_it_leaves_out(tmp_path: Path) -> None:
    spec = read_spec(write_spec(tmp_path))
    assert spec.prompt_format is PromptFormat.COMPACT
    assert spec.categories == ("fraud_illegal", "other")
    assert spec.calibration_of(Mode.THINK, Task.REQUEST) == Calibration(0.5, 0.1)
    assert spec.calibration_of(Mode.VERDICT, Task.REQUEST) == Calibration()
    assert spec.thresholds == {Task.REQUEST: 0.5, Task.COMPLETION: 0.5, Task.RESPONSE: 0.4}
    assert spec.auto_bounds == (0.1, 0.9)
    assert not spec.policy


def test_a_spec_survives_being_written(tmp_path: Path) -> None:
    spec = read_spec(write_spec(tmp_path))
    (tmp_path / "again.json").write_text(spec.to_json(), encoding="utf-8")
    assert read_spec(tmp_path / "again.json") == spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"promt_format": "compact"}, "did you mean 'prompt_format'"),
        ({"prompt_format": "compct"}, "unknown prompt_format 'compct'; did you mean 'compact'"),
        ({"prompt_format": ["compact"]}, "unknown prompt_format"),
        ({"chat": "yes"}, "chat must be of type bool"),
        ({"window_tokens": "many"}, "window_tokens must be a whole number of at least 1, found 'many'"),
        ({"window_tokens": 10**12}, "window_tokens must be at most"),
        ({"window_tokens": 0}, "at least 1"),
        ({"passage_tokens": -1}, "passage_tokens must be a whole number of at least 0, found -1"),
        ({"thresholds": {"request": 2}}, "from 0 to 1"),
        ({"thresholds": {"requst": 0.5}}, "unknown task 'requst' in thresholds; did you mean 'request'"),
        ({"auto_bounds": [0.1]}, "auto_bounds must be two rising numbers"),
        ({"auto_bounds": [0.9, 0.1]}, "auto_bounds must be two rising numbers"),
        ({"categories": "other"}, "categories must be of type list, found 'other'"),
        ({"categories": [7]}, "each of the categories must be of type str"),
        ({"calibration": []}, "calibration must map names to values"),
        ({"calibration": {"think": []}}, "calibration of think must map names to values"),
        ({"calibration": {"thnk": {}}}, "unknown mode in calibration 'thnk'; did you mean 'think'"),
        ({"calibration": {"think": {"requst": {}}}}, "unknown task in calibration 'requst'; did you mean 'request'"),
        ({"calibration": {"think": {"request": {"scal": 1}}}}, "'scal'; did you mean 'scale'"),
        ({"calibration": {"think": {"request": {"scale": "steep"}}}}, "scale in calibration of think request must be"),
        ({"calibration": {"think": {"request": {"scale": float("nan")}}}}, "must be a finite number, found nan"),
        ({"calibration": {"think": {"request": {"scale": 10**400}}}}, "must be a finite number"),
        ({"base": 7}, "base must be of type str"),
        ({"base_sha256": "abc"}, "base_sha256 must be 64 hexadecimal digits"),
    ],
)
def test_a_wrong_spec_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IncompatibleModelError, match=message) as caught:
        read_spec(write_spec(tmp_path, **changes))
    assert "moderation.json" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"a": 1', "null", '{"chat": true, "chat": false}', "[" * 100_000],
)
def test_a_damaged_spec_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "moderation.json").write_text(content, encoding="utf-8")
    with pytest.raises(IncompatibleModelError, match=r"moderation\.json"):
        read_spec(tmp_path / "moderation.json")


def test_every_shipped_spec_is_read() -> None:
    for name, folder in models.SHORT_NAMES.items():
        spec = read_spec(find_folder(name) / "moderation.json")
        assert spec.base == folder
        assert set(spec.categories) == set(Category)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("embeded", "did you mean 'embedded'"),
        ("./no/such/folder", "not a folder"),
        ("no/such/folder", "not a folder"),
        ("", "there is no model ''"),
        ("x" * 5000, "there is no model 'xxx"),  # longer than the name of any file
        ("a\0b", "there is no model"),
        ("~nobody/model", "there is no model"),
    ],
)
def test_an_unknown_model_is_not_found(name: str, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        find_folder(name)


def test_a_gguf_file_has_the_spec_of_its_name_then_of_its_folder_then_upstreams(tmp_path: Path) -> None:
    file = tmp_path / "guard-8b.Q8_0.gguf"
    file.touch()
    assert describe(str(file))["prompt format"] == "guardreasoner"
    write_spec(tmp_path, base=None)
    assert describe(str(file))["window tokens"] == "300"
    write_spec(tmp_path, base=None, window_tokens=700).rename(tmp_path / "guard-8b.Q8_0.moderation.json")
    assert describe(str(file))["window tokens"] == "700"
    assert describe(str(file))["engine"] == "llamacpp"


def test_a_gguf_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no file .*guard\.gguf"):
        load_model(tmp_path / "guard.gguf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "transformers"}, "is a GGUF file, which the transformers engine cannot run"),
        ({"quantization": "4bit"}, "quantization cannot be used here: a GGUF file is a whole model"),
        ({"base": "smollm2-135m"}, "base cannot be used here"),
    ],
)
def test_a_gguf_file_is_taken_as_it_is(tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    (tmp_path / "guard.gguf").touch()
    with pytest.raises(InputError, match=message):
        load_model(tmp_path / "guard.gguf", **arguments)  # type: ignore[arg-type]


def test_the_llamacpp_engine_takes_no_folder(tiny_adapter: Path) -> None:
    with pytest.raises(InputError, match=r"no GGUF file.*training/export\.py"):
        load_model(tiny_adapter, engine="llamacpp")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is a file"):
        find_folder(write_spec(tmp_path))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeModelError, match=r"pytorch_model\.bin, a pickle"):
        refuse_pickles(tmp_path)


def test_a_pickled_adapter_beside_other_weights_is_refused(tmp_path: Path) -> None:
    """peft would look for the adapter's weights, and find the pickle."""
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeModelError, match=r"adapter_model\.bin, a pickle"):
        refuse_pickles(tmp_path)


def test_what_a_trainer_leaves_beside_safetensors_is_let_be(tmp_path: Path) -> None:
    (tmp_path / "training_args.bin").touch()
    (tmp_path / "model.safetensors").touch()
    refuse_pickles(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "model.pkl", "pytorch_model.bin"])
def test_a_file_that_may_be_a_pickle_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(UnsafeModelError, match="may be a pickle, which can run code"):
        find_folder(tmp_path / name)


def test_pickled_weights_of_a_base_are_refused(tiny_adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeModelError, match=r"pytorch_model\.bin, a pickle"):
        load_model(tiny_adapter, base=tmp_path)


def test_an_adapter_of_a_base_with_another_hash_is_refused(tiny_adapter: Path, tiny_base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_adapter, adapter)
    spec = {"chat": True, "base": str(tiny_base), "base_sha256": weights_sha256(tiny_base)}
    (adapter / "moderation.json").write_text(json.dumps(spec))
    load_model(adapter).engine.close()
    (adapter / "moderation.json").write_text(json.dumps({**spec, "base_sha256": "0" * 64}))
    with pytest.raises(IncompatibleModelError, match=f"sha256 {'0' * 64}; those of .* have {spec['base_sha256']}"):
        load_model(adapter)


@pytest.mark.usefixtures("tiny_weights")
def test_an_adapter_of_an_embedded_base_with_another_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").touch()
    write_spec(tmp_path, base="tiny", base_sha256="0" * 64)
    with pytest.raises(IncompatibleModelError, match=r"was trained on a base .* those of tiny have"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("base", "message"), [(["a"], "must be text, found"), ("x" * 5000, "(could not|cannot) be loaded")]
)
def test_an_adapter_whose_base_is_no_name_is_refused(
    tiny_adapter: Path, tmp_path: Path, base: Any, message: str
) -> None:
    adapter = Path(shutil.copytree(tiny_adapter, tmp_path / "adapter"))
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    with pytest.raises(ModelError, match=message):
        load_model(adapter)


@pytest.mark.parametrize("name", [None, 7, b"embedded", {"embedded"}])
def test_what_is_no_name_is_an_input_error(name: Any) -> None:
    with pytest.raises(InputError, match="a model is named by a text or a path, found"):
        load_model(name)


def test_an_unknown_type_of_weights_is_an_input_error() -> None:
    with pytest.raises(InputError, match="unknown dtype 'float61'; did you mean 'float16'"):
        load_model("embedded", dtype="float61")


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleModelError, match="holds no weights"):
        refuse_pickles(tmp_path)


def test_an_adapter_of_upstreams_kind_is_asked_in_its_chat_template(tiny_adapter: Path) -> None:
    facts = describe(str(tiny_adapter))
    assert facts["prompt format"] == "guardreasoner in the base's chat template"
    assert facts["engine"] == "transformers"


def test_describe_names_the_embedded_models_parts() -> None:
    facts = describe("embedded")
    assert facts["engine"] == "ctranslate2"
    assert len(facts["weights sha256"]) == len(facts["base sha256"]) == 64
    assert facts["ctranslate2"] != "not installed"


def test_an_unknown_engine_or_quantization_is_an_input_error() -> None:
    with pytest.raises(InputError, match="did you mean 'ctranslate2'"):
        load_model("embedded", engine="ctranslate")
    with pytest.raises(InputError, match="did you mean '4bit'"):
        load_model("embedded", quantization="4-bit")


def test_ctranslate2_takes_no_quantization() -> None:
    with pytest.raises(InputError, match="always int8"):
        load_model("embedded", engine="ctranslate2", quantization="4bit")


def test_ctranslate2_takes_no_other_base(tiny_adapter: Path) -> None:
    with pytest.raises(IncompatibleModelError, match="cannot convert"):
        load_model(tiny_adapter, engine="ctranslate2")


def test_defaults_are_upstreams_merged_checkpoints() -> None:
    assert ModelSpec().prompt_format is PromptFormat.GUARDREASONER
    assert not ModelSpec().chat
