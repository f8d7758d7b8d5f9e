from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from samples import REPOSITORY, public_data, write_lines
from typer.testing import CliRunner

from evaluation import run
from evaluation.items import Item
from evaluation.judging import shown_progress
from evaluation.loading import Benchmark, HubSource, Loaded
from evaluation.overlap import SeenPrompts
from evaluation.runs import open_run
from guardreasoner_moderation import Moderator
from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import EngineError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import Prompt, PromptFormat
from guardreasoner_moderation.results import Label, Mode, Task

QUIET = Console(file=io.StringIO())


def reply(prompt: Prompt) -> str:
    return " harmful\nCategory: other" if "bad" in prompt.text else " unharmful"


def guard(write: Callable[[Prompt], str] = reply) -> Moderator:
    return Moderator.from_engine(ScriptedEngine(write), ModelSpec(prompt_format=PromptFormat.COMPACT))


def mini(name: str = "Mini", count: int = 40, *, table3: bool = False) -> Loaded:
    """Every third item is harmful; every tenth, which looks bad, is a trap for the scripted guard."""
    items = tuple(
        Item(
            f"{name}/{n}",
            Interaction(f"{'a bad' if n % 3 == 0 or n % 10 == 1 else 'a good'} request, number {n}" + " again" * n),
            Label.HARMFUL if n % 3 == 0 else Label.UNHARMFUL,
        )
        for n in range(count)
    )
    benchmark = Benchmark(name, Task.REQUEST, count, "CC0", adversarial=False, hub=HubSource(""), table3=table3)
    return Loaded(benchmark, items, "made up")


def evaluate(out: Path, *loaded: Loaded, by: Moderator | None = None, **options: Any) -> dict[str, Any]:
    by = by or guard()
    mode = options.pop("mode", Mode.VERDICT)
    identity = run.identify(by, mode, options.get("limit"), options.get("seed", 0), {})
    with open_run(out, identity) as folder:
        run.evaluate(by, loaded, folder, mode=mode, resamples=50, console=QUIET, **options)
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def saved(out: Path, name: str = "Mini.verdict") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions" / f"{name}.jsonl").read_text().splitlines()]


def test_results_say_all_that_a_reader_must_know(tmp_path: Path) -> None:
    results = evaluate(tmp_path, mini(table3=True), seen=SeenPrompts(["a bad request, number 0"]))
    row = results["benchmarks"]["Mini"]
    assert results["model"] == {"name": "custom", "sha256": None, "engine": "scripted"}
    assert (results["mode"], results["scorer"], results["sample"]) == ("verdict", "strict", None)
    assert results["versions"]["python"] == sys.version.split()[0]
    assert " x " in results["hardware"]
    assert results["seconds"] >= 0
    assert (row["n"], row["positives"], row["unjudged"], row["trained_on"]) == (40, 14, 0, False)
    assert row["overlap"] == {"exact": 1, "near": 0}
    # 14 harmful ones found; of 1, 11, 21 and 31 the one number 21 is harmful, so 3 false alarms.
    assert row["metrics"]["f1"][0] == pytest.approx(28 / 31, abs=1e-6)
    assert row["metrics"]["false_positive_rate"][0] == pytest.approx(3 / 26, abs=1e-6)
    assert row["metrics"]["auprc"][0] is not None
    assert results["averages"]["request"]["benchmarks"] == ["Mini"]
    assert results["averages"]["request"]["metrics"]["f1"][0] == row["metrics"]["f1"][0]


def test_every_item_is_saved_once_without_its_text(tmp_path: Path) -> None:
    evaluate(tmp_path, mini(), chunk=7)
    rows = saved(tmp_path)
    assert sorted(row["id"] for row in rows) == sorted(item.id for item in mini().items)
    assert rows[0]["result"]["usage"]["prompt_tokens"] > 0
    assert "request, number" not in (tmp_path / "predictions" / "Mini.verdict.jsonl").read_text()
    evaluate(tmp_path / "kept", mini(), keep_text=True)
    assert "request, number" in (tmp_path / "kept" / "predictions" / "Mini.verdict.jsonl").read_text()


def test_samples_are_judged_and_named(tmp_path: Path) -> None:
    results = evaluate(tmp_path, mini(), limit=10, seed=3)
    assert results["sample"] == {"limit": 10, "seed": 3}
    assert (results["benchmarks"]["Mini"]["n"], results["benchmarks"]["Mini"]["available"]) == (10, 40)
    assert len(saved(tmp_path)) == 10


def test_think_mode_keeps_the_reasoning(tmp_path: Path) -> None:
    def think(prompt: Prompt) -> str:
        return "\nIt is about nothing much.\n---\nAnswers:\nRequest: unharmful"

    evaluate(tmp_path, mini(count=3), by=guard(think), mode=Mode.THINK)
    assert saved(tmp_path, "Mini.think")[0]["result"]["request"]["reasoning"] == ["It is about nothing much."]


def test_benchmarks_can_be_added_to_a_run(tmp_path: Path) -> None:
    evaluate(tmp_path, mini("One"))
    judged: list[str] = []

    def counting(prompt: Prompt) -> str:
        judged.append(prompt.text)
        return reply(prompt)

    results = evaluate(tmp_path, mini("One"), mini("Two", 5), by=guard(counting))
    assert list(results["benchmarks"]) == ["One", "Two"]
    assert len(judged) == 5


def test_a_failing_engine_leaves_items_unjudged_and_is_shown(tmp_path: Path) -> None:
    def failing(prompt: Prompt) -> str:
        if "number 3 " in prompt.text:
            raise EngineError("out of order")
        return reply(prompt)

    out = io.StringIO()
    by = guard(failing)
    with open_run(tmp_path, run.identify(by, "verdict", None, 0, {})) as folder:
        run.evaluate(by, [mini(count=6)], folder, mode=Mode.VERDICT, resamples=20, console=Console(file=out, width=200))
    assert "Mini: 1 items were not judged, the first because: out of order" in out.getvalue()
    assert json.loads((tmp_path / "results.json").read_text())["benchmarks"]["Mini"]["unjudged"] == 1


def test_a_run_with_another_calibration_is_another_run() -> None:
    by = guard()
    other = Moderator.from_engine(by.model.engine, replace(by.model.spec, auto_bounds=(0.1, 0.9)))
    identities = [run.identify(one, "verdict", None, 0, {}) for one in (by, guard(), other)]
    assert identities[0] == identities[1]
    assert {key for key in identities[0] if identities[0][key] != identities[2][key]} == {"moderation.json"}


SLOW_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_run

def slow(prompt):
    time.sleep(0.02)
    return test_run.reply(prompt)

test_run.evaluate(Path({out!r}), test_run.mini(), by=test_run.guard(slow), chunk=3)
"""


def test_a_killed_run_goes_on_and_judges_no_item_twice(tmp_path: Path) -> None:
    out = tmp_path / "killed"
    script = SLOW_RUN.format(tests=str(Path(__file__).parent), out=str(out))
    file = out / "predictions" / "Mini.verdict.jsonl"
    with subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY) as process:
        deadline = time.monotonic() + 120
        while not (file.exists() and file.read_bytes().count(b"\n") >= 6) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = file.read_bytes().count(b"\n")
    assert 6 <= before < 40
    assert not (out / "results.json").exists()
    with file.open("ab") as stream:  # as a kill within a write leaves it
        stream.write(b'{"id": "Mini/0", "dig')

    judged: list[str] = []

    def counting(prompt: Prompt) -> str:
        judged.append(prompt.text)
        return reply(prompt)

    results = evaluate(out, mini(), by=guard(counting))
    assert len(judged) == 40 - before
    assert set(Counter(row["id"] for row in saved(out)).values()) == {1}
    assert len(saved(out)) == 40
    whole = evaluate(tmp_path / "whole", mini())
    assert results["benchmarks"]["Mini"]["metrics"] == whole["benchmarks"]["Mini"]["metrics"]


def test_progress_is_a_line_now_and_then_in_a_log() -> None:
    out = io.StringIO()
    with shown_progress(100, Console(file=out)) as advance:
        advance("Mini", 2, 10, 20, earlier=True)
        advance("Mini", 6, 10, 40)
        advance("Mini", 10, 10, 40)
    assert out.getvalue() == "Mini 10/10, 0 minutes left in all\n"


def test_progress_is_a_bar_in_a_terminal() -> None:
    out = io.StringIO()
    with shown_progress(100, Console(file=out, force_terminal=True, width=80)) as advance:
        advance("Mini", 2, 10, 20, earlier=True)
        advance("Mini", 10, 10, 80)
    assert "Mini 10/10" in out.getvalue()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the command line with a scripted guard."""
    monkeypatch.setattr(run.Moderator, "from_pretrained", lambda *names, **options: guard())
    app = typer.Typer()
    app.command()(run.main)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


ROWS = [{"prompt": "a bad one", "label": "harmful"}, {"prompt": "a good one", "label": "unharmful"}] * 3


def test_command_judges_a_file_and_tunes_a_threshold(tmp_path: Path, command: Callable[..., Any]) -> None:
    file = write_lines(tmp_path / "mine.jsonl", ROWS)
    words = ("--file", file, "--out", tmp_path / "run", "--tune-threshold", "recall=1", "--resamples", 20)
    result = command(*words)
    assert result.exit_code == 0, result.output
    assert "mine" in result.output
    assert "threshold of request for recall=1" in result.output
    thresholds = tmp_path / "run" / "thresholds.json"
    assert json.loads(thresholds.read_text())["request"] == pytest.approx(0.5)
    assert command("--file", file, "--out", tmp_path / "again", "--thresholds", thresholds).exit_code == 0
    mixed = command("--file", file, "--out", tmp_path / "run", "--mode", "think")
    assert mixed.exit_code == 2
    assert "holds a run with another mode: 'verdict' there, 'think' here" in mixed.output


def test_command_takes_all_files_of_a_folder(tmp_path: Path, command: Callable[..., Any]) -> None:
    data = tmp_path / "data" / "benchmarks"
    data.mkdir(parents=True)
    text = "Human user:\na bad one\n\nAI assistant:\nNone\n\n"
    rows = [{"instruction": "", "input": text, "output": "harmful"}] * 3
    for name in ("0_0_SimpleSafetyTests", "0_3_harmbench_prompt"):
        (data / f"{name}.json").write_text(json.dumps(rows))
    words = ("--data-dir", tmp_path / "data", "--out", tmp_path / "run", "--resamples", 20)
    assert command(*words, "--benchmarks", "HarmBenchPrompt").exit_code == 0
    # What was finished stays in the results when another benchmark is asked for, or all.
    for benchmarks in ("SimpleSafetyTests", "all"):
        result = command(*words, "--benchmarks", benchmarks)
        assert result.exit_code == 0, result.output
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        shipped = {"Borderline"} if benchmarks == "all" else set()
        assert set(results["benchmarks"]) == {"HarmBenchPrompt", "SimpleSafetyTests"} | shipped
        assert results["benchmarks"]["SimpleSafetyTests"]["metrics"]["recall"][0] == 1
    assert "note: SimpleSafetyTests has 3 items in 0_0_SimpleSafetyTests.json, 100 were published" in result.output
    assert "name them to load them from the Hub: ToxicChat" in result.output


def test_command_scores_saved_outputs(tmp_path: Path, command: Callable[..., Any]) -> None:
    rows = [{"prompt": "p", "label": "refusal", "predict": "Answers:\nCompletion: refusal"}]
    file = write_lines(tmp_path / "XSTestResponseRefusal.jsonl", rows)
    for _ in range(2):
        result = command("--generations", file, "--out", tmp_path / "run", "--resamples", 20)
        assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "run" / "results.json").read_text())["benchmarks"]["XSTestResponseRefusal"]
    assert (row["metrics"]["f1"][0], row["upstream"]["metrics"]["f1"][0]) == (1, 1)
    assert len(saved(tmp_path / "run", "XSTestResponseRefusal.generations")) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmarks", "ToxicChta"], "unknown benchmark 'ToxicChta'; did you mean 'ToxicChat'?"),
        (["--benchmarks", "all"], "pass --data-dir, or name the benchmarks"),
        (["--benchmarks", "all", "--data-dir", "empty"], "empty holds no benchmark file"),
        (["--mode", "thnk", "--benchmarks", "XSTest"], "unknown mode 'thnk'; did you mean 'think'?"),
        (["--file", "gone.csv"], "gone.csv cannot be read"),
        (["--tune-threshold", "fpr=2"], "the target fpr must be a number from 0 to 1"),
        (["--benchmarks", "HarmBenchPrompt"], "take 0_3_harmbench_prompt.json from"),
        (["--generations", "gone.jsonl", "--benchmarks", "XSTest"], "gone.jsonl cannot be read"),
    ],
)
def test_mistakes_end_with_a_sentence(
    tmp_path: Path, command: Callable[..., Any], words: list[str], message: str
) -> None:
    result = command(*words, "--out", tmp_path)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_the_authors_outputs_score_alike_here(tmp_path: Path, command: Callable[..., Any]) -> None:
    file = public_data() / "generations" / "3B" / "XSTestResponseRefusal.jsonl"
    assert command("--generations", file, "--out", tmp_path, "--resamples", 20).exit_code == 0
    row = json.loads((tmp_path / "results.json").read_text())["benchmarks"]["XSTestResponseRefusal"]
    assert 100 * row["upstream"]["metrics"]["f1"][0] == pytest.approx(80.61, abs=0.005)
    assert row["unjudged"] == 1
