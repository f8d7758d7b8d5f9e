"""The one place that turns generated text into steps and answers.

Both formats are read by the same rules, line by line and in one pass:

* ``# Task 2`` begins a task, and steps before any such heading are about the request. ``## Reasoning Step 1`` or
  ``## Step 1`` begins a step that runs to the next heading; without such headings each line is a step (``compact``).
  A step is one line of text: its lines are joined by spaces and lose their bullets. Plain text before the first
  heading belongs to no task (given a raw prompt, some models first write the assistant's response to its end).
* ``## Conclusion``, ``# Task 2 Conclusion``, ``# Conclusion for Task 2`` and ``# Task 2: refusal`` conclude a task. A
  headed step that follows a conclusion or an answer line, without a task heading, is about the next task.
* ``Request: harmful`` and its like are answer lines. They count after ``Answers:`` or ``---``, in a conclusion, and
  without any of these when no more reasoning follows before the next task, conclusion or answer block: in the midst of
  reasoning they may be a quotation of what is judged.
* The last readable answer to a task wins. ``None``, or a line that is cut off or not a label of its task, says nothing,
  so it leaves an earlier answer to the task as it is. Only answer lines answer: sentences are not searched for labels.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from guardreasoner_moderation.results import LABELS, Label, Task

_TASKS: Mapping[str, Task] = {str(number): task for number, task in enumerate(Task, 1)}
_NEXT: Mapping[Task | None, Task] = {Task.REQUEST: Task.COMPLETION, Task.COMPLETION: Task.RESPONSE}

# These are matched at the start of a line, and none can fail after two repeats that share characters: whatever a model
# writes, the time is linear. ASCII, because a few other letters equal these when case is ignored.
_FLAGS = re.IGNORECASE | re.ASCII | re.DOTALL
_HEADING = re.compile(
    r"""(?: task\s+(?P<task>[0-9]{1,3})\b (?: [\s:*_-]*(?P<concluded>conclusion)\b )?
          | (?:reasoning\s+)?(?P<step>step)\s+[0-9]{1,3}\b
          | (?P<conclusion>conclusion)\b (?: \s+for\s+task\s+(?P<of>[0-9]{1,3})\b )?
        ) [\s:.)*_-]* (?P<text>.*)""",
    _FLAGS | re.VERBOSE,
)
_ANSWERS = re.compile(r"(?:final\s+)?answers?[\s*_]*(?::[\s*_]*|$)(?P<text>.*)", _FLAGS)
_ANSWER = re.compile(
    r"(?:[0-9]{1,2}[.)]\s*)?(?P<name>request|category|completion|response)[\s*_`\"']*:(?P<word>.*)", _FLAGS
)
_BULLET = re.compile(r"^(?:[-*•]|#{1,6})\s+")  # or a heading of the model's own
_MARKUP = "#*_>`•- \t"  # what a heading or an answer line may begin with
_QUOTES = string.whitespace + "\u00a0*`\"'“”‘’.,;:"  # what may surround a category word
_EDGES = _QUOTES + "_!()[]{}<>-"  # what may surround a label
_NO_CATEGORY = ("", "none", "null", "n/a", "-")
_BARE_CONCLUSIONS = (*Label, "none")


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """What a model wrote.

    Attributes:
        steps: the reasoning steps of each task, in order; a task without any is absent.
        conclusions: the text of a task's own conclusion, answer lines aside, where it has one; of several the last.
        answers: the label of each task; a task answered with None, unreadably or not at all is absent.
        category: the word of the ``Category:`` line after the request's answer, in lower case; None without one.
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


class _Reader:
    """The state between two lines."""

    def __init__(self) -> None:
        self.place = _Place.PREAMBLE
        self.task: Task | None = Task.REQUEST  # None after the heading of a task that does not exist
        self.concluded = False  # the next step, if no task heading comes first, is about the next task
        self.open: list[str] | None = None  # the headed step or the conclusion that plain lines continue
        self.steps: dict[Task | None, list[list[str]]] = {task: [] for task in (*Task, None)}
        self.conclusions: dict[Task | None, list[list[str]]] = {task: [] for task in (*Task, None)}
        self.held: list[tuple[str, str, str]] = []  # name, word and line of answers that may be a quotation
        self.answers: dict[Task, Label] = {}
        self.category: str | None = None
        self.complete = False

    def read(self, line: str) -> None:
        bare = line.lstrip(_MARKUP)
        if not bare:
            if line.startswith(("---", "***", "___")):
                self.begin(_Place.ANSWERS)
        elif line.startswith(("#", "**")) and (heading := _HEADING.match(bare)):
            self.read_heading(heading)
        elif (block := _ANSWERS.match(bare)) and (not block["text"] or _ANSWER.match(block["text"])):
            self.begin(_Place.ANSWERS)
            self.read(block["text"])
        elif not ((answer := _ANSWER.match(bare)) and self.read_answer(answer, line)):
            self.read_text(line)

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
            self.begin(_Place.CONCLUSION)
            self.open = [text]
            self.conclusions[self.task].append(self.open)
            self.concluded = bool(self.steps[self.task])
        else:
            self.begin(_Place.STEPS)

    def read_answer(self, answer: re.Match[str], line: str) -> bool:
        """Takes an answer line; False when it is ordinary text."""
        name = answer["name"].lower()
        word = answer["word"].strip(_QUOTES if name == "category" else _EDGES).lower()
        if self.place is not _Place.ANSWERS and name != "category" and " " in word:
            return False  # a sentence
        if self.place in (_Place.CONCLUSION, _Place.ANSWERS):
            self.take(name, word, in_block=self.place is _Place.ANSWERS)
            self.conclude(name)
        elif self.held or name != "category":
            self.held.append((name, word, line))
        else:
            return False
        return True

    def read_text(self, line: str) -> None:
        self.release()
        text = _BULLET.sub("", line, count=1)
        if self.open is not None:
            self.open.append(text)
        elif self.place is _Place.STEPS:
            self.steps[self.task].append([text])

    def begin(self, place: _Place) -> None:
        """Ends what was open. Held lines are answers after all, for no reasoning came after them."""
        for name, word, _ in self.held:
            self.take(name, word, in_block=True)
        self.held.clear()
        self.place, self.open = place, None

    def begin_step(self, text: str) -> None:
        if self.held:
            self.conclude(self.held[-1][0])
            self.held.clear()
        if self.concluded:
            self.task, self.concluded = _NEXT.get(self.task, self.task), False
        self.begin(_Place.STEPS)
        self.open = [text]
        self.steps[self.task].append(self.open)

    def release(self) -> None:
        """Makes held lines text: more reasoning follows, so they were quoted."""
        held, self.held = self.held, []
        for _, _, line in held:
            self.read_text(line)

    def conclude(self, name: str) -> None:
        """An answer line ends its task, if that has been reasoned about."""
        if name != "category" and self.steps[Task(name)]:
            self.task, self.concluded = Task(name), True

    def take(self, name: str, word: str, *, in_block: bool) -> None:
        if name == "category":
            self.category = None if word in _NO_CATEGORY else word
        elif word in LABELS[task := Task(name)]:
            self.answers[task] = Label(word)
            self.complete = self.complete or in_block
            if task is Task.REQUEST:
                self.category = None  # that of an earlier answer

    def result(self) -> ParsedOutput:
        self.begin(_Place.ANSWERS)
        steps = {task: tuple(filter(None, map(_joined, self.steps[task]))) for task in Task}
        conclusions = {task: tuple(filter(None, map(_joined, self.conclusions[task]))) for task in Task}
        return ParsedOutput(
            steps={task: steps[task] for task in Task if steps[task]},
            conclusions={task: conclusions[task][-1] for task in Task if conclusions[task]},
            answers={task: self.answers[task] for task in Task if task in self.answers},
            category=self.category,
            complete=self.complete,
        )


def _joined(lines: Iterable[str]) -> str:
    return " ".join(filter(None, lines))
