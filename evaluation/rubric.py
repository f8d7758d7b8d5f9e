"""What raters are asked: criteria with their answers, read from a text that people and models get alike."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from guardreasoner_moderation.errors import InputError

RUBRIC = Path(__file__).with_name("rubrics") / "reasoning.md"


@dataclass(frozen=True, slots=True)
class Criterion:
    """One question.

    Attributes:
        name: one word, by which answers are saved.
        question: as it is put.
        answers: from an answer to what it means, best first.
    """

    name: str
    question: str
    answers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Rubric:
    """A title, what to do, and the criteria. ``digest`` tells ratings of different rubrics apart."""

    title: str
    introduction: str
    criteria: tuple[Criterion, ...]
    text: str

    @property
    def digest(self) -> str:
        """Short hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


def read_rubric(file: Path = RUBRIC) -> Rubric:
    """Reads a rubric: ``# title``, what to do, and for each criterion ``## name: question`` and ``- answer: meaning``.

    Raises:
        InputError: the file cannot be read, or something is missing or there twice.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as exc:
        raise InputError(f"{file} cannot be read: {exc.strerror}") from exc
    head, *parts = re.split(r"^## ", text, flags=re.MULTILINE)
    title, _, introduction = head.strip().partition("\n")
    if not title.startswith("# ") or not parts:
        raise InputError(f"{file}: expected '# title' and then '## name: question' for each criterion")
    criteria = []
    for part in parts:
        heading, _, rest = part.partition("\n")
        name, colon, question = heading.partition(":")
        answers = dict(re.findall(r"^- (\w+): (.+)$", rest, flags=re.MULTILINE))
        if not colon or not re.fullmatch(r"\w+", name.strip()) or len(answers) < 2:
            raise InputError(f"{file}: the criterion {heading!r} needs a name, a question and two answers or more")
        criteria.append(Criterion(name.strip(), question.strip(), answers))
    names = [criterion.name for criterion in criteria]
    if len(set(names)) < len(names):
        raise InputError(f"{file}: a criterion is there twice: {', '.join(names)}")
    return Rubric(title.removeprefix("# "), " ".join(introduction.split()), tuple(criteria), text)
