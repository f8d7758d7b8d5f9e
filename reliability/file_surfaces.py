"""Files as surfaces: batches, recipes, the cards' YAML, moderation.json, and folders of adapters."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from guardreasoner_moderation.batch import Columns, judge_file
from guardreasoner_moderation.batch.reading import read_rows
from guardreasoner_moderation.checkpoint import Checkpoint, LlamaShape, add_lora
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import load_model, read_spec, refuse_pickles
from model_cards.claims import CLAIMS, check_claims
from model_cards.configurations import CONFIGURATIONS, read_configurations
from reliability import hostile_values as hostile
from reliability.call_surfaces import guard_without_model, insist_on_verdict
from reliability.surface import ACCEPTED, VERDICT, Surface, Try, insist
from training.recipe import Recipe, read_strictly
from training.trl_recipe import DpoRecipe, SftRecipe

_RECIPES = Path(__file__).parents[1] / "training" / "recipes"
_COLUMNS = ("prompt", "response", "system", "messages", "id", "x", "prompt", "moderation", "", "\ufeffprompt")
_ODD_YAML = (
    "&a [*a]",
    "!!python/object/apply:os.system ['true']",
    "!!int ''",
    "!!float x",
    "!!bool maybe",
    "!!timestamp x",
    "!!binary '='",
    "2001-99-99",
    ".nan",
    ".inf",
    "1e400",
    "0x" + "f" * 300,
    "9" * 5000,
    "'",
    "? [a, b]\n: c",
    "<<: 7",
    "{a: 1, a: 2}",
    "- [" * 40,
    "{}",
    "[]",
    "null",
    "~",
    "-1",
    "0",
    "true",
    "text",
    "\x00",
    "\t",
    "@x",
    "%YAML 9.9",
    "--- a\n--- b",
    "[&x [z,z,z,z,z,z,z,z,z], &y [*x,*x,*x,*x,*x,*x,*x,*x,*x], &w [*y,*y,*y,*y,*y,*y,*y,*y,*y], "
    "&v [*w,*w,*w,*w,*w,*w,*w,*w,*w], &u [*v,*v,*v,*v,*v,*v,*v,*v,*v], [*u,*u,*u,*u,*u,*u,*u,*u,*u]]",
)


def _fresh(folder: Path) -> Callable[[], Path]:
    """Makes an empty folder each time, in the place of the one before."""
    numbers = count()

    def make() -> Path:
        number = next(numbers)
        shutil.rmtree(folder / str(number - 1), ignore_errors=True)
        place = folder / str(number)
        place.mkdir()
        return place

    return make


@contextmanager
def _batches(folder: Path) -> Iterator[Try]:
    fresh = _fresh(folder)
    guard = guard_without_model()

    def attempt(dice: Random) -> str:
        place = fresh()
        ending = dice.choice(("jsonl", "csv", "parquet", "jsonl.gz", "csv.gz"))
        source = place / f"in.{ending}"
        content = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[ending.removesuffix(".gz")](dice)
        source.write_bytes(hostile.packed(dice, content) if ending.endswith(".gz") else content)
        target = place / f"out.{dice.choice(('jsonl', 'csv', 'parquet', 'jsonl.gz'))}"
        options: dict[str, Any] = {"mode": "verdict", "window_size": dice.choice((1, 3, 1024))}
        if dice.random() < 0.1:
            options["columns"] = Columns(prompt=dice.choice(("promt", "id", "x", "\ud800")))
        if dice.random() < 0.1:
            odd = ("", " ", "\n", "id", "é", 7, None, "\ud800")
            options[dice.choice(("prefix", "mode", "window_size", "max_reasoning_tokens"))] = dice.choice(odd)
        summary = judge_file(source, target, guard, **options)
        rows = list(read_rows(target))
        insist(len(rows) == summary.rows, "rows were lost")
        insist(summary.unjudged <= summary.flagged <= summary.rows, "what could not be judged is not flagged")
        return VERDICT

    yield attempt


def _jsonl(dice: Random) -> bytes:
    lines = []
    for _ in range(dice.choice((0, 1, 3, 3, 10))):
        row: Any = {dice.choice(_COLUMNS): hostile.value(dice) for _ in range(dice.randint(0, 3))}
        if dice.random() < 0.7:
            row["prompt"] = "a bomb" if dice.random() < 0.5 else hostile.text(dice, huge=False)
        lines.append(hostile.json_text(dice, row if dice.random() < 0.9 else hostile.value(dice)))
    if dice.random() < 0.01:
        lines.append(json.dumps({"prompt": "word " * (hostile.HUGE // 5)}))
    written = dice.choice(("\n", "\r\n", "\n\n")).join(lines).encode("utf-8", "surrogatepass")
    return hostile.damaged(dice, written)


def _csv(dice: Random) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=dice.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)), delimiter=dice.choice(",,,;"))
    header = ["prompt", *(dice.choice(_COLUMNS) for _ in range(dice.randint(0, 3)))]
    writer.writerow(dict.fromkeys(header) if dice.random() < 0.8 else header)
    for _ in range(dice.choice((0, 1, 3, 10))):
        writer.writerow([hostile.text(dice, huge=False) for _ in range(len(header) + dice.choice((0, 0, 0, -1, 1)))])
    written = stream.getvalue()
    if dice.random() < 0.2:
        written = written.replace('"', "", 1)
    return hostile.damaged(dice, written.encode("utf-8", "surrogatepass"))


def _parquet(dice: Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = dice.choice((0, 1, 3, 10))
    texts = [dice.choice((None, "a bomb", "bread", "", "\0", "x" * 10_000)) for _ in range(rows)]
    columns: dict[str, Any] = {"prompt": pa.array(texts, pa.string())}
    makers: dict[str, Callable[[], Any]] = {
        "bytes": lambda: pa.array([b"\xff\xfe" for _ in range(rows)]),
        "broken": lambda: pa.array([b"\xff\xfe"] * rows, pa.binary()).view(pa.string()),
        "when": lambda: pa.array([dice.choice((0, 2**62, -(2**62))) for _ in range(rows)], pa.timestamp("ms")),
        "day": lambda: pa.array([datetime(2020, 1, 1)] * rows, pa.timestamp("ns")),
        "whole": lambda: pa.array([2**64 - 1] * rows, pa.uint64()),
        "number": lambda: pa.array([float("nan")] * rows),
        "nested": lambda: pa.array([[{"a": [1]}] for _ in range(rows)]),
        "words": lambda: pa.array(["a"] * rows).dictionary_encode(),
        "none": lambda: pa.nulls(rows),
    }
    for name in dice.sample(sorted(makers), dice.randint(0, 4)):
        columns[dice.choice((name, "response", "system"))] = makers[name]()
    if dice.random() < 0.2:
        columns["prompt"] = makers[dice.choice(sorted(makers))]()
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression=dice.choice(("snappy", "none", "gzip", "zstd")))
    return hostile.damaged(dice, sink.getvalue()) if dice.random() < 0.6 else sink.getvalue()


def _mutated_yaml(dice: Random, written: str) -> bytes:
    lines = written.splitlines()
    for _ in range(dice.choice((0, 1, 1, 2, 5))):
        place = dice.randrange(len(lines))
        key, colon, _ = lines[place].partition(":")
        kind = dice.random()
        if kind < 0.4 and colon:
            lines[place] = f"{key}: {dice.choice(_ODD_YAML)}"
        elif kind < 0.6 and colon:
            lines[place] = lines[place].replace(key.strip(" -"), hostile.misspelt(dice, [key.strip(" -") or "x"]), 1)
        elif kind < 0.7:
            lines.insert(place, lines[place])
        elif kind < 0.8:
            del lines[place]
        elif kind < 0.9:
            lines.insert(place, hostile.text(dice, huge=False)[:500])
        else:
            lines = [*lines[:place], dice.choice(_ODD_YAML)]
        lines = lines or ["base: x"]
    written = "\n".join(lines)
    if dice.random() < 0.01:
        written += "\n# " + "x" * hostile.HUGE
    content = written.encode("utf-8", "surrogatepass")
    return hostile.damaged(dice, content) if dice.random() < 0.3 else content


def _kind(file: Path) -> type[Any]:
    """Which trainer's recipe it is."""
    for kind in (Recipe, SftRecipe):
        with suppress(InputError):
            read_strictly(file, kind)
            return kind
    return DpoRecipe


@contextmanager
def _recipes(folder: Path) -> Iterator[Try]:
    shipped = [(file.read_text(encoding="utf-8"), _kind(file)) for file in sorted(_RECIPES.glob("*.yaml"))]
    file = folder / "recipe.yaml"

    def attempt(dice: Random) -> str:
        written, kind = dice.choice(shipped)
        file.write_bytes(_mutated_yaml(dice, written))
        read_strictly(file, kind)
        return ACCEPTED

    yield attempt


@contextmanager
def _cards(folder: Path) -> Iterator[Try]:
    file = folder / "page.yaml"
    claims, configurations = (path.read_text(encoding="utf-8") for path in (CLAIMS, CONFIGURATIONS))

    def attempt(dice: Random) -> str:
        if dice.random() < 0.5:
            file.write_bytes(_mutated_yaml(dice, claims))
            check_claims(file, folder)
        else:
            file.write_bytes(_mutated_yaml(dice, configurations))
            read_configurations(file)
        return ACCEPTED

    yield attempt


_SPEC: dict[str, Any] = {
    "prompt_format": "compact",
    "chat": False,
    "policy": False,
    "categories": ["other"],
    "base": "smollm2-135m",
    "base_sha256": "0" * 64,
    "calibration": {"verdict": {"request": {"scale": 0.5, "shift": 0.1, "first_scale": 0.0}}},
    "thresholds": {"request": 0.5},
    "window_tokens": 300,
    "passage_tokens": 100,
    "reasoning_tokens": 50,
    "auto_bounds": [0.1, 0.9],
}


def _mutated(dice: Random, content: Any) -> Any:
    """A JSON value with some of its parts replaced, left out or misspelt."""
    if isinstance(content, dict) and dice.random() < 0.8:
        kept = {key: one for key, one in content.items() if dice.random() < 0.9}
        return {
            hostile.misspelt(dice, [key]) if dice.random() < 0.03 else key: _mutated(dice, one)
            for key, one in kept.items()
        }
    return content if dice.random() < 0.95 else hostile.value(dice)


@contextmanager
def _specs(folder: Path) -> Iterator[Try]:
    file = folder / "moderation.json"

    def attempt(dice: Random) -> str:
        written = hostile.json_text(dice, _mutated(dice, _SPEC)).encode("utf-8", "surrogatepass")
        file.write_bytes(hostile.damaged(dice, written) if dice.random() < 0.3 else written)
        with guard_without_model(read_spec(file)) as guard:
            return insist_on_verdict(guard.classify("a bomb", mode="verdict"))

    yield attempt


def _tiny_checkpoint() -> Checkpoint:
    tensors = {
        f"model.layers.{layer}.{name}.weight": np.ones(shape, np.float32)
        for layer in range(2)
        for name, shape in (("self_attn.q_proj", (32, 32)), ("mlp.up_proj", (64, 32)))
    }
    shape = LlamaShape(2, 4, 2, 32, 64, 10, 2048, 1e4, 1e-5)
    tokenizer: Any = None
    return Checkpoint(shape, tensors, [], tokenizer, "", "")


@contextmanager
def _adapters(folder: Path) -> Iterator[Try]:
    from safetensors.numpy import save

    fresh = _fresh(folder)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "bias": "none", "use_dora": False}

    def tensors(dice: Random) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(dice.choice((0, 1, 1, 2))):
            layer = dice.choice((0, 1) * 5 + (7,))
            module = dice.choice(("mlp.up_proj", "self_attn.q_proj") * 5 + ("mlp.side",))
            name = f"base_model.model.model.layers.{layer}.{module}"
            out, rank = (32 if "q_proj" in name else 64), dice.choice((2,) * 12 + (3, 0))
            found[f"{name}.lora_A.weight"] = np.ones(
                (rank, dice.choice((32,) * 9 + (16,))), dice.choice(("f4", "f2", "i8"))
            )
            found[f"{name}.lora_B.weight"] = np.full((out, rank), dice.choice((1.0,) * 8 + (np.nan, np.inf)), "f4")
        if dice.random() < 0.1:
            found[dice.choice(("base_model.model.lm_head.weight", "x", "base_model.model.x.lora_A.weight"))] = np.ones(
                3
            )
        return found

    def attempt(dice: Random) -> str:
        place = fresh()
        written = hostile.json_text(dice, _mutated(dice, config)) if dice.random() < 0.5 else json.dumps(config)
        (place / "adapter_config.json").write_bytes(written.encode("utf-8", "surrogatepass"))
        weights = save(tensors(dice))
        name = dice.choice(
            ("adapter_model.safetensors",) * 8 + ("adapter_model.bin", "adapter_model.pt", "engine.json")
        )
        (place / name).write_bytes(hostile.damaged(dice, weights) if dice.random() < 0.3 else weights)
        if name == "engine.json":
            (place / name).write_text(hostile.json_text(dice, {"tokens": ["a"], "eos_token": "a", "context_tokens": 5}))
            (place / "tokenizer.json").write_bytes(weights)
            load_model(place)
            return ACCEPTED
        refuse_pickles(place)
        checkpoint = _tiny_checkpoint()
        add_lora(checkpoint, place)
        insist(all(np.isfinite(array).all() for array in checkpoint.tensors.values()), "weights that are no numbers")
        return ACCEPTED

    yield attempt


FILES = (
    Surface("batch files: JSONL, CSV, Parquet, gzip", _batches, 2_000, seconds=60),
    Surface("training recipes", _recipes, 3_000),
    Surface("the cards' YAML files", _cards, 1_500),
    Surface("moderation.json", _specs, 2_500),
    Surface("folders of adapters and converted models", _adapters, 1_500),
)
