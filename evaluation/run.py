"""Evaluates a guard on benchmarks.

    python -m evaluation.run --model embedded --mode verdict --data-dir DATA --benchmarks all --out runs/verdict
    python -m evaluation.run --benchmarks XSTest,ToxicChat --limit 300 --seed 0 --mode think --out runs/think
    python -m evaluation.run --file mine.csv --task request --columns prompt=text,label=verdict \
        --labels harmful=bad,unharmful=ok --tune-threshold fpr=0.05 --out runs/mine
    python -m evaluation.run --model zero-shot --data-dir DATA --out runs/zero-shot
    python -m evaluation.run --generations saved.jsonl --benchmarks XSTestResponseRefusal --out runs/saved

Run the same command again to go on after a stop or a kill: no item is judged twice. More benchmarks may be added to a
run; another model, mode or setting needs another folder. What is written, and where, is told in ``evaluation/runs.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from evaluation.benchmarks import BENCHMARKS, find, trained_on
from evaluation.generations import read_part
from evaluation.items import draw_sample
from evaluation.judging import judge, shown_progress, work
from evaluation.loading import Loaded, find_file, load
from evaluation.metrics import Outcomes
from evaluation.overlap import measure_overlap, read_training_prompts
from evaluation.runs import RunFolder, open_run, to_outcomes, write_json
from evaluation.summary import Part, render_table, summarise
from evaluation.thresholds import read_target, read_thresholds_file, told, tune, write_thresholds
from evaluation.user_files import user_benchmark
from evaluation.zero_shot import NAME as ZERO_SHOT
from evaluation.zero_shot import prepare_zero_shot
from guardreasoner_moderation.cache import read_sha256
from guardreasoner_moderation.errors import InputError, ModerationError, nearest
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import Mode, Task
from texts.similarity import SeenPrompts


def main(
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run in it is resumed.")],
    model: Annotated[str, typer.Option(help="Short name, folder, repository id, or zero-shot.")] = "embedded",
    benchmarks: Annotated[
        str, typer.Option(help="Names with commas between, or all that the data folder has.")
    ] = "all",
    mode: Annotated[str, typer.Option(help="think, verdict or auto.")] = "verdict",
    data_dir: Annotated[Path | None, typer.Option(help="Folder of benchmark files; others come from the Hub.")] = None,
    limit: Annotated[int | None, typer.Option(help="Judge a fixed sample of so many items of each.", min=2)] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    keep_text: Annotated[bool, typer.Option(help="Keep prompts and responses beside the predictions.")] = False,
    generations: Annotated[Path | None, typer.Option(help="Score saved outputs instead of running a model.")] = None,
    file: Annotated[Path | None, typer.Option(help="A labelled file of your own: JSONL, CSV or Parquet.")] = None,
    task: Annotated[str, typer.Option(help="Of --file: request, completion or response.")] = "request",
    columns: Annotated[str, typer.Option(help="Of --file, as in prompt=text,response=answer,label=y.")] = "",
    labels: Annotated[str, typer.Option(help="Of --file, as in harmful=1,unharmful=0.")] = "",
    training_data: Annotated[
        list[Path] | None, typer.Option(help="What the model was trained on; its overlap is computed.")
    ] = None,
    thresholds: Annotated[Path | None, typer.Option(help="JSON file of thresholds; default: the model's.")] = None,
    tune_threshold: Annotated[
        str | None, typer.Option(help="Choose thresholds: fpr=0.05, recall=0.9 or cost=5 (misses to false alarms).")
    ] = None,
    max_reasoning_tokens: Annotated[int | None, typer.Option(help="Budget of the reasoning.")] = None,
    engine: Annotated[str, typer.Option(help="auto, ctranslate2 or transformers.")] = "auto",
    base: Annotated[str | None, typer.Option(help="Base model of an adapter.")] = None,
    quantization: Annotated[str | None, typer.Option(help="4bit or 8bit.")] = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0.")] = None,
    batch_size: Annotated[int, typer.Option(help="Items that go to the engine together.", min=1)] = 32,
    chunk: Annotated[int | None, typer.Option(help="Items between two saves; default: by the mode.", min=1)] = None,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.", min=1)] = 1000,
) -> None:
    """Evaluate a guard on benchmarks."""
    console = Console()
    try:
        target = read_target(tune_threshold) if tune_threshold else None
        if generations is not None:
            score_generations(generations, benchmarks, out, keep_text=keep_text, resamples=resamples, console=console)
            return
        if mode not in set(Mode):
            raise InputError(f"unknown mode {mode!r}{nearest(mode, Mode)}")
        own = user_benchmark(file, task, columns, labels) if file else None
        names = [] if own else choose(benchmarks, data_dir, console)
        seen = read_training_prompts(training_data) if training_data else None
        settings: dict[str, Any] = {"thresholds": read_thresholds_file(thresholds) if thresholds else None}
        if max_reasoning_tokens is not None:
            settings["max_reasoning_tokens"] = max_reasoning_tokens
        asked = {"file": file and file.name, "base": base and Path(base).name, "quantization": quantization}
        guard = Moderator.from_pretrained(
            prepare_zero_shot() if model == ZERO_SHOT else model,
            base=base,
            quantization=quantization,  # type: ignore[arg-type]
            engine=engine,
            device=device,
            batch_size=batch_size,
        )
        identity = identify(guard, mode, limit, seed, settings) | {key: name for key, name in asked.items() if name}
        with guard, open_run(out, identity) as folder:
            loaded = [own] if own else load_all([*finished(folder, names), *names], data_dir, folder, console)
            parts = evaluate(
                guard,
                loaded,
                folder,
                mode=Mode(mode),
                limit=limit,
                seed=seed,
                keep_text=keep_text,
                chunk=chunk,
                seen=seen,
                resamples=resamples,
                settings=settings,
                console=console,
            )
        if target is not None:
            tuned = {
                which: tune(pooled(parts, which), target, resamples=resamples)
                for which in dict.fromkeys(part.loaded.benchmark.task for part in parts)
            }
            write_thresholds(out / "thresholds.json", tuned, target)
            for which, result in tuned.items():
                console.print(told(which, str(tune_threshold), result), highlight=False, markup=False)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    except KeyboardInterrupt as exc:
        typer.echo("stopped; run the same command to go on", err=True)
        raise typer.Exit(130) from exc


def evaluate(
    guard: Moderator,
    loaded: Sequence[Loaded],
    folder: RunFolder,
    *,
    mode: Mode,
    limit: int | None = None,
    seed: int = 0,
    keep_text: bool = False,
    chunk: int | None = None,
    seen: SeenPrompts | None = None,
    resamples: int = 1000,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> list[Part]:
    """Judges benchmarks and writes ``results.json`` after each.

    Args:
        guard: any moderator.
        loaded: what it judges.
        folder: of the run.
        mode: of the guard.
        limit, seed: a fixed sample of each benchmark; default: all items.
        keep_text: whether prompts and responses are kept.
        chunk: items between two saves.
        seen: training prompts, whose share in each benchmark is computed.
        resamples: of the bootstrap.
        settings: for :meth:`Moderator.classify_batch`.
        console: where progress and results are shown.
    """
    console = console or Console()
    marked = trained_on(guard.model)
    samples = [draw_sample(one.items, limit, seed) if limit else list(one.items) for one in loaded]
    parts: list[Part] = []
    about = {
        "model": {"name": _name(guard), "sha256": guard.model.sha256, "engine": guard.model.engine.name},
        "mode": mode.value,
        "sample": {"limit": limit, "seed": seed} if limit else None,
        "settings": dict(settings or {}),
    }
    with shown_progress(sum(work(item) for sample in samples for item in sample), console) as advance:
        for one, sample in zip(loaded, samples, strict=True):
            predictions = judge(
                guard,
                one,
                sample,
                folder,
                mode=mode,
                chunk=chunk,
                keep_text=keep_text,
                advance=advance,
                **(settings or {}),
            )
            errors = [prediction.result["error"] for prediction in predictions if "error" in prediction.result]
            if errors:
                console.print(
                    f"note: {one.benchmark.name}: {len(errors)} items were not judged, the first because: {errors[0]}",
                    highlight=False,
                    markup=False,
                )
            overlap = measure_overlap(sample, seen) if seen else None
            parts.append(Part(one, predictions, one.benchmark.name in marked, overlap))
            results = summarise(parts, about, resamples=resamples)
            write_json(folder.path / "results.json", results)
    console.print(render_table(results))
    return parts


def score_generations(
    file: Path, benchmarks: str, out: Path, *, keep_text: bool, resamples: int, console: Console
) -> None:
    """Scores saved outputs with both scorers; no model runs."""
    part = read_part(file, None if benchmarks == "all" else benchmarks, keep_text=keep_text)
    about = {
        "model": {"name": f"generations in {file.name}", "sha256": read_sha256(file)},
        "mode": "generations",
    }
    with open_run(out, about) as folder:
        name = part.loaded.benchmark.name
        if not folder.predictions_file(name).exists():
            folder.append(name, part.predictions)
        results = summarise([part], about, resamples=resamples)
        write_json(folder.path / "results.json", results)
    console.print(render_table(results))


def choose(names: str, data_dir: Path | None, console: Console) -> list[str]:
    """The benchmarks that ``--benchmarks`` asks for.

    Raises:
        InputError: an unknown name, or all of a folder that has none.
    """
    if names != "all":
        return [find(name.strip()).name for name in names.split(",")]
    if data_dir is None:
        raise InputError("--benchmarks all means all of a data folder; pass --data-dir, or name the benchmarks")
    there = [name for name, benchmark in BENCHMARKS.items() if find_file(benchmark, data_dir)]
    if all(BENCHMARKS[name].shipped for name in there):  # the wrong folder, most likely
        raise InputError(f"{data_dir} holds no benchmark file, neither there nor in its folder benchmarks")
    absent = ", ".join(name for name in BENCHMARKS if name not in there)
    if absent:
        console.print(f"not in {data_dir}, name them to load them from the Hub: {absent}", highlight=False)
    return there


def load_all(names: Sequence[str], data_dir: Path | None, folder: RunFolder, console: Console) -> list[Loaded]:
    """Loads benchmarks, with the commits that an earlier start of the run has fetched; prints odd sizes."""
    loaded = []
    for name in names:
        hub = find(name).hub
        one = load(find(name), data_dir, revision=folder.revision(hub.id))
        if one.revision and hub.revision is None:
            folder.pin(hub.id, one.revision)
        if one.size_note:
            console.print(f"note: {one.size_note}", highlight=False)
        loaded.append(one)
    return loaded


def finished(folder: RunFolder, names: Sequence[str]) -> list[str]:
    """What earlier starts of the run have finished and this one does not name: it stays in the results."""
    file = folder.path / "results.json"
    known = json.loads(file.read_text(encoding="utf-8"))["benchmarks"] if file.exists() else {}
    return [name for name in known if name not in names]


def identify(guard: Moderator, mode: str, limit: int | None, seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same in every start of a run."""
    return {
        # A model's weights are the model, wherever they lie; its moderation.json says how its scores are read.
        "model": guard.model.sha256 or guard.model.name,
        "moderation.json": hashlib.sha256(guard.model.spec.to_json().encode()).hexdigest()[:12],
        "engine": guard.model.engine.name,
        "mode": mode,
        "sample": {"limit": limit, "seed": seed} if limit else None,
        "settings": dict(settings),
    }


def pooled(parts: Sequence[Part], task: Task) -> Outcomes:
    """The outcomes of all benchmarks of a task."""
    chosen = [part for part in parts if part.loaded.benchmark.task is task]
    return to_outcomes([prediction for part in chosen for prediction in part.predictions], task)


def _name(guard: Moderator) -> str:
    """The model's name without the place of its folder, which is nobody's business."""
    return Path(guard.model.name).name if Path(guard.model.name).is_dir() else guard.model.name


if __name__ == "__main__":
    typer.run(main)
