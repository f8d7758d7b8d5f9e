"""What the Hub reads of a model page: the card's metadata with its ``model-index``, and ``.eval_results/*.yaml``.

Both hold F1 (and the first accuracy) as shares, 0 to 1, by the strict scorer; cells that the model was trained on are
left out. The formats are those of ``huggingface_hub``'s ``ModelCardData`` and ``EvalResultEntry``; its entry for
``.eval_results`` follows eval_results.yaml of huggingface/hub-docs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardreasoner_moderation.results import Task
from model_cards.reading import build_rows
from model_cards.record import Licence, RunRecord
from model_cards.results import Row
from texts.strict_yaml import read_yaml

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, EvalResultEntry

HUB = Path(__file__).with_name("hub.yaml")
TASKS: Mapping[str, str] = {
    Task.REQUEST: "prompt harmfulness",
    Task.COMPLETION: "refusal",
    Task.RESPONSE: "response harmfulness",
}
"""The field's names of the three tasks."""

_REQUIRED = ("library_name", "base_model", "license", "pipeline_tag", "tags")
_METRICS = {"f1": "F1", "accuracy": "Accuracy"}


@dataclass(frozen=True, slots=True)
class HubBenchmark:
    """Where a benchmark lives on the Hub."""

    dataset: str
    name: str
    split: str | None = None


@cache
def hub_benchmarks() -> Mapping[str, HubBenchmark]:
    """The benchmarks of ``hub.yaml``."""
    rows = read_yaml(HUB)["benchmarks"]
    return dict(zip(rows, build_rows(HubBenchmark, rows.values(), HUB), strict=True))


def training_datasets(record: RunRecord) -> list[str]:
    """Hub ids of the training data, as far as the record names its sources and they are on the Hub."""
    known: Mapping[str, str] = read_yaml(HUB)["training"]
    found = (known.get(row.source) for row in record.data)
    return list(dict.fromkeys(dataset for dataset in found if dataset))


def card_data(record: RunRecord, rows: Sequence[Row], licence: Licence, name: str) -> str:
    """The metadata block of a card, as YAML.

    Args:
        record: of the run.
        rows: of this model.
        licence: of the base model.
        name: of the model.
    """
    from huggingface_hub import ModelCardData

    results = eval_results(rows)
    tags = ["moderation", "guardrail", "safety", "reasoning", "lora", "guardreasoner"]
    data = ModelCardData(
        library_name="peft",
        base_model=record.base,
        license=licence.id,
        pipeline_tag="text-generation",
        datasets=training_datasets(record) or None,
        metrics=[name for name in _METRICS if any(result.metric_type == name for result in results)] or None,
        tags=tags,
        model_name=name,
        eval_results=results or None,
    )
    if not results:
        del data.__dict__["model_name"]  # it only names the model-index
    return data.to_yaml()


def eval_results(rows: Sequence[Row]) -> list[EvalResult]:
    """The entries of the ``model-index``."""
    from huggingface_hub import EvalResult

    results = []
    for row in _unseen(rows):
        home = hub_benchmarks()[row.benchmark]
        for metric, title in _METRICS.items():
            if found := row.metrics.get(metric):
                results.append(
                    EvalResult(
                        task_type="text-classification",
                        task_name="Text Classification",
                        dataset_type=home.dataset,
                        dataset_name=home.name,
                        dataset_split=home.split,
                        dataset_revision=row.revision,
                        metric_type=metric,
                        metric_name=f"{title} of {TASKS[row.task]}, {row.run.mode} mode",
                        metric_value=round(found.value, 4),
                        metric_args={
                            "mode": row.run.mode,
                            "n": row.n,
                            "interval_95": [round(found.low, 4), round(found.high, 4)],
                            "scorer": row.run.scorer,
                            "unjudged": row.unjudged,
                        },
                    )
                )
    return results


def eval_entries(rows: Sequence[Row]) -> dict[str, list[EvalResultEntry]]:
    """The content of ``.eval_results``, by the name of the file: one file a benchmark.

    The Hub checks such files one by one and shows them where the data set is registered as a benchmark; so one that
    it does not know spoils no other.
    """
    from huggingface_hub import EvalResultEntry

    files: dict[str, list[EvalResultEntry]] = {}
    for row in _unseen(rows):
        if f1 := row.metrics.get("f1"):
            entry = EvalResultEntry(
                dataset_id=hub_benchmarks()[row.benchmark].dataset,
                task_id="default",
                value=round(f1.value, 4),
                dataset_revision=row.revision,
                notes=f"F1 of {TASKS[row.task]} ({row.benchmark}), {row.run.mode} mode, {row.items} items, 95% "
                f"interval {f1.low:.4f} to {f1.high:.4f}, {row.run.scorer} scorer, {row.unjudged} unjudged",
            )
            files.setdefault(f"{row.benchmark.lower()}.yaml", []).append(entry)
    return files


def entries_to_yaml(entries: Sequence[EvalResultEntry]) -> str:
    """A file of ``.eval_results``."""
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    return str(yaml.safe_dump(eval_result_entries_to_yaml(list(entries)), sort_keys=False, allow_unicode=True))


def find_card_problems(text: str) -> list[str]:
    """What is wrong with a card's metadata, as far as can be told without the Hub; nothing is good.

    The block must be found by the Hub's own pattern, be read back by ``huggingface_hub`` without loss, name what a page
    needs, and hold ids that the Hub's rules allow.
    """
    import yaml
    from huggingface_hub import ModelCard
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.repocard import REGEX_YAML_BLOCK
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    block = REGEX_YAML_BLOCK.search(text)
    if block is None:
        return ["the card has no metadata block"]
    try:
        content = yaml.safe_load(block.group(2))
        data = ModelCard(text).data
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as exc:
        return [f"the card's metadata cannot be read: {exc}"]
    problems = [f"the card's metadata lack {key}" for key in _REQUIRED if not content.get(key)]
    if dict(data.to_dict()) != content:  # type: ignore[no-untyped-call]
        problems.append("the card's metadata change when huggingface_hub reads and writes them")
    for key, ids in (("base_model", [content.get("base_model")]), ("datasets", content.get("datasets") or [])):
        for one in ids:
            try:
                validate_repo_id(one)
            except HFValidationError as exc:
                problems.append(f"{key} {one!r} is no id on the Hub: {exc}")
    return problems


def find_entry_problems(text: str) -> list[str]:
    """What is wrong with a file of ``.eval_results``; nothing is good."""
    import yaml
    from huggingface_hub import parse_eval_result_entries

    try:
        content: list[dict[str, Any]] = yaml.safe_load(text)
        entries = parse_eval_result_entries(content)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as exc:
        return [f"not in the format of .eval_results: {exc!r}"]
    problems = []
    if yaml.safe_load(entries_to_yaml(entries)) != content:
        problems.append("holds keys that .eval_results does not know")
    for entry in entries:
        if not isinstance(entry.value, (int, float)):
            problems.append(f"the value {entry.value!r} is no number")
        problems += [f"{name} is empty" for name in ("dataset_id", "task_id") if not dataclasses.asdict(entry)[name]]
    return problems


def _unseen(rows: Sequence[Row]) -> list[Row]:
    """The rows whose benchmark is on the Hub and was not trained on."""
    return [row for row in rows if row.benchmark in hub_benchmarks() and not row.trained_on]
