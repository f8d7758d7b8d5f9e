"""Writes an adapter of an embedded base, merged with it, in the formats of other programs.

    python -m training.export gguf embedded runs/guard.gguf --quantization q8_0
    python -m training.export ctranslate2 embedded runs/guard-ct2
    python -m training.export merged embedded runs/guard-hf

Each writes the ``moderation.json`` of the model too, so that ``Moderator.from_pretrained`` loads what was written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardreasoner_moderation import weights
from guardreasoner_moderation.checkpoint import Checkpoint, add_lora, read_gguf, read_json
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import SPEC_FILE, ModelSpec, find_folder, read_spec, spec_beside

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Model = Annotated[str, typer.Argument(help="Short name or folder of an adapter of an embedded base.")]
Folder = Annotated[Path, typer.Argument(help="Folder to write; it must not exist, or be empty.")]


class GgufType(str, Enum):
    """How the weight matrices of a GGUF file are kept: 16 or 8.5 bits a weight.

    Fewer are not offered: rounding to 4 bits changes more than the adapter does (9% of a matrix's norm in Q4_0, 2% on
    the base's own Q4_1 grid, against 1 to 2% of the embedded adapter), and so undoes it.
    """

    F16 = "f16"
    Q8_0 = "q8_0"


class Dtype(str, Enum):
    """Of a Hugging Face folder's weights."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@app.command()
def gguf(
    model: Model,
    file: Annotated[Path, typer.Argument(help="GGUF file to write; NAME.moderation.json is written beside it.")],
    quantization: Annotated[GgufType, typer.Option(help="Format of the weight matrices.")] = GgufType.Q8_0,
) -> None:
    """Write one file for llama.cpp and the programs that are built on it."""
    checkpoint, spec, base = merge(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(checkpoint, base, file, quantization)
    spec_beside(file).write_text(spec.to_json(), encoding="utf-8")
    typer.echo(f"written: {file}")


@app.command()
def ctranslate2(
    model: Model,
    folder: Folder,
    float32: Annotated[bool, typer.Option("--float32", help="Keep all bits, in place of int8.")] = False,
) -> None:
    """Write a folder for the default engine, which then needs neither base nor conversion."""
    from guardreasoner_moderation.engines.ctranslate2 import convert

    checkpoint, spec, _ = merge(model)
    _make(folder)
    convert(checkpoint, folder, quantization=None if float32 else "int8")
    (folder / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")
    typer.echo(f"written: {folder}")


@app.command()
def merged(
    model: Model,
    folder: Folder,
    dtype: Annotated[Dtype, typer.Option(help="Of the weights.")] = Dtype.FLOAT16,
) -> None:
    """Write a Hugging Face model folder, for transformers, vLLM, SGLang and their like."""
    checkpoint, spec, base = merge(model)
    _make(folder)
    write_hugging_face(checkpoint, base, folder, dtype)
    (folder / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")
    typer.echo(f"written: {folder}")


def merge(model: str, change: Callable[[Checkpoint], Checkpoint] | None = None) -> tuple[Checkpoint, ModelSpec, Path]:
    """The base's weights with the adapter added, how the merged model is asked, and the base's GGUF file.

    Args:
        model: short name or folder of the adapter.
        change: is made to the base before.

    Raises:
        InputError: the adapter belongs to a base of another kind.
    """
    adapter = find_folder(model)
    spec = read_spec(adapter / SPEC_FILE)
    if spec.base not in weights.BASES:
        raise InputError(
            f"{model} belongs to the base {spec.base!r}; exported are adapters of "
            f"{', '.join(weights.BASES)}. "
            "Merge others with peft (merge_and_unload), and convert the result with llama.cpp's own converter."
        )
    base = weights.base_file(str(spec.base))
    checkpoint = read_gguf(base)
    if change is not None:
        checkpoint = change(checkpoint)
    add_lora(checkpoint, adapter)
    return checkpoint, replace(spec, base=None), base


def write_gguf(checkpoint: Checkpoint, base: Path, file: Path, kind: GgufType) -> None:
    """Writes weights as a GGUF file, with all that the base's file says of architecture and tokenizer.

    Norms stay in float32.
    """
    from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType, get_tensor_name_map
    from gguf.constants import GGML_QUANT_VERSION
    from gguf.quants import quantize

    writer = GGUFWriter(file, "llama")
    written_anew = ("general.architecture", "general.name", "general.file_type", "general.quantization_version")
    for name, field in GGUFReader(base).fields.items():
        if not name.startswith("GGUF.") and name not in written_anew:
            writer.add_key_value(name, field.contents(), field.types[0], field.types[1] if field.types[1:] else None)
    writer.add_name(file.stem)
    writer.add_file_type(LlamaFileType["MOSTLY_" + kind.name])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    shape = checkpoint.shape
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, shape.layers)
    for name, array in checkpoint.tensors.items():
        stored = GGMLQuantizationType.F32 if array.ndim == 1 else GGMLQuantizationType[kind.name]
        rows = array
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            rows = permute(array, shape.heads if name.endswith("q_proj.weight") else shape.kv_heads)
        writer.add_tensor(str(names.get_name(name, (".weight",))), quantize(rows, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(array: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """(heads * size, in), rows in two halves -> rows in neighbour pairs, the order of llama.cpp's rotary embedding.

    Source: ``permute`` in llama.cpp's convert_hf_to_gguf.py; :mod:`guardreasoner_moderation.checkpoint` undoes it.
    """
    rows, columns = array.shape
    return array.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_hugging_face(checkpoint: Checkpoint, base: Path, folder: Path, dtype: Dtype) -> None:
    """Writes safetensors, configuration and tokenizer as transformers saves them."""
    import torch
    from gguf import GGUFReader
    from transformers import PreTrainedTokenizerFast

    from guardreasoner_moderation.engines.transformers import llama_from_checkpoint

    model = llama_from_checkpoint(checkpoint)
    model.to(getattr(torch, dtype.value)).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=checkpoint.tokenizer,
        bos_token=checkpoint.bos_token,
        eos_token=checkpoint.eos_token,
        pad_token=checkpoint.eos_token,
        model_max_length=checkpoint.shape.context,
    )
    template = GGUFReader(base).fields.get("tokenizer.chat_template")
    if template is not None:
        tokenizer.chat_template = template.contents()
    tokenizer.save_pretrained(folder)
    # transformers 5 writes names that version 4, which some servers still use, does not know.
    _change(folder / "config.json", rope_theta=checkpoint.shape.rope_theta)
    _change(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def _change(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**read_json(file), **values}, indent=2) + "\n", encoding="utf-8")


def _make(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder")
    folder.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    app()
