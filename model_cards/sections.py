"""The tables and sentences of a card, made of a run's record and results only; what is missing is said to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from guardreasoner_moderation.results import Task
from model_cards.metadata import TASKS
from model_cards.plots import COMPARED
from model_cards.reading import NOT_MEASURED, NOT_RECORDED
from model_cards.record import RunRecord
from model_cards.results import Evidence, Row, read_published

Cells = Sequence[Any]

_BORDERLINE = ("Borderline", "XSTest", "ORBench")  # benchmarks of requests that only look harmful
_ADAPTER_KEYS = ("peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "target_modules")
_ROUND_KEYS = ("steps", "tokens", "hours", "hardware", "commit")
_CHECK_TITLES = {
    "follows": "verdict follows from the last steps",
    "conclusion": "conclusion agrees with the answer",
    "grounded": "grounded in the item",
    "on_subject": "names its subject",
    "complete": "every task reasoned about and answered",
    "no_invention": "invents no task",
    "no_leak": "no label leakage",
    "no_scaffold": "no scaffolding",
    "no_loop": "no loop",
    "finished": "not cut off",
    "within_budget": "within the budget of sentences and words",
}


def cell(value: Any, absent: str = NOT_MEASURED) -> str:
    """A value that cannot break a Markdown table, nor be read as HTML."""
    if value is None:
        return absent
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cell(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return "; ".join(cell(inner) for inner in value)
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def summarise(record: RunRecord) -> str:
    """The first sentences."""
    rank = record.config.get("r")
    kind = f"A LoRA adapter of rank {rank}" if rank else "An adapter"
    return (
        f"{kind} for `{record.base}` that moderates conversations with language models: is the request harmful, did "
        "the assistant refuse, is the response harmful. Each answer has a score; in think mode it comes with the "
        "reasoning that led to it."
    )


def headlines(record: RunRecord, evidence: Evidence) -> list[str]:
    """The figures to know first: of the benchmark that decided on publication, and the averages of each mode."""
    unseen = [row for row in evidence.rows if not row.trained_on]
    averaged = [run for run in evidence.runs if run.sha256 == record.sha256 and run.averages]
    first = unseen[0].benchmark if unseen and not averaged else None
    decided = (record.decision or {}).get("benchmark", first)
    lines = [
        f"{row.benchmark}, {TASKS[row.task]}, {row.run.mode} mode, {row.items} items: accuracy "
        f"{row.shown('accuracy')}%, F1 {row.shown('f1')}%, {row.unjudged} unjudged."
        for row in unseen
        if row.benchmark == decided
    ]
    for run in averaged:
        parts = [f"{TASKS[task]} {f1}% on {n} items" for task, (n, f1) in run.averages.items()]
        lines.append(f"Average F1 of the unseen benchmarks below, {run.mode} mode: {', '.join(parts)}.")
    if averaged:
        note = "Averages are weighted by items, over those of the 13 benchmarks of arXiv 2501.18492 that were run."
        if len({tuple(n for n, _ in run.averages.values()) for run in averaged}) > 1:
            note += " The modes were run on different items, so their averages cannot be compared: see the table."
        lines.append(note)
    return lines or [f"Quality: {NOT_MEASURED}."]


def gate(record: RunRecord, override: str | None) -> str:
    """What the decision to publish said, and why it was published all the same."""
    decision = record.decision
    said = f"{NOT_RECORDED}."
    if decision is not None:
        cautions = (f"But {caution}" for caution in decision.get("cautions", ()))
        said = " ".join([f"{decision.get('verdict', NOT_RECORDED)}.", *decision.get("reasons", ()), *cautions])
        if (weights := (decision.get("model") or {}).get("sha256")) != record.sha256:
            said = f"{NOT_RECORDED} (the decision is about other weights, {str(weights)[:12]})."
    return f"{said} Published all the same, because: {override}" if override else said


def data_rows(record: RunRecord) -> list[Cells]:
    """The training data with licences."""
    return [[row.source, row.license, row.train, row.validation, row.doubtful] for row in record.data] or [
        [NOT_RECORDED] * 5
    ]


def data_note(record: RunRecord) -> str:
    """Files, and what was left out."""
    files = record.run.get("data_sha256") or {}
    named = ", ".join(f"`{file}` (SHA-256 {digest[:12]})" for file, digest in files.items())
    count, limit = record.run.get("left_out_as_too_long"), (record.run.get("recipe") or {}).get("max_tokens")
    if count is not None:
        count = f"{count} showings of items of more than {cell(limit, NOT_RECORDED)} tokens"
    return f"Files: {named or NOT_RECORDED}. Left out: {cell(count, NOT_RECORDED)}."


def configuration_rows(record: RunRecord) -> list[Cells]:
    """The exact configuration: the whole recipe, the adapter's shape, versions and commit.

    Of an earlier round, what was otherwise there.
    """
    recipe: Mapping[str, Any] = record.run.get("recipe") or {}
    rows: list[Cells] = [[f"recipe: {key}", cell(value)] for key, value in recipe.items()]
    for key, value in (record.earlier.get("recipe") or {}).items():
        if value != recipe.get(key):
            rows.append([f"first round's recipe: {key}", cell(value)])
    for key in _ADAPTER_KEYS:
        value = record.config.get(key)
        if value is not None:  # peft writes the modules in no order
            rows.append([f"adapter: {key}", cell(sorted(value) if isinstance(value, list) else value)])
    if layers := record.config.get("layers_to_transform"):
        rows.append(["adapter: layers", f"{min(layers)} to {max(layers)}"])
    rows += [["optimiser steps", cell(record.run.get("steps"), NOT_RECORDED)]]
    rows += [["tokens", cell(record.run.get("tokens"), NOT_RECORDED)]]
    if record.earlier:
        rows += [[f"first round: {key}", cell(record.earlier.get(key), NOT_RECORDED)] for key in _ROUND_KEYS]
    rows += [["versions", cell(record.run.get("versions"), NOT_RECORDED)]]
    rows += [["git commit", cell(record.run.get("commit"), NOT_RECORDED)]]
    return rows


def look_rows(record: RunRecord) -> list[Cells]:
    """The looks at the validation split."""
    return [
        [look["step"], task.value, figures["n"], *(figures.get(key) for key in ("accuracy", "f1", "auprc"))]
        for look in record.run.get("validation") or []
        for task in Task
        if (figures := look.get(task.value))
    ]


def result_rows(evidence: Evidence) -> list[Cells]:
    """One row for each benchmark and mode; other models' rows carry their name."""
    metrics = ("f1", "accuracy", "recall", "false_positive_rate", "auprc")

    def cells(row: Row, name: str) -> Cells:
        mark = " \\*" if row.trained_on else ""
        unjudged = f"{row.unjudged} ({100 * row.unjudged / row.n:.1f}%)"
        figures = [row.shown(metric) for metric in metrics]
        return [f"{name}{mark}", TASKS[row.task], row.run.mode, row.run.scorer, row.items, *figures, unjudged]

    return [
        *(cells(row, row.benchmark) for row in evidence.rows),
        *(cells(row, f"{row.benchmark}, model {row.run.model}") for row in evidence.beside),
    ]


def published_table(evidence: Evidence) -> tuple[list[str], list[Cells]]:
    """F1 of this model and of published ones on the 13 benchmarks: headings and rows."""
    published = read_published()
    modes = list(dict.fromkeys(row.run.mode for row in evidence.rows)) or ["verdict"]
    headings = ["benchmark", *(f"this model, {mode}" for mode in modes), *(f"{name} (published)" for name in COMPARED)]
    rows: list[Cells] = []
    for name in published["items"]:
        ours = {row.run.mode: row for row in evidence.of(name)}
        cells = [ours[mode].shown("f1") if mode in ours else NOT_MEASURED for mode in modes]
        starred = any(row.trained_on for row in ours.values())
        theirs = [published["f1"].get(model, {}).get(name) for model in COMPARED]
        rows.append([f"{name} \\*" if starred else name, *cells, *(cell(value, "not published") for value in theirs)])
    return headings, rows


def over_refusal_rows(evidence: Evidence) -> list[Cells]:
    """False alarms on harmless requests; the benchmarks made for this come first, measured or not."""
    requests = [row for row in evidence.rows if row.task == Task.REQUEST and row.positives < row.n]
    rows: list[Cells] = []
    for name in dict.fromkeys((*_BORDERLINE, *(row.benchmark for row in requests))):
        found = [row for row in requests if row.benchmark == name]
        if not found:
            rows.append([name, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED])
        rows += [[name, row.run.mode, row.n - row.positives, row.shown("over_refusal_rate")] for row in found]
    return rows


def calibration_rows(record: RunRecord) -> list[Cells]:
    """The fit of every mode and task."""
    keys = ("n", "scale", "shift", "first_scale", "brier_before", "brier")
    return [
        [*name.split(".", 1), *(found.get(key) for key in keys)]
        for name, found in (record.calibration or {}).items()
        if isinstance(found, Mapping) and "." in name
    ]


def calibration_measured(evidence: Evidence) -> list[Cells]:
    """Calibration error and Brier score on benchmarks."""
    return [
        [row.benchmark, row.run.mode, row.items, row.shown("calibration_error"), row.shown("brier")]
        for row in evidence.rows
        if row.metrics.get("calibration_error")
    ]


def reasoning_table(evidence: Evidence) -> tuple[list[str], list[Cells]]:
    """The checks, a column for each source: headings and rows."""
    found = evidence.reasoning
    if found is None:
        return [], []
    rows: list[Cells] = [["items with reasoning", *found.items]]
    for name, shares in found.checks.items():
        rows.append([_CHECK_TITLES.get(name, name.replace("_", " ")), *("-" if one is None else one for one in shares)])
    return ["check", *found.sources], rows


def failure_rows(evidence: Evidence) -> list[Cells] | None:
    """Where it fails more than elsewhere; None where that was not looked at."""
    if evidence.failures is None:
        return None
    return [
        [one.slice, one.kind, f"{one.count} / {one.of}", one.rate, f"{100 * one.elsewhere:.1f}", one.advice]
        for one in evidence.failures
    ]


def attack_rows(evidence: Evidence) -> list[Cells]:
    """How often a request's verdict changes when it is wrapped or disguised."""

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.1f}"

    return [
        [one.name, one.pairs, percent(one.changed), percent(one.missed), percent(one.missed_as_they_are)]
        for one in evidence.attacks or ()
    ]


def limitations(record: RunRecord, evidence: Evidence) -> list[str]:
    """What a user has to know before relying on it."""
    lines = [_worst(evidence, task, title) for task, title in TASKS.items()]
    lines.append(_reasoning_limit(evidence))
    lines.append(
        f"Texts of more than {record.spec.window_tokens} tokens are judged in overlapping windows"
        + (", and requests by paragraphs too" if record.spec.passage_tokens else "")
        + ": a harm that is spread over a long text can be missed."
    )
    lines.append(
        "It reads a policy in its prompt, but was measured on its own taxonomy."
        if record.spec.policy
        else "It knows the taxonomy that it was trained on and reads no policy of your own."
    )
    lines.append(_languages_limit(evidence))
    measured = {row.benchmark for row in evidence.rows}
    if absent := [name for name in read_published()["items"] if name not in measured]:
        lines.append(f"Of the 13 benchmarks, {NOT_MEASURED}: {', '.join(absent)}.")
    if seen := sorted({row.benchmark for row in evidence.rows if row.trained_on}):
        lines.append(f"It was trained on texts of {', '.join(seen)}.")
    return lines


def cost_rows(record: RunRecord, evidence: Evidence) -> list[Cells]:
    """Time and hardware of training and evaluation."""
    rounds = [one.get("hours") for one in (record.earlier, record.run) if one]
    known = [hours for hours in rounds if hours is not None]
    hours = round(sum(known), 2) if known and len(known) == len(rounds) else None
    runs = [run for run in evidence.runs if run.sha256 == record.sha256]
    seconds = sum(run.seconds for run in runs)
    machines = dict.fromkeys(run.hardware for run in runs)
    return [
        ["training, hours", cell(hours, NOT_RECORDED)],
        ["training, hardware", cell(record.run.get("hardware"), NOT_RECORDED)],
        ["evaluation, hours", f"{seconds / 3600:.2f}" if runs else NOT_MEASURED],
        ["evaluation, hardware", "; ".join(machines) or NOT_MEASURED],
        ["energy and emissions", NOT_MEASURED],
    ]


def _worst(evidence: Evidence, task: str, title: str) -> str:
    """The errors on the unseen benchmark that went worst, each by its run on most items."""
    fullest: dict[str, Row] = {}
    for row in evidence.rows:
        if (
            row.task == task
            and not row.trained_on
            and row.n > (known.n if (known := fullest.get(row.benchmark)) else 0)
        ):
            fullest[row.benchmark] = row
    if not fullest:
        return f"How well it judges {title} was {NOT_MEASURED} on unseen benchmarks."
    worst = min(fullest.values(), key=lambda row: f1.value if (f1 := row.metrics.get("f1")) else 2.0)
    rates = {
        "missed {}% of the risky items": worst.metrics.get("false_negative_rate"),
        "flagged {}% of the others": worst.metrics.get("false_positive_rate"),
    }
    told = " and ".join(words.format(rate) for words, rate in rates.items() if rate)
    of = f"of {len(fullest)} unseen benchmarks the worst" if len(fullest) > 1 else "the only unseen benchmark"
    return f"It errs at {title}: on {worst.benchmark}, {of} ({worst.run.mode} mode, {worst.items} items), it {told}."


def _languages_limit(evidence: Evidence) -> str:
    found = next((one for one in evidence.attacks or () if one.name.startswith("other languages")), None)
    if found is None or found.missed is None:
        return f"Languages other than English: {NOT_MEASURED}."
    return (
        f"It learned English: of the requests that it flags in English it misses {100 * found.missed:.0f}% in other "
        f"languages ({found.pairs} of them, {found.name.rsplit(', ', 1)[-1]})."
    )


def _reasoning_limit(evidence: Evidence) -> str:
    found = evidence.reasoning
    follows = found.checks.get("follows") if found else None
    if found is None or follows is None or follows[0] is None:
        return f"Its reasoning can be wrong and contradict its verdict; how often was {NOT_MEASURED}."
    return f"Its reasoning can be wrong: of the verdicts whose last steps can be read, {follows[0]}% follow from them."
