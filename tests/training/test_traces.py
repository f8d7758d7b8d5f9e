"""The real command, a real server, and a real kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from labelled import pair_of_texts, row, write
from teacher_server import Answer, TeacherServer, serving
from typer import Typer
from typer.testing import CliRunner, Result

from guardreasoner_moderation.results import Category, Task
from training import traces
from training.data import LabelledInteraction, read_interactions


def answer(body: dict[str, Any], before: int, sentences: int = 1) -> str:
    """What a good teacher writes."""
    shown = json.loads(body["messages"][1]["content"])
    heading = {"request": "Request", "completion": "Completion", "response": "Response"}
    text = ""
    for number, task in enumerate(heading, 1):
        if task in shown["labels"]:
            words = ["It begins so.", "Then comes more.", "That is all there is."][:sentences]
            text += f"# Task {number}\n" + "".join(f"{one}\n" for one in words)
    return f"{text}---\nAnswers:\n" + "".join(f"{heading[task]}: {label}\n" for task, label in shown["labels"].items())


def run(source: Path, server: TeacherServer, *options: object, out: Path | None = None) -> Result:
    app = Typer()
    app.command()(traces.main)
    file = out or source.with_name("out.jsonl")
    arguments = [source, "--server", server.url, "--model", "big", "--sentences", 1, "--out", file, *options]
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def record(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "out.record.json").read_text())
    return content


def traced(folder: Path) -> dict[str, LabelledInteraction]:
    return {item.id: item for item in read_interactions(folder / "out.jsonl")}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    known = {"request": ["One.", "Two."]}
    rows = [row("a"), row("b", request="harmful", category="other"), row("c", reasoning=known), pair_of_texts(id="d")]
    return write(tmp_path / "data.jsonl", rows)


def test_traces_are_written_where_there_are_none(source: Path, tmp_path: Path) -> None:
    with serving(TeacherServer(answer)) as server:
        result = run(source, server, "--price-read", 10, "--price-written", 100)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("3 items to ask about, some ")
    items = traced(tmp_path)
    assert list(items) == ["a", "b", "c", "d"]
    assert items["c"].reasoning[Task.REQUEST] == ("One.", "Two.")
    assert all(item.can_think for item in items.values())
    found = record(tmp_path)
    assert (found["asked_about"], found["good"], found["given_up"], found["open"]) == (3, 3, 0, 0)
    assert (found["tokens_read"], found["tokens_written"]) == (300, 60)
    assert found["cost"] == pytest.approx(300 * 10e-6 + 60 * 100e-6)


def test_all_traces_can_be_written_again(source: Path, tmp_path: Path) -> None:
    with serving(TeacherServer(answer)) as server:
        run(source, server, "--again")
    assert traced(tmp_path)["c"].reasoning[Task.REQUEST] == ("It begins so.",)


def test_long_traces_are_shortened_and_no_others(tmp_path: Path) -> None:
    rows = [row("a", reasoning={"request": ["One.", "Two."]}), row("b", reasoning={"request": ["One."]}), row("c")]
    source = write(tmp_path / "data.jsonl", rows)
    with serving(TeacherServer(answer)) as server:
        run(source, server, "--shorten")
    assert json.loads(server.requests[0]["messages"][1]["content"])["reasoning"] == {"request": ["One.", "Two."]}
    items = traced(tmp_path)
    assert [items[name].reasoning.get(Task.REQUEST) for name in "abc"] == [("It begins so.",), ("One.",), None]


def test_bad_answers_are_asked_for_again_and_counted(source: Path, tmp_path: Path) -> None:
    def reply(body: dict[str, Any], before: int) -> Answer:
        if json.loads(body["messages"][1]["content"])["exchange"]["request"] == "b":
            return "I'm sorry, I can't."
        return ["Bananas.", answer(body, before, sentences=3), answer(body, before)][before]

    with serving(TeacherServer(reply)) as server:
        result = run(source, server, "--attempts", 3, "--concurrency", 2)
    assert result.exit_code == 0, result.output
    assert len(server.requests) == 9
    found = record(tmp_path)
    assert (found["good"], found["given_up"]) == (2, 1)
    assert found["faults"] == {
        "not in the form that was asked for": 2,
        "outside the budget": 2,
        "the teacher refuses": 3,
    }
    assert not traced(tmp_path)["b"].can_think  # left to verdict mode


def test_a_missing_category_is_learned_from_the_teacher(tmp_path: Path) -> None:
    def reply(body: dict[str, Any], before: int) -> Answer:
        return answer(body, before).replace("Request: harmful", "Request: harmful\nCategory: cyberattack")

    with serving(TeacherServer(reply)) as server:
        run(write(tmp_path / "data.jsonl", [row("a", request="harmful")]), server)
    assert traced(tmp_path)["a"].category is Category.CYBERATTACK


def test_a_second_start_asks_nothing_again(source: Path) -> None:
    with serving(TeacherServer(answer)) as server:
        first = run(source, server)
        again = run(source, server)
    assert len(server.requests) == 3
    assert first.output.split("{", 1)[1] == again.output.split("{", 1)[1]


def test_another_budget_is_another_question(source: Path, tmp_path: Path) -> None:
    with serving(TeacherServer(lambda body, before: answer(body, before, sentences=2))) as server:
        run(source, server, "--attempts", 1)
        run(source, server, "--attempts", 1, "--sentences", 2)
    assert len(server.requests) == 6
    assert record(tmp_path)["good"] == 3


def test_another_teacher_does_not_mix_in(source: Path) -> None:
    with serving(TeacherServer(answer)) as server:
        run(source, server)
        result = run(source, server, "--model", "small")
    assert result.exit_code == 2
    assert "was begun with model 'big' (now 'small')" in result.stderr


def test_requests_are_under_way_together(tmp_path: Path) -> None:
    source = write(tmp_path / "data.jsonl", [row(f"question {number}") for number in range(8)])
    with serving(TeacherServer(answer, delay=0.3)) as server:
        run(source, server, "--concurrency", 4)
    assert server.most_at_once == 4


def test_a_rejected_request_is_not_sent_again(source: Path, tmp_path: Path) -> None:
    def reply(body: dict[str, Any], before: int) -> Answer:
        if '"b"' in body["messages"][1]["content"]:
            return 400, {"error": {"message": "content filter", "code": "content_filter"}}
        return answer(body, before)

    with serving(TeacherServer(reply)) as server:
        assert run(source, server).exit_code == 0
        run(source, server)
    assert len(server.requests) == 3
    assert record(tmp_path)["faults"] == {"the server rejects the request": 1}


def test_a_bad_key_ends_the_run(source: Path, tmp_path: Path) -> None:
    with serving(TeacherServer(lambda body, before: (401, {"error": {"message": "bad key"}}))) as server:
        result = run(source, server, "--concurrency", 1)
    assert result.exit_code == 2
    assert "bad key" in result.stderr
    assert len(server.requests) == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_a_bad_key_ends_the_run_and_what_is_answered_meanwhile_is_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "data.jsonl", [row(f"question {number}") for number in range(8)])

    def reply(body: dict[str, Any], before: int) -> Answer:
        if "question 0" in body["messages"][1]["content"]:
            return 401, {"error": {"message": "bad key"}}
        time.sleep(1)
        return answer(body, before)

    with serving(TeacherServer(reply)) as server:
        result = run(source, server, "--concurrency", 4)
        assert result.exit_code == 2
        assert "bad key" in result.stderr
        assert len(server.requests) <= 5
        server.answer = answer
        assert run(source, server).exit_code == 0
    assert record(tmp_path)["good"] == 8


def test_a_server_that_is_gone_ends_the_run_and_what_was_answered_stays(tmp_path: Path) -> None:
    source = write(tmp_path / "data.jsonl", [row(f"question {number}") for number in range(30)])

    def reply(body: dict[str, Any], before: int) -> Answer:
        return answer(body, before) if len(server.requests) <= 5 else (200, {})

    with serving(TeacherServer(reply)) as server:
        result = run(source, server, "--concurrency", 1)
        assert result.exit_code == 2
        assert "does not answer as OpenAI's chat API does" in result.stderr
        assert len(server.requests) == 15
        server.answer = answer
        assert run(source, server).exit_code == 0
        assert len(server.requests) == 40  # 25 that were open
    assert record(tmp_path)["good"] == 30


def test_it_stops_at_a_cost(tmp_path: Path) -> None:
    source = write(tmp_path / "data.jsonl", [row(f"question {number}") for number in range(20)])
    with serving(TeacherServer(answer)) as server:
        prices = ("--price-read", 10_000, "--price-written", 0, "--concurrency", 1)  # an answer costs 1
        run(source, server, *prices, "--max-cost", 3)
        assert len(server.requests) == 3
        assert (record(tmp_path)["good"], record(tmp_path)["open"]) == (3, 17)
        run(source, server, *prices)
    assert record(tmp_path)["open"] == 0


def test_an_estimate_asks_nothing(source: Path, tmp_path: Path) -> None:
    with serving(TeacherServer(answer)) as server:
        result = run(source, server, "--estimate", "--price-read", 1, "--price-written", 2)
    assert re.fullmatch(
        r"3 items to ask about, some [\d,]+ tokens .*: [\d.]+, and at most [\d.]+ in 3 attempts\n", result.output
    )
    assert not server.requests
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-cost", 1), "to stop at a cost, pass --price-read"),
        (("--attempts", 0), "attempts must be at least 1"),
        (("--sentences", 12), "a budget is 1 to 10 sentences"),
        (("--body", "{"), "--body is not JSON"),
        (("--body", "[]"), "--body must be a JSON object"),
        (("--server", "localhost"), "server must be an address"),
    ],
)
def test_bad_options_are_errors(source: Path, options: tuple[object, ...], message: str) -> None:
    with serving(TeacherServer(answer)) as server:
        result = run(source, server, *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_killed_run_loses_no_answer_and_asks_none_twice(tmp_path: Path) -> None:
    source = write(tmp_path / "data.jsonl", [row(f"question {number}") for number in range(12)])
    journal = tmp_path / "out.journal.jsonl"
    with serving(TeacherServer(answer, delay=0.5)) as server:
        command = [sys.executable, "-m", "training.traces", str(source), "--server", server.url, "--model", "big"]
        command += ["--sentences", "1", "--concurrency", "1", "--out", str(tmp_path / "out.jsonl")]
        root = Path(traces.__file__).parents[1]
        process = subprocess.Popen(command, cwd=root, env={**os.environ}, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and not (journal.exists() and journal.read_text().count("\n") > 4):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = journal.read_text().count("\n") - 1
        assert 4 <= kept < 12
        journal.write_text(journal.read_text() + '{"key": "half a li')
        asked = len(server.requests)
        server.delay = 0.0
        assert run(source, server).exit_code == 0
    assert len(server.requests) - asked == 12 - kept
    assert record(tmp_path)["good"] == 12
