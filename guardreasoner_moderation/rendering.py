"""A result as people like to read it in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from guardreasoner_moderation.results import ModerationResult, Task, TaskVerdict

_QUESTIONS = {Task.REQUEST: "Request", Task.COMPLETION: "Completion", Task.RESPONSE: "Response"}
_BAR = 20


def render(result: ModerationResult, *, with_reasoning: bool = True) -> RenderableType:
    """Headline, one line a verdict with its score on a bar (| marks the threshold), and the reasoning.

    Returns:
        Something that rich prints.
    """
    if result.error is not None:
        return Text(f"{'FLAGGED, ' if result.flagged else ''}not judged: {result.error}", style="bold red")
    headline = Text(
        "FLAGGED" if result.flagged else "not flagged", style="bold red" if result.flagged else "bold green"
    )
    if result.category is not None:
        headline.append(f"  {result.category}", style="bold")
    table = Table.grid(padding=(0, 2))
    for task, verdict in result.verdicts():
        # A refusal is no alarm: only harm is shown in red.
        style = "red" if verdict.risky and task is not Task.COMPLETION else "green"
        table.add_row(_QUESTIONS[task], Text(verdict.label, style=style), _bar(verdict, style), f"{verdict.score:.2f}")
    parts: list[RenderableType] = [headline, table]
    if with_reasoning:
        parts.append(_steps(result))
    for window in dict.fromkeys(result.windows.values()):
        where = f"characters {window.start} to {window.end} of the {window.field}"
        parts.append(Text(f"long text: part {window.index + 1} of {window.count} decided ({where})", style="dim"))
    usage = result.usage
    cost = f"{result.mode} mode, {usage.prompt_tokens} tokens read, {usage.completion_tokens} written"
    return Group(*parts, Text(f"{cost}, {usage.seconds:.2f} s", style="dim"))


def _steps(result: ModerationResult) -> Table:
    """The reasoning, each task's steps beside its name."""
    table = Table.grid(padding=(0, 1))
    several = len(result.verdicts()) > 1
    for task, verdict in result.verdicts():
        for number, step in enumerate(verdict.reasoning):
            name = _QUESTIONS[task] if several and number == 0 else ""
            table.add_row(*(Text(cell, style="dim") for cell in ((name,) if several else ()) + ("-", step)))
    return table


def _bar(verdict: TaskVerdict, style: str) -> Text:
    filled = round(verdict.score * _BAR)
    bar = list("█" * filled + "░" * (_BAR - filled))
    bar[min(_BAR - 1, round(verdict.threshold * _BAR))] = "|"
    return Text("".join(bar), style=style)
