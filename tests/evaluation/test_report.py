from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from example_runs import bench, item, make_run, said
from typer import Typer
from typer.testing import CliRunner

from evaluation.finished import read_run
from evaluation.items import Item
from evaluation.latency import measure_costs
from evaluation.loading import Loaded
from evaluation.published import put_beside, read_published
from evaluation.report import Report, build_report, main, render, write_report
from evaluation.result_plots import _without_prefix
from guardreasoner_moderation.results import Label, ModerationResult, Task

APP = Typer()
APP.command()(main)


def prompts() -> Loaded:
    items = [
        item(n, n % 3 == 0, f"A telltale text {n}", name="ToxicChat", group=f"kind_{n % 2}|<b>") for n in range(60)
    ]
    return bench(items, table3=True, adversarial=True)


def refusals() -> Loaded:
    items = [
        item(
            n,
            n % 2 == 0,
            "A telltale question",
            "A telltale answer",
            name="XSTestResponseRefusal",
            task=Task.COMPLETION,
        )
        for n in range(40)
    ]
    return bench(items, Task.COMPLETION, table3=True)


def own() -> Loaded:
    return bench([item(n, True, name="HarmBenchPrompt") for n in range(10)], table3=True)


def answered(one: Item, skill: float, seconds: float, steps: tuple[str, ...] = ()) -> ModerationResult:
    number = int(one.id.rpartition("/")[2])
    if number == 7:
        return said(None)
    score = (number * 37 % 100) / 100 * (1 - skill) + skill * (one.label in (Label.HARMFUL, Label.REFUSAL))
    if one.interaction.response:
        return said(0.2, score, 0.1, seconds=seconds, tokens=len(steps))
    return said(score, steps=steps, seconds=seconds, tokens=5 + 20 * len(steps))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    steps = ("The user asks about a text.", "It is an ordinary question.")
    first = make_run(
        folder / "verdict",
        (prompts(), lambda one: answered(one, 0.4, 0.2)),
        (refusals(), lambda one: answered(one, 0.5, 0.2)),
        (own(), lambda one: answered(one, 0.9, 0.2)),
        trained_on=["HarmBenchPrompt"],
    )
    second = make_run(
        folder / "think",
        (prompts(), lambda one: answered(one, 0.6, 0.8, steps)),
        mode="think",
        keep_text=True,
        limit=45,
    )
    return [first, second]


@pytest.fixture(scope="module")
def report(runs: list[Path]) -> Report:
    return build_report([read_run(run) for run in runs])


class Page(HTMLParser):
    """What a page loads, and whether its elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.alts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.loaded += [str(facts[name]) for name in ("src", "href") if name in facts]
        if tag == "img":
            self.alts.append(facts.get("alt"))
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_html_page_needs_no_other_file(report: Report) -> None:
    page = render(report)
    read = Page(page)
    assert read.wrong == []
    assert read.open == []
    assert all(place.startswith(("#", "data:image/svg+xml;base64,")) for place in read.loaded)
    targets = {place[1:] for place in read.loaded if place.startswith("#")}
    assert targets <= set(re.findall(r'id="(\w+)"', page))
    assert "<script" not in page
    assert len(page) < 5_000_000


def test_every_figure_says_what_it_shows(report: Report) -> None:
    alts = Page(render(report)).alts
    assert len(alts) == len(report.figures) == 9
    assert all(alt and len(alt) > 40 for alt in alts)
    assert "ToxicChat: guard (verdict) 0." in report.figures["precision-recall"].alt


def test_figures_come_with_n_and_interval(report: Report, runs: list[Path]) -> None:
    page = render(report)
    row = json.loads((runs[0] / "results.json").read_text())["benchmarks"]["ToxicChat"]
    value, low, high = (f"{100 * share:.1f}" for share in row["metrics"]["f1"])
    assert f'{value} <span class="span">[{low}, {high}]</span>' in page
    markdown = render(report, markdown=True)
    assert f"| ToxicChat | 60 | 20 | {value} [{low}, {high}] |" in markdown
    assert "| ToxicChat | 45 of 60 |" in markdown


def test_published_figures_are_marked_and_trained_on_cells_too(report: Report) -> None:
    for page in (render(report), render(report, markdown=True)):
        assert "ublished by others, not measured here" in page
        assert read_published()["source"].split(",")[0] in page
        assert "trained on HarmBenchPrompt" in page
    assert re.search(r'HarmBenchPrompt<span class="mark"', render(report))
    rows = put_beside(report.runs[0])
    assert [(row.benchmark, row.n, row.trained_on) for row in rows] == [
        ("ToxicChat", 60, False),
        ("HarmBenchPrompt", 10, True),
        ("XSTestResponseRefusal", 40, False),
    ]
    assert rows[0].published["GuardReasoner 1B"] == 72.43
    assert rows[0].better_than == sum(value < rows[0].f1[0] for value in rows[0].published.values())


def test_no_text_of_an_item_is_in_the_report(report: Report) -> None:
    for page in (render(report), render(report, markdown=True)):
        assert "telltale" not in page
        assert "<b>" not in page.replace("<b>published by others", "").replace("<b>guard", "").replace("<b style", "")


def test_tables_of_the_markdown_page_are_whole(report: Report) -> None:
    lines = render(report, markdown=True).replace("\\|", "").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("|---"):
            width = line.count("|")
            assert lines[number - 1].count("|") == width
            rest = lines[number + 1 :]
            body = rest[: next((place for place, one in enumerate(rest) if not one.startswith("|")), len(rest))]
            assert body, lines[number - 1]
            assert {one.count("|") for one in body} == {width}, lines[number - 1]


def test_runs_are_compared_on_the_items_that_both_judged(report: Report) -> None:
    assert report.costs is not None
    first, second = report.costs
    assert (first.items, second.items) == (45, 45)
    assert list(first.f1) == [Task.REQUEST]
    assert second.seconds / first.seconds == pytest.approx(4.0, rel=0.02)  # one item was not judged, at the same cost
    assert "guard (think) takes 4.0 times as long as guard (verdict) on the same 45 items" in render(report)
    assert measure_costs(report.runs[:1]) is None


def test_reasoning_is_reported_of_runs_that_have_it(report: Report) -> None:
    assert report.reasoning is not None
    assert report.reasoning.names == ["guard (think)"]
    assert report.reasoning.qualities[0].reasoned == 44
    assert "verdict follows" in render(report)


def test_errors_and_confusion_are_those_of_the_predictions(report: Report) -> None:
    cases = report.errors[0].cases
    outcomes = report.runs[0].part("ToxicChat").outcomes
    misses = int((outcomes.labels & (outcomes.predictions == 0)).sum())
    assert sum(case.kind == "miss" and case.benchmark == "ToxicChat" for case in cases) == misses
    hits = int((outcomes.labels & (outcomes.predictions == 1)).sum())
    assert f"| ToxicChat | harmful | {hits} | {misses} | 0 |" in render(report, markdown=True)


def test_the_command_writes_pages_and_figures(
    runs: list[Path], report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []

    def built(runs: object, *_: object, names: object, **__: object) -> Report:
        called.append(names)
        return report

    monkeypatch.setattr("evaluation.report.build_report", built)  # drawing takes seconds, and is tested above
    done = CliRunner().invoke(APP, [*map(str, runs), "-o", str(tmp_path), "--names", "one, other"])
    assert done.exit_code == 0, done.output
    assert called == [["one", "other"]]
    names = {file.stem for file in (tmp_path / "figures").glob("*.png")}
    per_run = {"scores-1", "scores-2", "groups-1", "groups-2"}
    assert names == {"published", "latency", "precision-recall", "roc", "calibration"} | per_run
    shown = set(re.findall(r"\(figures/([\w-]+)\.png\)", (tmp_path / "report.md").read_text()))
    assert shown == names
    assert (tmp_path / "figures" / "roc.png").read_bytes().startswith(b"\x89PNG")
    wrong = CliRunner().invoke(APP, [str(runs[0]), str(runs[1]), "-o", str(tmp_path), "--names", "one"])
    assert wrong.exit_code == 2
    assert "a name for each of the 2 runs" in wrong.output
    absent = CliRunner().invoke(APP, [str(tmp_path / "absent"), "-o", str(tmp_path)])
    assert absent.exit_code == 2


def test_a_run_without_scores_or_published_cells_makes_a_report_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", (bench([item(n, n % 2 == 0) for n in range(20)]), lambda one: said(None)))
    plain = build_report([read_run(run)])
    write_report(plain, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert Page(page).wrong == []
    assert "guard (verdict) on Mini: accuracy 0.0%" in page
    assert 'id="published"' not in page


def test_names_of_groups_lose_what_they_share() -> None:
    assert _without_prefix(["Bench: set_arms", "Bench: set_drugs"]) == ("Bench: set", ["arms", "drugs"])
    assert _without_prefix(["Bench: arms", "Bench: drugs"]) == ("Bench", ["arms", "drugs"])
    assert _without_prefix(["A: x", "B: x"]) == ("", ["A: x", "B: x"])
    assert _without_prefix(["Bench: arms"]) == ("", ["Bench: arms"])
