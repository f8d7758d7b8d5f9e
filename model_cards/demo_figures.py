"""Puts the committed results together for the demo's page of benchmarks, which has no checkout beside it.

    python -m model_cards.demo_figures

Nothing is computed here: runs, curves, speed and published figures are copied from ``evaluation``, the claims table is
the one of :mod:`model_cards.claims`. :mod:`model_cards.pages` writes the committed file with the other pages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluation.finished import read_object
from guardreasoner_moderation.errors import ModerationError
from model_cards.claims import CLAIMS, Tested, check_claims
from model_cards.reading import ROOT

TARGET = ROOT / "guardreasoner_moderation" / "demo" / "figures.json"


def main(
    out: Annotated[Path, typer.Option(help="File to write.")] = TARGET,
    root: Annotated[Path, typer.Option(help="Of the checkout.")] = ROOT,
) -> None:
    """Write the demo's figures."""
    try:
        out.write_text(render_figures(root), encoding="utf-8")
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def render_figures(root: Path = ROOT, claims: Path = CLAIMS) -> str:
    """The content of the file, one entry a line.

    Args:
        root: of a checkout. Only ``evaluation/published.json`` must be there; what was not measured is left out.
        claims: the papers' claims.

    Raises:
        InputError: a file is damaged.
    """
    folder = root / "evaluation" / "results"
    files = {file.name: read_object(file) for file in sorted(folder.glob("*.json"))}
    figures = {
        "runs": {name: content for name, content in files.items() if "benchmarks" in content and "mode" in content},
        "curves": files.get("score_curves.json", {}).get("curves", []),
        "speed": files.get("speed.json", {}),
        "upstream": files.get("upstream.json", {}).get("cells", []),
        "published": read_object(root / "evaluation" / "published.json"),
        "claims": [_plain(one) for one in check_claims(claims, root)],
    }
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_lines(part)}" for name, part in figures.items()) + "\n}\n"


def _lines(part: Any) -> str:
    """JSON with a line for each entry, so that a change of one shows as one."""
    if not part:
        return json.dumps(part)
    if isinstance(part, dict):
        entries = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in part.items()]
        return "{\n" + ",\n".join(entries) + "\n}"
    return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in part) + "\n]"


def _plain(tested: Tested) -> dict[str, str | None]:
    claim, found = tested.claim, tested.found
    return {
        "claim": claim.claim,
        "paper": claim.paper,
        "where": claim.where,
        "there": claim.there,
        "here": str(found) if found else None,
        "run": found.run if found else None,
        "condition": claim.condition,
        "outcome": tested.outcome.value,
    }


if __name__ == "__main__":
    typer.run(main)
