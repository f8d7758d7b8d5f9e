"""Fits the calibration of an adapter's scores on the validation split, and writes it into its ``moderation.json``.

    python -m training.calibrate ADAPTER training/recipes/embedded.yaml --data-dir DATA --out runs/calibration

The recipe is one of :mod:`training.rsft` or of :mod:`training.trl_sft`; of it only the data and the seed count.
The items are judged as a user's would be, by the engine that users run. Run the same command again to go on after a
stop.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from guardreasoner_moderation.errors import EngineError, InputError
from guardreasoner_moderation.models import SPEC_FILE, load_model, read_spec
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.results import LABELS, Mode, Task
from guardreasoner_moderation.verdicts import Calibration
from training.data import LabelledInteraction, read_interactions
from training.recipe import Recipe, read_recipe, read_strictly
from training.trl_recipe import SftRecipe

_CHUNK = 128  # items judged between two writes
_CERTAIN = 1e-12  # a score this near to 0 or 1 is taken for it, so that its log-odds are finite


def main(
    adapter: Annotated[Path, typer.Argument(help="Folder of the adapter; its moderation.json is rewritten.")],
    recipe_file: Annotated[Path, typer.Argument(help="The recipe that it was trained by.")],
    data_dir: Annotated[Path, typer.Option(help="Folder with the recipe's data files.")],
    out: Annotated[Path, typer.Option(help="Folder for the judgements and the figures.")],
    think_items: Annotated[int, typer.Option(help="Fit think mode on so many items, drawn at random; 0 for all.")] = 0,
) -> None:
    """Calibrate an adapter."""
    recipe = read_either(recipe_file)
    items = [
        item
        for source in recipe.data
        for item in read_interactions(data_dir / source.file)
        if item.split == "validation" and not item.doubtful
    ]
    out.mkdir(parents=True, exist_ok=True)
    spec = read_spec(adapter / SPEC_FILE)
    model = load_model(adapter)
    calibration: dict[Mode, dict[Task, Calibration]] = {}
    first: dict[str, dict[str, float]] = {}  # what the model answers without reasoning
    figures: dict[str, Any] = {"weights_sha256": model.sha256, "items": len(items)}
    with Moderator.from_engine(model.engine, replace(spec, calibration={})) as guard:
        for mode in (Mode.VERDICT, Mode.THINK):
            chosen = items
            if mode is Mode.THINK and 0 < think_items < len(items):
                chosen = random.Random(recipe.seed).sample(items, think_items)
            judged = judge_all(guard, chosen, mode, out / f"{str(model.sha256)[:12]}.{mode}.jsonl")
            first = first or judged
            calibration[mode] = {}
            for task in Task:
                pairs = [
                    (
                        (judged[item.id][task.value], first[item.id][task.value] if mode is Mode.THINK else 0.0),
                        item.labels[task] is LABELS[task][0],
                    )
                    for item in chosen
                    if task in item.labels
                ]
                if pairs:
                    calibration[mode][task] = fit(pairs)
                    figures[f"{mode}.{task}"] = describe(pairs, calibration[mode][task])
    (adapter / SPEC_FILE).write_text(replace(spec, calibration=calibration).to_json(), encoding="utf-8")
    (out / "calibration.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    typer.echo(json.dumps(figures, indent=2))


def read_either(path: Path) -> Recipe | SftRecipe:
    """Reads a recipe of :mod:`training.rsft` or of :mod:`training.trl_sft`.

    Raises:
        InputError: it is neither; the message tells what each would need.
    """
    try:
        return read_recipe(path)
    except InputError as exc:
        try:
            return read_strictly(path, SftRecipe)
        except InputError as other:
            raise InputError(f"no recipe of training.rsft ({exc}), nor of training.trl_sft ({other})") from exc


def judge_all(
    guard: Moderator, items: Sequence[LabelledInteraction], mode: Mode, file: Path
) -> dict[str, dict[str, float]]:
    """The log-odds of every item's tasks, kept in ``file`` as they come.

    Raises:
        EngineError: an item could not be judged.
    """
    done: dict[str, dict[str, float]] = {}
    if file.exists():
        content = file.read_text(encoding="utf-8")
        whole = content[: content.rfind("\n") + 1]  # a killed run may have left half a line
        file.write_text(whole, encoding="utf-8")
        done = {row.pop("id"): row for row in map(json.loads, whole.splitlines())}
    # Items of a like length go to the engine together.
    waiting = sorted((item for item in items if item.id not in done), key=lambda item: len(item.interaction.prompt))
    with file.open("a", encoding="utf-8") as rows, typer.progressbar(length=len(waiting), label=str(mode)) as bar:
        for start in range(0, len(waiting), _CHUNK):
            chunk = waiting[start : start + _CHUNK]
            results = guard.classify_batch([item.interaction for item in chunk], mode=mode, on_error="raise")
            for item, result in zip(chunk, results, strict=True):
                odds = {task.value: log_odds(verdict.score) for task, verdict in result.verdicts()}
                if not odds:
                    raise EngineError(f"{item.id} was not judged")
                rows.write(json.dumps({"id": item.id, **odds}) + "\n")
                done[item.id] = odds
            rows.flush()
            bar.update(len(chunk))
    return done


def log_odds(score: float) -> float:
    """The log-odds of a score, finite also where it is 0 or 1."""
    score = min(max(score, _CERTAIN), 1 - _CERTAIN)
    return math.log(score / (1 - score))


Pair: TypeAlias = tuple[tuple[float, float], bool]
"""An item's log-odds, its log-odds before the reasoning (0 where they do not count), and whether it is risky."""


def fit(pairs: Sequence[Pair]) -> Calibration:
    """Platt scaling by maximum likelihood, with Platt's own smoothed targets (Platt 1999, section 2.2).

    The smoothing keeps the fit finite where the labels are perfectly separated. No scale is below 0: where the fit
    would count the answer after the reasoning against itself, that answer is left out.

    Args:
        pairs: of the items; log-odds before the reasoning that are all 0 get no weight.

    Raises:
        InputError: one of the labels does not occur.
    """
    from sklearn.linear_model import LogisticRegression

    risky = sum(truth for _, truth in pairs)
    if risky in (0, len(pairs)):
        raise InputError(f"all {len(pairs)} items have the same label; calibration needs both")
    high, low = (risky + 1) / (risky + 2), 1 / (len(pairs) - risky + 2)
    odds = [values for values, _ in pairs]
    target = [high if truth else low for _, truth in pairs]
    model = LogisticRegression(C=math.inf, max_iter=1000)
    model.fit(
        odds * 2,
        [True] * len(pairs) + [False] * len(pairs),
        sample_weight=[*target, *(1 - value for value in target)],
    )
    scale, first_scale, shift = (round(float(value), 4) for value in (*model.coef_[0], model.intercept_[0]))
    if scale < 0 < first_scale:
        return fit([((0.0, first), truth) for (_, first), truth in pairs])
    return Calibration(scale, shift, first_scale)


def describe(pairs: Sequence[Pair], calibration: Calibration) -> dict[str, Any]:
    """Figures of one task: what the fit was made on, so they flatter it a little."""
    from sklearn.metrics import average_precision_score, brier_score_loss, f1_score

    truth = [label for _, label in pairs]
    before = [Calibration().score(odds) for (odds, _), _ in pairs]
    after = [calibration.score(*odds) for odds, _ in pairs]
    chosen = [score >= 0.5 for score in after]
    return {
        "n": len(pairs),
        "scale": calibration.scale,
        "shift": calibration.shift,
        "first_scale": calibration.first_scale,
        "accuracy": round(sum(a == b for a, b in zip(chosen, truth, strict=True)) / len(pairs), 4),
        "f1": round(float(f1_score(truth, chosen)), 4),
        "auprc": round(float(average_precision_score(truth, after)), 4),
        "brier_before": round(float(brier_score_loss(truth, before)), 4),
        "brier": round(float(brier_score_loss(truth, after)), 4),
    }


if __name__ == "__main__":
    typer.run(main)
