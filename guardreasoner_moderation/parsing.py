"""The one place that turns generated text into steps and answers.

Both formats are read by the same rules, line by line and in one pass:

* ``# Task 2`` begins a task, and reasoning before any such heading is about the request. ``## Reasoning Step 1`` or
  ``## Step 1`` begins a step that runs to the next heading; without such headings each line is a step (``compact``).
  A step is one line of text: its lines are joined by spaces and lose their bullets. Plain text before the first
  heading belongs to no task (given a raw prompt, some models first write the assistant's response to its end).
* ``## Conclusion``, ``# Task 2 Conclusion``, ``# Conclusion for Task 2`` and ``# Task 2: refusal`` conclude a task. A
  step that follows a conclusion without a task heading is about the next task.
* ``Request: harmful`` and its like are answer lines. They count in an ``Answers:`` block, in a conclusion, and without
  any heading when no more reasoning follows before the next heading: in the midst of reasoning they are a quotation.
* The last readable answer to a task wins. ``None``, or a line that is cut off or not a label of its task, says nothing,
  so it leaves an earlier answer line of the task as it is.
* A conclusion's sentence answers too, until an answer line of its task follows, if it states exactly one label of its
  task and neither negates nor hedges. Reasoning is never searched for labels.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from guardreasoner_moderation.results import LABELS, Label, Task

_TASKS: Mapping[str, Task] = {str(number): task for number, task in enumerate(Task, 1)}
_NEXT: Mapping[Task | None, Task] = {Task.REQUEST: Task.COMPLETION, Task.COMPLETION: Task.RESPONSE}

# These are matched at the start of a line, and none can fail after two repeats that share characters: whatever a model
# writes, the time is linear. ASCII, because other letters equal these when case is ignored ("ı", "ſ").
_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL
_RULE = re.compile(r"[-*_]{3,}\s*$")
_HEADING = re.compile(
    r"""(?: task\s+(?P<task>[0-9]{1,3})\b (?: [\s:*_-]*(?P<concluded>conclusion)\b )?
          | (?:reasoning\s+)?(?P<step>step)\s+[0-9]{1,3}\b
          | (?P<conclusion>conclusion)\b (?: \s+for\s+(?: task\s+(?P<of>[0-9]{1,3})\b | the\s+[a-z]+ ) )?
        ) [\s:.)*_-]* (?P<text>.*)""",
    _FLAGS | re.VERBOSE,
)
_ANSWERS = re.compile(r"(?:final\s+)?answers?[\s*_]*(?::[\s*_]*|$)(?P<text>.*)", _FLAGS)
_ANSWER = re.compile(
    r"(?:[0-9]{1,2}[.)]\s*)?(?P<name>request|category|completion|response)[\s*_`\"']*:(?P<word>.*)", _FLAGS
)
_QUOTES = string.whitespace + "\u00a0*`\"'“”‘’.,;:"  # what may surround a category word
_EDGES = _QUOTES + "_!()[]{}<>-"  # what may surround a label
_NO_CATEGORY = ("", "none", "null", "n/a", "-")

_BARE_CONCLUSIONS = (*Label, "none")  # "# Task 1: harmful"

# What a conclusion's sentence must and must not say.
_LABEL = re.compile(r"\b(?:harmful|unharmful|refusal|compliance)\b")
_STATED = re.compile(
    r"(?:^|\b(?:is|as)\s)(?:(?:a|an|as|in|clear|clearly|considered|classified|deemed|therefore|thus)\s){,4}"
    r"(harmful|unharmful|refusal|compliance)\b"
)
_DOUBT = re.compile(r"\b(?:not|no|non|never|neither|nor|none|cannot|whether|if|or|unless)\b|n['’]t\b")
_SUBJECT = re.compile(r"\b(?:request|completion|response)\b")


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """What a model wrote.

    Attributes:
        steps: the reasoning steps of each task, in order; a task without any is absent.
        conclusions: the text of a task's own conclusion, where it has one; of several the last.
        answers: the label of each task; a task answered with None, unreadably or not at all is absent.
        category: the word of the ``Category:`` line beside the request's answer, in lower case; None without one.
        complete: whether an answer block (not just a conclusion) holds a label that could be read.
    """

    steps: Mapping[Task, tuple[str, ...]]
    conclusions: Mapping[Task, str]
    answers: Mapping[Task, Label]
    category: str | None
    complete: bool


def parse_output(text: str) -> ParsedOutput:
    """Reads steps, conclusions and answers from generated text, in time linear in its length.

    Args:
        text: what the model wrote, with the opening that was written for it, if any, put before it. Never the prompt.

    Any text can be read; what it does not say is absent from the result, and nothing is raised.
    """
    reader = _Reader()
    for line in text.split("\n"):
        reader.read(line.strip())
    return reader.result()


class _Place(Enum):
    """What plain text means where it stands."""

    PREAMBLE = auto()
    STEPS = auto()
    CONCLUSION = auto()
    ANSWERS = auto()


@dataclass(slots=True)
class _Statement:
    """An answer block or a conclusion, as (name, word) of its answer lines and as text."""

    is_block: bool = True
    task: Task | None = None  # which a conclusion concludes; None for a task that does not exist
    answers: list[tuple[str, str]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)


class _Reader:
    """The state between two lines."""

    def __init__(self) -> None:
        self.place = _Place.PREAMBLE
        self.task: Task | None = Task.REQUEST  # None after the heading of a task that does not exist
        self.concluded = False  # the next step, if no task heading comes first, is about the next task
        self.headed = False  # the open step began with a heading, so plain lines continue it
        self.steps: dict[Task | None, list[list[str]]] = {task: [] for task in (*Task, None)}
        self.statements: list[_Statement] = []
        self.held: _Statement | None = None  # a block without heading, as long as it may be a quotation

    def read(self, line: str) -> None:
        if not line:
            return
        bare = line.lstrip("#*_>`•- \t")
        if not bare:
            if _RULE.match(line):
                self.begin(_Place.ANSWERS, _Statement())
        elif line.startswith(("#", "**", "__")) and (heading := _HEADING.match(bare)):
            self.read_heading(heading)
        elif (block := _ANSWERS.match(bare)) and (not block["text"] or _ANSWER.match(block["text"])):
            self.begin(_Place.ANSWERS, _Statement())
            self.read(block["text"])
        elif not ((answer := _ANSWER.match(bare)) and self.read_answer(answer, line)):
            self.read_text(line, bare)

    def read_heading(self, heading: re.Match[str]) -> None:
        text = heading["text"].strip()
        if text.count("**") % 2:  # the end of a bold heading
            text = text.removesuffix("**")
        if heading["step"]:
            self.begin_step(text)
            return
        if number := heading["task"] or heading["of"]:
            self.task, self.concluded = _TASKS.get(number), False
        if heading["concluded"] or heading["conclusion"] or text.strip(_EDGES).lower() in _BARE_CONCLUSIONS:
            self.begin(_Place.CONCLUSION, _Statement(False, self.task, text=[text]))
            self.concluded = bool(self.steps[self.task])
        else:
            self.begin(_Place.STEPS)

    def read_answer(self, answer: re.Match[str], line: str) -> bool:
        """Takes an answer line; False when it is ordinary text."""
        name = answer["name"].lower()
        word = answer["word"].strip(_QUOTES if name == "category" else _EDGES).lower()
        statement = self.held
        if self.place in (_Place.CONCLUSION, _Place.ANSWERS):
            statement = self.statements[-1]
        elif statement is None:
            if name == "category" or " " in word:
                return False
            statement = self.held = _Statement()
        statement.answers.append((name, word))
        statement.text.append(line)
        if self.held is None:
            self.conclude(statement)
        return True

    def read_text(self, line: str, bare: str) -> None:
        if self.held is not None:  # more reasoning follows, so its lines were quoted
            quoted, self.held = self.held.text, None
            for text in quoted:
                self.read_text(text, "")
        if self.place is _Place.CONCLUSION:
            self.statements[-1].text.append(_unbulleted(line))
        elif self.place is _Place.STEPS:
            if bare and line[0] == "#":  # a heading of the model's own
                self.begin_step(bare)
            elif self.headed:
                self.steps[self.task][-1].append(_unbulleted(line))
            else:
                self.steps[self.task].append([_unbulleted(line)])

    def begin(self, place: _Place, statement: _Statement | None = None) -> None:
        """Ends what was open. A held block is an answer after all, for no reasoning came after it."""
        if self.held is not None:
            self.statements.append(self.held)
            self.held = None
        if statement is not None:
            self.statements.append(statement)
        self.place, self.headed = place, False

    def begin_step(self, text: str) -> None:
        if self.held is not None:
            self.conclude(self.held)
            self.held = None
        if self.concluded:
            self.task, self.concluded = _NEXT.get(self.task, self.task), False
        self.begin(_Place.STEPS)
        self.headed = True
        self.steps[self.task].append([text])

    def conclude(self, block: _Statement) -> None:
        """An answer line ends its task, if that has been reasoned about."""
        name = block.answers[-1][0]
        if name != "category" and self.steps[Task(name)]:
            self.task, self.concluded = Task(name), True

    def result(self) -> ParsedOutput:
        self.begin(_Place.ANSWERS)
        conclusions: dict[Task, str] = {}
        answers: dict[Task, Label] = {}
        stated: set[Task] = set()  # the tasks whose answer is only a conclusion's sentence
        category, complete = None, False
        for statement in self.statements:
            words = dict(statement.answers)
            for name, word in statement.answers:
                if name == "category":
                    continue
                task = Task(name)
                if word in LABELS[task]:
                    answers[task] = Label(word)
                    complete = complete or statement.is_block
                    category = None if task is Task.REQUEST else category  # the category of an earlier answer
                elif task in stated:
                    del answers[task]
                stated.discard(task)
            if "category" in words:
                category = None if words["category"] in _NO_CATEGORY else words["category"]
            if statement.task is not None and (text := _joined(statement.text)):
                conclusions[statement.task] = text
                if not statement.answers and (label := _stated_label(text, statement.task)):
                    answers[statement.task] = label
                    stated.add(statement.task)
        steps = {task: tuple(filter(None, map(_joined, self.steps[task]))) for task in Task}
        return ParsedOutput(
            steps={task: steps[task] for task in Task if steps[task]},
            conclusions={task: conclusions[task] for task in Task if task in conclusions},
            answers={task: answers[task] for task in Task if task in answers},
            category=category,
            complete=complete,
        )


def _stated_label(conclusion: str, task: Task) -> Label | None:
    """The one label that a conclusion's sentence gives to its task."""
    text = " ".join(re.sub(r"[*_`\"“”]", "", conclusion.lower()).split())
    if len(labels := set(_LABEL.findall(text)) & set(LABELS[task])) != 1 or _DOUBT.search(text):
        return None
    # Models misnumber their tasks: "The response is harmful." says nothing about the request.
    subject = _SUBJECT.search(text)
    if subject is not None and (subject[0] == "request") is not (task is Task.REQUEST):
        return None
    (label,) = labels
    return Label(label) if label in _STATED.findall(text) else None


def _unbulleted(text: str) -> str:
    return text[2:].lstrip() if text.startswith(("- ", "* ", "• ")) else text


def _joined(lines: Iterable[str]) -> str:
    return " ".join(filter(None, lines))
