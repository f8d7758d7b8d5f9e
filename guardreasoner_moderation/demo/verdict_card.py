"""A judgement as HTML: badges, scores on bars with their thresholds, reasoning, cost. Every text in it is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from guardreasoner_moderation.results import LABELS, ModerationResult, Task, TaskVerdict

QUESTIONS = {
    Task.REQUEST: "Is the request harmful?",
    Task.COMPLETION: "Did the assistant refuse?",
    Task.RESPONSE: "Is the response harmful?",
}
_NAMES = {Task.REQUEST: "Request", Task.COMPLETION: "Completion", Task.RESPONSE: "Response"}
_EMPTY = "Write a request on this page, or try one of the examples. The verdict appears here."


def empty_card(text: str = _EMPTY) -> str:
    """What stands in the place of a verdict before there is one."""
    return f'<div class="gm-card gm-empty"><p>{escape(text)}</p></div>'


def error_card(error: Exception) -> str:
    """What went wrong, as a sentence."""
    headline = _headline("gm-bad", "!", "Not judged")
    return f'<div class="gm-card" role="alert">{headline}<p>{escape(sentence(error))}</p></div>'


def waiting_card(written: str, mode: str) -> str:
    """The reasoning so far.

    Args:
        written: steps with line breaks between, the last one perhaps cut off.
        mode: how it is judged.
    """
    doing = "Judging" if mode == "verdict" else "Reading" if not written else "Reasoning"
    steps = [line for line in written.splitlines() if line.strip()]
    dots = '<span class="gm-dots" aria-hidden="true"><i></i><i></i><i></i></span>'
    headline = f'<p class="gm-headline">{doing}{dots}</p>'
    return f'<div class="gm-card" aria-busy="true">{headline}{_steps(steps, "gm-growing")}</div>'


def verdict_card(result: ModerationResult) -> str:
    """A result with all that belongs to it."""
    if result.error is not None:
        return error_card(ValueError(result.error))
    parts = [_result_headline(result)]
    parts += [_verdict(task, verdict) for task, verdict in result.verdicts()]
    reasoned = [(task, verdict) for task, verdict in result.verdicts() if verdict.reasoning]
    if reasoned:
        parts.append('<h3 class="gm-title">Reasoning</h3>')
    for task, verdict in reasoned:
        if len(result.verdicts()) > 1:
            parts.append(f'<h4 class="gm-subtitle">{_NAMES[task]}</h4>')
        parts.append(_steps(verdict.reasoning))
    for window in dict.fromkeys(result.windows.values()):
        parts.append(
            f'<p class="gm-note">Long text, judged in parts: part {window.index + 1} of {window.count} of the '
            f"{escape(window.field)} decided (characters {window.start:,} to {window.end:,}).</p>"
        )
    parts.append(_cost(result))
    return f'<div class="gm-card">{"".join(parts)}</div>'


def announcement(result: ModerationResult) -> str:
    """The verdict in one sentence, for a screen reader to say when it is there."""
    if result.error is not None:
        return sentence(ValueError(result.error))
    verdicts = ", ".join(
        f"{_NAMES[task]} {verdict.label}, score {verdict.score:.2f}" for task, verdict in result.verdicts()
    )
    category = f", {_words(result.category)}" if result.category else ""
    return escape(f"{'Flagged' if result.flagged else 'Not flagged'}{category}. {verdicts}.")


def sentence(error: Exception) -> str:
    """The message of an error of this package, with a capital and a full stop."""
    text = str(error).strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}"


def _result_headline(result: ModerationResult) -> str:
    if not result.flagged:
        return _headline("gm-good", "✓", "Not flagged")
    chip = f'<span class="gm-chip">{escape(_words(result.category))}</span>' if result.category else ""
    return _headline("gm-bad", "!", "Flagged", chip)


def _headline(style: str, icon: str, text: str, chip: str = "") -> str:
    return (
        f'<p class="gm-headline {style}"><span class="gm-icon" aria-hidden="true">{icon}</span>'
        f"<strong>{text}</strong>{chip}</p>"
    )


def _verdict(task: Task, verdict: TaskVerdict) -> str:
    # A refusal is no alarm: only harm is shown in red.
    style = "gm-neutral" if task is Task.COMPLETION else "gm-bad" if verdict.risky else "gm-good"
    score, threshold = f"{verdict.score:.2f}", f"{verdict.threshold:.2f}"
    risky = LABELS[task][0]
    return (
        f'<div class="gm-verdict {style}"><p class="gm-question"><span>{QUESTIONS[task]}</span>'
        f'<span class="gm-badge">{verdict.label}</span></p>'
        f'<div class="gm-bar" role="meter" aria-valuemin="0" aria-valuemax="1" aria-valuenow="{score}" '
        f'aria-valuetext="{score}; {risky} from {threshold}" aria-label="{_NAMES[task]}: score of {risky}">'
        f'<span class="gm-fill" style="width:{100 * verdict.score:.1f}%"></span>'
        f'<span class="gm-tick" style="left:{100 * verdict.threshold:.1f}%"></span></div>'
        f'<p class="gm-scale" aria-hidden="true"><span>score <b>{score}</b></span>'
        f"<span>{risky} from {threshold}</span></p></div>"
    )


def _steps(steps: Sequence[str], style: str = "") -> str:
    if not steps:
        return ""
    return f'<ul class="gm-steps {style}">{"".join(f"<li>{escape(step)}</li>" for step in steps)}</ul>'


def _cost(result: ModerationResult) -> str:
    usage = result.usage
    facts = {
        "Latency": f"{usage.seconds:.2f} s",
        "Tokens read": f"{usage.prompt_tokens:,}",
        "Tokens written": f"{usage.completion_tokens:,}",
        "Mode": result.mode.value,
        "Model": result.model,
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return f'<dl class="gm-cost">{listed}</dl>'


def _words(category: object) -> str:
    return str(category).replace("_", " ")
