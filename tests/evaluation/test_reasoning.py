from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from example_runs import bench, item, make_run, said
from rich.console import Console
from samples import write_lines
from typer import Typer
from typer.testing import CliRunner

from evaluation import run as evaluation_run
from evaluation.finished import read_run
from evaluation.items import Item
from evaluation.polarity import MEASURED_READING
from evaluation.reasoning import compare_sources, main, render, to_json
from evaluation.runs import open_run
from evaluation.traces import read_all_generations, read_run_traces, shared_items
from guardreasoner_moderation import Moderator
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.results import Label, Mode, ModerationResult, Task

APP = Typer()
APP.command()(main)
THINGS = ("oak desks", "rye bread", "blue whales", "old clocks", "rain gauges", "tin soldiers", "wool hats", "kites")
NAME = "SimpleSafetyTests"
ITEMS = [
    item(n, n % 4 == 0, f"Tell me the history of {THINGS[n % 8]} in {THINGS[(n + 3) % 8]} number {n}.", name=NAME)
    for n in range(24)
]


def think(one: Item) -> ModerationResult:
    number = int(one.id.rpartition("/")[2])
    thing = THINGS[number % 8]
    steps = [f"The user asks for the history of {thing}.", "It is an ordinary, educational question."]
    if number in (4, 8):  # a verdict that does not follow
        return said(0.9, steps=steps)
    if number % 4 == 0:
        return said(0.9, steps=[steps[0], "It would enable theft and fraud."])
    return said(0.1, steps=steps if number else ())


@pytest.fixture
def thinking(tmp_path: Path) -> Path:
    return make_run(tmp_path / "think", (bench(ITEMS), think), mode="think", keep_text=True)


def generation(one: Item, label: str, ending: str) -> dict[str, Any]:
    steps = f"## Reasoning Step 1\nThe human user asks about {one.interaction.prompt[24:40]}.\n"
    predict = f"# Task 1\n\n{steps}\n## Reasoning Step 2\n{ending}\n\n## Conclusion\nThe request is {label}.\n\n"
    invented = "# Task 3\n\n## Reasoning Step 1\nThe response is safe.\n\n"
    return {
        "prompt": f"...\n\nHuman user:\n{one.interaction.prompt}\n\nAI assistant:\nNone\n\n",
        "label": one.label.value,
        "predict": f"{predict}{invented}Answers:\nRequest: {label}\nResponse: unharmful",
    }


@pytest.fixture
def generations(tmp_path: Path) -> Path:
    for size in ("1B", "3B"):
        rows = [generation(one, "unharmful", "It is an ordinary question.") for one in ITEMS]
        write_lines(tmp_path / "saved" / size / f"{NAME}.jsonl", rows)
    return tmp_path / "saved"


def test_figures_of_a_run_are_those_worked_out_by_hand(thinking: Path) -> None:
    source = read_run_traces("guard", read_run(thinking))
    quality = compare_sources([source]).qualities(shared=False)[0]
    assert (quality.items, quality.reasoned) == (24, 24)
    shares = {name: (share.count, share.of) for name, share in quality.shares.items()}
    assert shares["follows"] == (22, 24)
    assert shares["conclusion"] == (0, 0)
    assert shares["complete"] == shares["no_loop"] == shares["no_leak"] == shares["finished"] == (24, 24)
    assert shares["no_invention"] == (24, 24)
    assert shares["grounded"][1] == 24
    assert (quality.right_when["agrees"].count, quality.right_when["agrees"].of) == (22, 22)  # type: ignore[index]
    assert (quality.against.count, quality.against.of) == (2, 2)
    assert quality.sentences == 2


def test_items_without_reasoning_are_counted_and_left_out(tmp_path: Path) -> None:
    silent = make_run(
        tmp_path / "x", (bench(ITEMS), lambda one: think(one) if one.label is Label.HARMFUL else said()), mode="think"
    )
    quality = compare_sources([read_run_traces("guard", read_run(silent))]).qualities(shared=False)[0]
    assert (quality.items, quality.reasoned) == (24, 6)
    assert quality.shares["grounded"].of == 0  # no texts
    assert quality.overlap != quality.overlap


def test_a_verdict_run_has_no_reasoning(tmp_path: Path) -> None:
    verdicts = make_run(tmp_path / "x", (bench(ITEMS), lambda one: said()))
    with pytest.raises(InputError, match=r"there is no reasoning; run .* --mode think"):
        compare_sources([read_run_traces("guard", read_run(verdicts))])


def test_sources_are_compared_on_the_items_they_share(thinking: Path, generations: Path) -> None:
    ours = read_run_traces("guard", read_run(thinking))
    theirs = read_all_generations(generations)
    assert [source.name for source in theirs] == [f"GuardReasoner {size} (authors' outputs)" for size in ("1B", "3B")]
    compared = compare_sources([ours, *theirs])
    assert compared.shared is not None
    assert {len(source.traces) for source in compared.shared} == {24}
    saved = compared.qualities(shared=True)[1]
    assert (saved.shares["conclusion"].count, saved.shares["conclusion"].of) == (24, 24)
    assert (saved.shares["no_invention"].count, saved.shares["no_invention"].of) == (0, 24)
    page = render(compared)
    assert "## Side by side, on the 24 items that all reason about" in page
    assert page.count("\n| verdict follows |") == 2
    fewer = shared_items([ours, type(ours)("other", ours.traces[:3])])
    assert [len(source.traces) for source in fewer] == [3, 3]


def test_pages_and_records_hold_no_text_of_the_items(thinking: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "reasoning.md"
    done = CliRunner().invoke(APP, [str(thinking), "-o", str(out)])
    assert done.exit_code == 0, done.output
    files = [out, out.with_suffix(".json"), out.with_suffix(".items.jsonl")]
    assert sorted(file.name for file in out.parent.iterdir()) == sorted(file.name for file in files)
    for file in files:
        assert not any(thing in file.read_text() for thing in THINGS)
    records = [json.loads(line) for line in files[2].read_text().splitlines()]
    assert [record["id"] for record in records if record["follows"]["request"] == "contradicts"] == [
        f"{NAME}/4",
        f"{NAME}/8",
    ]


def test_how_well_polarity_is_read_stands_beside_the_figures(thinking: Path) -> None:
    compared = compare_sources([read_run_traces("guard", read_run(thinking))])
    assert "Measured on held-out reasoning" in render(compared)
    assert to_json(compared)["reading_of_polarity"] == json.loads(MEASURED_READING.read_text())


def test_review_page_and_key_are_written_beside_the_report(thinking: Path, generations: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "reasoning.md"
    arguments = [str(thinking), "--generations-dir", str(generations), "-o", str(out), "--review", "6"]
    done = CliRunner().invoke(APP, arguments)
    assert done.exit_code == 0, done.output
    assert "6 items to rate" in done.output
    key = json.loads(out.with_suffix(".review-key.json").read_text())
    assert sorted(one["source"] for one in key.values()).count("guard (think)") == 2
    assert "GuardReasoner 1B" not in out.with_suffix(".review.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "pass a run folder, or --generations-dir, or both"),
        (["RUN", "--review", "3"], "pass -o"),
        (["absent"], "there is no folder absent"),
        (["--generations-dir", "."], "holds no folder 1B or 3B"),
    ],
)
def test_wrong_calls_say_what_is_wrong(
    thinking: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(thinking)
    done = CliRunner().invoke(APP, [str(thinking) if one == "RUN" else one for one in arguments])
    assert done.exit_code == 2
    assert message in done.output


def test_a_run_of_a_real_moderator_is_read(tmp_path: Path) -> None:
    def reply(prompt: Any) -> str:
        return "The user asks about bread.\nIt is an ordinary question.\n---\nAnswers:\nRequest: unharmful\n"

    guard = Moderator.from_engine(ScriptedEngine(reply), ModelSpec(prompt_format=PromptFormat.COMPACT))
    loaded = bench(ITEMS)
    identity = evaluation_run.identify(guard, "think", None, 0, {})
    with guard, open_run(tmp_path, identity) as folder:
        evaluation_run.evaluate(
            guard, [loaded], folder, mode=Mode.THINK, resamples=10, console=Console(file=io.StringIO())
        )
    traces = read_run_traces("guard", read_run(tmp_path)).traces
    assert traces[0].steps == {Task.REQUEST: ("The user asks about bread.", "It is an ordinary question.")}
    assert traces[0].tokens > 0
