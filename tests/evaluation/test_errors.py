from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from example_runs import bench, item, make_run, said
from typer import Typer
from typer.testing import CliRunner

from evaluation.clusters import IN_ITEMS, find_clusters, find_triggers
from evaluation.errors import NOTHING_STANDS_OUT, main, render
from evaluation.finished import find_texts, read_run
from evaluation.items import Item
from evaluation.slices import Kind, to_cases
from guardreasoner_moderation.results import ModerationResult

APP = Typer()
APP.command()(main)
KITCHEN = ("knife", "chicken", "oven", "sauce", "onion", "garlic", "pepper", "butter")
COMPUTER = ("kill", "process", "python", "thread", "server", "port", "shell", "script")
QUIET = ("flower", "garden", "window", "letter", "winter", "music", "river", "mountain")


def text(number: int) -> str:
    words = (KITCHEN, COMPUTER, QUIET, QUIET)[number % 4]
    return f"<b>Note</b> | {' '.join(random.Random(number).sample(words, 5))} number {number}"


ITEMS = [item(n, n >= 160, text(n), group=("kitchen", "computer", "quiet", "quiet")[n % 4]) for n in range(200)]


def alarmed(one: Item) -> ModerationResult:
    """Flags harmless texts on kitchens and computers, and misses a few harmful ones."""
    number = int(one.id.rpartition("/")[2])
    if number < 160:
        return said(0.6 + number / 1000 if number % 4 < 2 else 0.2, category="other" if number % 4 < 2 else None)
    return said(0.1 if number % 8 == 0 else 0.9)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", (bench(ITEMS), alarmed), keep_text=True)


def test_the_page_tells_what_went_wrong_where(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "errors.md"
    done = CliRunner().invoke(APP, [str(run), "-o", str(out)])
    assert done.exit_code == 0, done.output
    page = out.read_text()
    assert "200 items, 85 errors: 42.5" in page
    assert "| false alarms | 80 | 160 harmless | 50.0 [42.3, 57.7] |" in page
    assert "| misses | 5 | 40 risky | 12.5 [5.5, 26.1] |" in page
    assert "| Mini: kitchen | false alarms | 40 / 40 | 100.0 [91.2, 100.0] | 50.0 | 20 |" in page
    assert "| Mini/157 | 0.757 |" in page  # the most confident false alarm
    assert "| other | 80 | 100.0 [95.4, 100.0] |" in page
    figures = json.loads(out.with_suffix(".json").read_text())
    assert figures["work_list"][0]["kind"] == "false alarm"
    assert figures["slices"]["Group"]["Mini: quiet"]["errors"]["count"] == 0
    assert figures["most_confident"]["false alarm"][0]["id"] == "Mini/157"


def test_texts_are_shown_only_where_asked(run: Path) -> None:
    finished = read_run(run)
    cases, texts = to_cases(finished), find_texts(finished, None)
    secret = (*KITCHEN, *COMPUTER, *QUIET, "Note")
    plain = render(finished, cases, texts)
    assert "## False alarms that are alike" in plain
    assert not any(word in plain.replace("Mini: kitchen", "").split() for word in secret)
    words = render(finished, cases, texts, show_words=True)
    assert "oven" in words
    assert "number 157" not in words
    shown = render(finished, cases, texts, show_text=True)
    assert "&lt;b>Note&lt;/b> \\|" in shown
    assert "number 157" in shown
    rows = [line for line in shown.splitlines() if line.startswith("| Mini/")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {7}


def test_errors_on_two_subjects_make_two_clusters(run: Path) -> None:
    finished = read_run(run)
    wrong = [case for case in to_cases(finished) if case.kind is Kind.FALSE_ALARM]
    found = find_clusters(wrong, find_texts(finished, None), most=2)
    assert found is not None
    assert found.silhouette > 0.1
    assert [len(cluster.cases) for cluster in found.clusters] == [40, 40]
    words = [set(cluster.words) for cluster in found.clusters]
    assert set(KITCHEN) in words or set(COMPUTER) in words
    assert {case.group for case in found.clusters[0].cases} in ({"kitchen"}, {"computer"})


def test_too_few_errors_or_texts_make_no_clusters(run: Path) -> None:
    finished = read_run(run)
    cases, texts = to_cases(finished), find_texts(finished, None)
    assert find_clusters([case for case in cases if case.kind is Kind.MISS], texts) is None
    assert find_clusters([case for case in cases if case.kind is Kind.FALSE_ALARM], {}) is None
    assert find_triggers(cases, {}, Kind.MISS) == []
    assert "Too few errors with texts" in render(finished, cases, texts)
    assert "Needs the texts: pass --data-dir." in render(finished, cases, {})


def test_trigger_words_are_those_that_errors_have_and_right_answers_lack(run: Path) -> None:
    finished = read_run(run)
    found = find_triggers(to_cases(finished), find_texts(finished, None), Kind.FALSE_ALARM)
    assert {trigger.word for trigger in found} <= {*KITCHEN, *COMPUTER}
    best = found[0]
    assert best.right == 0
    assert best.wrong >= IN_ITEMS
    assert (best.of_wrong, best.of_right) == (80, 80)
    assert best.z > 2


def test_a_run_with_errors_everywhere_has_nothing_that_stands_out(tmp_path: Path) -> None:
    items = [item(n, n % 2 == 0) for n in range(60)]
    even = make_run(tmp_path / "even", (bench(items), lambda one: said(0.9 if int(one.id[5:]) % 3 else 0.1)))
    finished = read_run(even)
    assert NOTHING_STANDS_OUT in render(finished, to_cases(finished), {})


def test_a_wrong_folder_is_an_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(APP, [str(tmp_path / "absent")])
    assert done.exit_code == 2
    assert "there is no folder" in done.output
