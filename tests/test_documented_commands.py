"""The commands and snippets of all pages, run for real in a copy of the checkout, with the embedded model.

A page's blocks are run in order: shell commands by bash, each with the files that it names (``documented_files.py``),
Python blocks in one namespace. What cannot be run here stands in :data:`NOT_RUN` with its reason; of that, and of the
commands that stand within sentences, programs, modules, options and extras are checked. What a page shows right after a
command must be what comes out: to the letter, or, where scores are in it, the same labels and nearly the same scores,
since processors round differently.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from documented import LANGUAGES, PAGES, PYTHON, ROOT, SHELL, Block, find_problem, inline_commands, read_blocks
from documented_files import write_files
from rich.console import Console

from evaluation.run import score_generations
from guardreasoner_moderation import Moderator, weights

NETWORK = "installs from the package index"
HUB = "loads from the Hub, or sends to it"
GPU = "needs a GPU, or a server on one"
RAY = "needs Ray, which the extra dev leaves out"
LONG = "trains or measures for minutes or hours"
PEOPLE = "reads what people or other models have written"
SERVED = "serves until Ctrl-C; the tests below start it"

NOT_RUN: Mapping[str, str] = {
    # A command or Python block that begins like this, and why it is not run here.
    "pip install": NETWORK,
    "make ": "makes an environment from the package index; examples/demo.py and the tests are run without it",
    "guardreasoner demo --open": f"opens a browser and {SERVED}",
    "guardreasoner serve": SERVED,
    'guard = Moderator.from_pretrained("<user>/': f"{HUB}; {GPU}",
    "vllm serve": GPU,
    "guardreasoner batch traffic.jsonl judged.jsonl --model guard --server": GPU,
    "guardreasoner batch IN OUT --engine ray": RAY,
    "st run": "schemathesis is no dependency",
    "python -m evaluation.run --model zero-shot": f"{LONG}; tests/evaluation/test_zero_shot.py asks the model",
    "python -m evaluation.speed": LONG,
    "python -m evaluation.upstream": PEOPLE,
    "python -m evaluation.review": PEOPLE,
    "python -m training.data GuardReasonerTrain": HUB,
    "python -m training.traces": "needs a teacher; tests/training/test_traces.py has one",
    "python -m training.hard_samples": "writes long; tests/training/test_hard_samples.py has a model",
    "python -m training.rsft": LONG,
    "python -m training.calibrate": LONG,
    "cp runs/embedded/adapter/": "takes what training has made",
    "python -m training.trl_sft": GPU,
    "accelerate launch": GPU,
    "python -m training.hs_dpo": LONG,
    "python -m training.ablations": LONG,
    "python -m model_cards.release runs/mine --repo-id you/guard --space": HUB,
    "python -m model_cards.release RUN --repo-id owner/name --space": HUB,
    "scripts/reproduce_embedded.sh DATA BENCHMARKS runs/new": LONG,
    "scripts/render_pages.sh runs/new": "tests/model_cards/test_scripts.py runs it",
    "scripts/reproduce_llama32_3b.sh BENCHMARKS LICENSE.txt": GPU,
}
RUN_ELSEWHERE = {"docs/migrating.md": "tests/test_migrating.py"}
"""Pages with a test of their own, which runs all of their blocks."""

RETURNS = {"guardreasoner classify": (0, 1), "python -m evaluation.decide": (0, 1, 3)}
"""Exit codes that tell a verdict, by the beginning of the command; of all others 0 alone is right."""

SCORE = re.compile(
    r"""^(\w+): (\w+) \(score ([\d.]+)\)|"label": ?"(\w+)", ?"score": ?([\d.]+)|judged (\w+) .*?, score ([\d.]+)""",
    re.MULTILINE,
)
TOLERANCE = 0.1
"""By how much a score may differ from the page's."""


def reason_not_to_run(command: str) -> str | None:
    """Why a command is not run; a dry run always is."""
    if "--dry-run" in command:
        return None
    return next((reason for start, reason in NOT_RUN.items() if command.startswith(start)), None)


ALL_BLOCKS = [block for page in PAGES for block in read_blocks(page)]
RUNNABLE = [block for block in ALL_BLOCKS if block.language in (SHELL, PYTHON) and block.page not in RUN_ELSEWHERE]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the checkout with the files that the pages name, as the working directory of all that runs."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    hidden = shutil.ignore_patterns(".*", "__pycache__", "tests", "runs")
    for name in sorted(os.listdir(ROOT)):
        if name in hidden(str(ROOT), [name]):
            continue
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=hidden)
        else:
            shutil.copy(ROOT / name, copy / name)
    write_files(copy)
    own = copy / "evaluation" / "own" / "borderline.jsonl"  # part of --benchmarks all, and long to judge
    own.write_text("".join(own.read_text(encoding="utf-8").splitlines(keepends=True)[::15]), encoding="utf-8")
    monkeypatch.setenv("GUARDREASONER_BASE", str(weights.base_file("smollm2-135m")))
    monkeypatch.setenv("PYTHONPATH", str(copy))
    monkeypatch.setenv("PATH", os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    monkeypatch.chdir(copy)
    return copy


@contextlib.contextmanager
def started(module: str, *words: str, ready: str, **environment: str) -> Iterator[str]:
    """Starts a server on a free port and gives its host and port; ``ready`` is a path that answers when it is up."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", module, *words, "--port", port]
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=silent, stderr=silent, env={**os.environ, **environment}) as process:
        try:
            for _ in range(600):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5).close()
                    break
                assert process.poll() is None, f"{command} ended"
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def run_block(block: Block, names: dict[str, Any], servers: Mapping[str, str]) -> None:
    """Runs what can be run of a block, and compares what the page shows of it."""
    said = ""
    ran = False
    for command in block.commands:
        if reason_not_to_run(command):
            continue
        ran = True
        text = command
        for place, address in servers.items():
            text = text.replace(place, address)
        if block.language == PYTHON:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, str(block), "exec"), names)
            said += out.getvalue()
            continue
        done = subprocess.run(
            ["bash", "-c", text], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        allowed = next((codes for start, codes in RETURNS.items() if start in command), (0,))
        assert done.returncode in allowed, (
            f"{block}: {command}\nexit code {done.returncode}\n{done.stdout}{done.stderr}"
        )
        said += done.stdout
    if ran and block.output is not None:
        compare(block, said)


def compare(block: Block, said: str) -> None:
    """Fails unless the page shows what was printed; three dots stand for what it leaves out."""
    expected = block.output or ""
    shown, printed = ([tuple(filter(None, found)) for found in SCORE.findall(text)] for text in (expected, said))
    if not shown:
        pattern = ".*".join(map(re.escape, expected.strip().split("...")))
        assert re.fullmatch(pattern, said.strip(), re.DOTALL), f"{block}: printed was\n{said}"
        return
    if "..." in expected:
        printed = printed[: len(shown)]
    assert [found[:-1] for found in printed] == [found[:-1] for found in shown], f"{block}: printed was\n{said}"
    for before, after in zip(shown, printed, strict=True):
        assert abs(float(before[-1]) - float(after[-1])) <= TOLERANCE, f"{block}: printed was\n{said}"


def run_page(page: str, names: dict[str, Any], servers: Mapping[str, str]) -> None:
    """Runs the blocks of a page in order."""
    try:
        for block in RUNNABLE:
            if block.page == page:
                run_block(block, names, servers)
    finally:
        opened = [value for value in names.values() if hasattr(value, "close") and not isinstance(value, type)]
        for value in {id(value): value for value in opened}.values():
            value.close()


OWN_TESTS = ("docs/demo.md", "docs/streaming.md")
OTHERS = sorted({block.page for block in RUNNABLE} - set(OWN_TESTS))
WITH_SERVER = ("docs/server.md", "docs/choosing-a-threshold.md")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Host and port of ``guardreasoner serve``."""
    base = {"GUARDREASONER_BASE": str(weights.base_file("smollm2-135m")), "PYTHONPATH": str(ROOT)}
    # A machine that is busy with other things may need more than the default patience of a minute.
    with started("guardreasoner_moderation.cli", "serve", "--timeout", "600", ready="/readyz", **base) as address:
        yield address


@pytest.mark.parametrize("page", OTHERS)
@pytest.mark.usefixtures("folder")
def test_what_a_page_says_works(page: str, request: pytest.FixtureRequest) -> None:
    run_page(page, {}, {"localhost:8000": request.getfixturevalue("server")} if page in WITH_SERVER else {})


def test_what_the_page_on_the_demo_says_works(folder: Path) -> None:
    pytest.importorskip("gradio")
    for run in ("verdict", "think"):  # which the page's last command draws
        saved, silent = folder / "saved.jsonl", Console(quiet=True)
        score_generations(
            saved, "XSTestResponseRefusal", folder / "runs" / run, keep_text=False, resamples=20, console=silent
        )
    with started("guardreasoner_moderation.cli", "demo", ready="/") as address:
        run_page("docs/demo.md", {}, {"127.0.0.1:7860": address})


@pytest.mark.usefixtures("folder")
def test_what_the_page_on_streaming_says_works() -> None:
    shown: list[str] = []
    names = {"question": "How do I bake bread?", "client": chatbot("Mix flour and water. ", "Bake it.")}
    run_page("docs/streaming.md", {**names, "send": shown.append}, {})
    assert "".join(shown) == "Mix flour and water. Bake it."


def chatbot(*chunks: str) -> SimpleNamespace:
    """A client of OpenAI's whose chat model answers with these chunks."""
    pieces = [SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=chunk))]) for chunk in chunks]
    completions = SimpleNamespace(create=lambda **_: contextlib.nullcontext(pieces))
    return SimpleNamespace(chat=SimpleNamespace(completions=completions))


@pytest.mark.usefixtures("folder")
def test_the_readmes_demo_prints_what_it_shows() -> None:
    (shown,) = [block.text for block in read_blocks("README.md") if "think mode" in block.text]
    done = subprocess.run([sys.executable, "examples/demo.py"], capture_output=True, text=True, check=True)
    row = re.compile(r"^(Request|Completion|Response) +(\w+) +\S+ +([\d.]+)$", re.MULTILINE)
    before, after = row.findall(shown), row.findall(done.stdout)
    assert [found[:2] for found in after] == [found[:2] for found in before], done.stdout
    assert all(abs(float(a[2]) - float(b[2])) <= TOLERANCE for a, b in zip(before, after, strict=True)), done.stdout


def test_every_block_says_what_it_is() -> None:
    assert [str(block) for block in ALL_BLOCKS if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", PAGES)
def test_code_stands_between_fences(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"\n\n    \S.*", text) == []


@pytest.mark.parametrize("page", sorted({block.page for block in ALL_BLOCKS if block.language == SHELL}))
def test_every_command_has_its_program_and_options(page: str) -> None:
    blocks = [block for block in ALL_BLOCKS if block.page == page and block.language == SHELL]
    problems = [f"{block}: {problem}" for block in blocks for one in block.commands if (problem := find_problem(one))]
    assert problems == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_sentences_exist(page: str) -> None:
    found = [problem for command in inline_commands(page) if (problem := find_problem(command, whole=False))]
    assert found == []


def test_snippets_that_are_not_run_pass_arguments_that_there_are() -> None:
    snippets = [block.text for block in RUNNABLE if block.language == PYTHON and reason_not_to_run(block.text)]
    calls = [node for text in snippets for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    assert {ast.unparse(call.func) for call in calls} == {"Moderator.from_pretrained"}
    known = inspect.signature(Moderator.from_pretrained).parameters
    assert {word.arg for call in calls for word in call.keywords} <= set(known)


def test_every_reason_not_to_run_is_needed() -> None:
    commands = [command for block in RUNNABLE for command in block.commands]
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in commands)] == []
    assert all(Path(page).name in (ROOT / test).read_text(encoding="utf-8") for page, test in RUN_ELSEWHERE.items())


def test_most_of_what_the_pages_say_is_run() -> None:
    commands = [command for block in RUNNABLE for command in block.commands]
    assert sum(reason_not_to_run(command) is None for command in commands) >= len(commands) / 2


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("python -m evaluation.run --out x --mod think", "No such option"),
        ("python -m evaluation.runs2 --out x", "there is no module"),
        ("python -m evaluation.errors", "Missing argument"),
        ("guardreasoner clasify 'x'", "has no command clasify"),
        ("echo x | guardreasoner classify --limit 3", "No such option"),
        ("python -m training.hard_samples sample DATA --k four --out x", "Invalid value for '--k'"),
        ("pip install '.[demos]'", "no extra demos"),
        ("make everything", "make has no everything"),
        ("scripts/none.sh", "there is no scripts/none.sh"),
        ("somebodys-tool --x", "no known program"),
    ],
)
def test_wrong_commands_are_noticed(command: str, problem: str) -> None:
    assert problem in (find_problem(command) or "")
