"""The code blocks of the project's pages, the commands in them, and whether a command's options exist."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
    "training/README.md",
    "evaluation/README.md",
    "model_cards/README.md",
    "SECURITY.md",
)
SHELL, PYTHON = "sh", "python"
OUTPUT = ("text", "json")
LANGUAGES = (SHELL, PYTHON, *OUTPUT, "yaml", "ini")

HOMES = {"training.data": "training.prepare"}  # where a command's options are declared, if not in its own module
ELSEWHERE = ("cat", "cp", "curl", "echo", "export", "hf", "st", "vllm")  # programs that are not the project's own

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`]+)`")
_OWN = re.compile(r"(python -m (training|evaluation|model_cards|reliability)\.|guardreasoner |scripts/\w+\.sh|make )")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        page: its path from the root.
        line: of its first fence, from 1.
        language: what stands behind the fence.
        text: its content.
        output: of the block that follows at once, if that is an output.
    """

    page: str
    line: int
    language: str
    text: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"

    @property
    def commands(self) -> list[str]:
        """Of a shell block: one or more lines each, as they are written; of Python the whole block."""
        return list(split_commands(self.text)) if self.language == SHELL else [self.text]


def read_blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    blocks = []
    for match, following in zip_longest(found, found[1:]):
        output = None
        if following and following["language"] in OUTPUT and not text[match.end() : following.start()].strip():
            output = following["text"]
        blocks.append(Block(page, text.count("\n", 0, match.start()) + 1, match["language"], match["text"], output))
    return blocks


def split_commands(text: str) -> Iterator[str]:
    """The commands of a shell block: a line each, or more where a quotation or a backslash goes on."""
    waiting = ""
    for line in text.splitlines():
        waiting = f"{waiting}\n{line}" if waiting else line
        try:
            words = shlex.split(waiting, comments=True)
        except ValueError:  # an open quotation, or a backslash at the end
            continue
        if words:
            yield waiting
        waiting = ""
    if waiting:
        raise ValueError(f"an open quotation in {waiting!r}")


def inline_commands(page: str) -> list[str]:
    """The project's own commands that stand in a sentence or a table."""
    text = _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    inline = (" ".join(match[1].split()) for match in _INLINE.finditer(text))
    return [command for command in inline if _OWN.match(command)]


def find_problem(command: str, *, whole: bool = True) -> str | None:
    """What is wrong with a command: a program, module, option, extra or file that there is not. None if all is there.

    Args:
        command: as it is written; several with pipes are looked at one by one.
        whole: whether all its arguments must be there, and of the right kind; a command in a sentence may lack some.
    """
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    while "|" in words:
        place = words.index("|")
        problem = find_problem(shlex.join(words[:place]), whole=whole)
        if problem:
            return problem
        words = words[place + 1 :]
    program, *rest = words
    if program == "pip":
        return _missing_extra(rest)
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return None if rest[0] in targets else f"make has no {rest[0]}"
    if program == "accelerate":
        words = rest[rest.index("-m") :]
        config = ROOT / rest[rest.index("--config_file") + 1]
        return _parse_problem(words[1], words[2:], whole=whole) if config.is_file() else f"there is no {config}"
    if [program, *rest[:1]] == ["python", "-m"]:
        return _parse_problem(rest[1], rest[2:], whole=whole)
    if program == "python" or program.startswith("scripts/"):
        file = rest[0] if program == "python" else program
        return None if (ROOT / file).is_file() else f"there is no {file}"
    if program == "guardreasoner":
        return _parse_problem("guardreasoner_moderation.cli", rest, whole=whole)
    return None if program in ELSEWHERE else f"{program} is no known program"


def _missing_extra(words: Sequence[str]) -> str | None:
    extras = re.search(
        r"\[project.optional-dependencies\]\n(.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.DOTALL
    )
    assert extras is not None
    known = re.findall(r"^(\w+) = \[", extras[1], re.MULTILINE)
    for word in words:
        for named in re.findall(r"^(?:guardreasoner-moderation|\.)\[([\w,]+)\]$", word):
            if unknown := set(named.split(",")) - set(known):
                return f"pyproject.toml has no extra {unknown.pop()}"
    return None


def _parse_problem(module: str, words: Sequence[str], *, whole: bool) -> str | None:
    """What the module's command says of its arguments, without being run."""
    try:
        home = importlib.import_module(HOMES.get(module, module))
    except ModuleNotFoundError:
        return f"there is no module {module}"
    app = getattr(home, "app", None)
    if not isinstance(app, typer.Typer):
        app = typer.Typer()
        app.command()(home.main)
    command: Any = typer.main.get_command(app)
    if hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    elif hasattr(command, "commands") and words and not words[0].startswith("-"):
        return f"{module} has no command {words[0]}"
    if not whole:
        known = {option for one in command.params for option in one.opts} | {"--help"}
        unknown = [word for word in words if re.match(r"--?[a-z]", word) and word not in known]
        return f"{module} has no option {unknown[0]}" if unknown else None
    try:
        command.make_context(module, list(words)).close()
    except Exception as exc:
        if hasattr(exc, "format_message"):  # click's own, of whichever copy of click typer uses
            return f"{module}: {exc.format_message()}"
        raise
    return None
