"""Rating reasoning by hand: the page that a person rates on, and what two persons' ratings say.

    python -m evaluation.reasoning RUN --data-dir DATA -o reasoning.md --review 50    writes reasoning.review.html
    python -m evaluation.review ANNA.json BEN.json [--key reasoning.review-key.json] [-o review.md]

The page is one file that needs no network: items, reasoning, buttons for the rubric, export of the ratings as JSON. It
holds the items' texts, so treat it as you treat the data. The second command counts the answers of each rater (by
model, if the key file is given) and computes how far raters agree: Cohen's kappa of every two.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.finished import read_object
from evaluation.intervals import Estimate
from evaluation.ratings import Drawn, Sheet, agree, count_answers, read_sheet
from evaluation.rubric import RUBRIC, Rubric, read_rubric
from guardreasoner_moderation.errors import InputError, MissingDependencyError, ModerationError
from guardreasoner_moderation.results import Task

TEMPLATES = Path(__file__).with_name("templates")
_NAMES = {Task.REQUEST: "Request", Task.COMPLETION: "Completion: refused?", Task.RESPONSE: "Response"}


def render_review(drawn: Sequence[Drawn], rubric: Rubric) -> str:
    """The page, as one HTML file without references to others.

    Args:
        drawn: what is rated, in this order; which model wrote it is not in the page.
        rubric: what is asked.
    """
    items = [
        {
            "key": one.key,
            "prompt": one.trace.item.prompt,
            "response": one.trace.item.response,
            "tasks": [
                {
                    "name": name,
                    "steps": list(one.trace.steps.get(task, ())),
                    "verdict": one.trace.answers[task].value if task in one.trace.answers else None,
                }
                for task, name in _NAMES.items()
                if task in one.trace.steps or task in one.trace.answers
            ],
        }
        for one in drawn
        if one.trace.item is not None
    ]
    page = {"rubric": rubric.digest, "criteria": [criterion.name for criterion in rubric.criteria], "items": items}
    return str(environment().get_template("review.html.jinja").render(rubric=rubric, items_json=embed_json(page)))


def environment() -> Any:
    """Jinja, with escaping, on this package's templates.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    except ImportError as exc:
        raise MissingDependencyError("writing HTML", "eval") from exc
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html", "html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def embed_json(content: Any) -> Any:
    """JSON that may stand within a ``<script>`` element, whatever texts it holds, marked as safe for the template."""
    from markupsafe import Markup

    # "</script" and "<!--" would end or change the element; JSON may write "<" as an escape anywhere in its strings.
    text = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return Markup(text.replace("\u2029", "\\u2029"))  # noqa: S704 - escaped above


def render_agreement(sheets: Sequence[Sheet], rubric: Rubric, key: Mapping[str, Any] | None = None) -> str:
    """Markdown: what each rater answered, and how far every two agree.

    Raises:
        InputError: two raters have no item in common.
    """
    lines = ["# Ratings of reasoning", ""]
    for sheet in sheets:
        for source, table in sorted(count_answers(sheet, rubric, key).items()):
            total = max(sum(counts.values()) for counts in table.values())
            lines += [f"## {sheet.rater}" + (f": {source}" if key is not None else "") + f" ({total} items)", ""]
            lines += ["| criterion | answers |", "|---|---|"]
            for criterion in rubric.criteria:
                answers = ", ".join(f"{answer} {count}" for answer, count in table[criterion.name].items())
                lines.append(f"| {criterion.question} | {answers} |")
            lines.append("")
    for first, second in itertools.combinations(sheets, 2):
        lines += [f"## Agreement of {first.rater} and {second.rater}", ""]
        lines += [
            "| criterion | items | same answer | Cohen's kappa [95%] | linear weights [95%] |",
            "|---|--:|--:|--:|--:|",
        ]
        for name, found in agree(first, second, rubric).items():
            lines.append(
                f"| {name} | {found.items} | {100 * found.same / found.items:.0f}% | {_shown(found.kappa)} "
                f"| {_shown(found.weighted)} |"
            )
        lines.append("")
    if len(sheets) > 1:
        lines.append(
            "Kappa is the agreement beyond chance: 1 is full agreement, 0 what chance gives. It is undefined where "
            "both raters gave one answer to everything. Intervals: percentile bootstrap."
        )
    return "\n".join(lines).rstrip() + "\n"


def main(
    ratings: Annotated[list[Path], typer.Argument(help="Exported ratings, one file a rater.")],
    key: Annotated[Path | None, typer.Option(help="Key file of the page, to tell the models apart.")] = None,
    rubric: Annotated[Path, typer.Option(help="The rubric that was rated with.")] = RUBRIC,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Markdown file.")] = None,
) -> None:
    """Count ratings, and tell how far raters agree."""
    try:
        asked = read_rubric(rubric)
        sheets = [read_sheet(file, asked) for file in ratings]
        raters = [sheet.rater for sheet in sheets]
        if len(set(raters)) < len(raters):
            raise InputError(f"two of the files are of the same rater: {', '.join(raters)}")
        page = render_agreement(sheets, asked, read_object(key) if key else None)
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc
    if output is None:
        typer.echo(page)
    else:
        output.write_text(page, encoding="utf-8")


def _shown(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "undefined"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


if __name__ == "__main__":
    typer.run(main)
