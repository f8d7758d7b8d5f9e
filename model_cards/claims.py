"""The claims table: what the papers claim, the figure there, our figure and its run, and a verdict by rule.

Nothing of the right half is typed: our figure comes from a results file, the verdict from the rule in ``claims.yaml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.finished import read_object
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.results import StrEnum
from model_cards.reading import ROOT, build_rows, look_up
from model_cards.results import Interval, read_interval, to_interval
from texts.strict_yaml import read_yaml

CLAIMS = Path(__file__).with_name("claims.yaml")


class Rule(StrEnum):
    """Which difference reproduces a claim."""

    BETTER = "better"
    WITHIN = "within"


class Outcome(StrEnum):
    """What became of a claim here."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    NOT_TESTED = "not tested"


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of ``claims.yaml``, which explains the keys."""

    claim: str
    paper: str
    there: str
    where: str
    rule: str
    file: str
    entry: str
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.rule not in set(Rule):
            raise InputError(f"unknown rule {self.rule!r} of the claim {self.claim!r}{nearest(self.rule, Rule)}")

    @property
    def condition(self) -> str:
        """The rule in words."""
        if self.rule == Rule.BETTER:
            return "the whole interval of the difference lies above 0"
        return f"the whole interval of the difference lies above -{100 * self.margin:g} points"


@dataclass(frozen=True, slots=True)
class Found:
    """Our figure: a difference of two runs over the same items, in shares.

    The rule looks at ``difference`` alone; ``auprc``, which needs no threshold, stands beside it where it was measured.
    """

    metric: str
    run: str
    n: int
    difference: Interval
    auprc: Interval | None
    file: str

    def __str__(self) -> str:
        beside = f" (AUPRC {self.auprc.points})" if self.auprc else ""
        return f"{self.metric} {self.difference.points} points{beside}, n {self.n}"


@dataclass(frozen=True, slots=True)
class Tested:
    """A claim with what was found here."""

    claim: Claim
    found: Found | None

    @property
    def outcome(self) -> Outcome:
        """By the claim's rule."""
        if self.found is None:
            return Outcome.NOT_TESTED
        line = -self.claim.margin if self.claim.rule == Rule.WITHIN else 0.0
        return Outcome.REPRODUCED if self.found.difference.low > line else Outcome.NOT_REPRODUCED


def check_claims(file: Path = CLAIMS, root: Path = ROOT) -> list[Tested]:
    """Reads the claims and looks our figures up.

    Args:
        file: of the claims.
        root: of the paths in it. A results file that is not there, or lacks the entry, leaves a claim untested.

    Raises:
        InputError: a claim or a figure is damaged.
    """
    claims = build_rows(Claim, read_yaml(file), file)
    return [Tested(claim, _find(claim, root)) for claim in claims]


def render_claims(tested: Sequence[Tested]) -> str:
    """The table in Markdown."""
    lines = ["| claim | paper | figure there (published) | figure here | run | verdict |", "|---|---|---|---|---|---|"]
    for one in tested:
        found = one.found
        here, run = (str(found), f"{found.run}, `{found.file}`") if found else ("none", "none")
        lines.append(
            f"| {one.claim.claim} | arXiv {one.claim.paper}, {one.claim.where} | {one.claim.there} | {here} | {run} "
            f"| {one.outcome} |"
        )
    conditions = {one.claim.condition: None for one in tested}
    lines += ["", "Figures there are published by others, not measured here, and of other models and benchmarks."]
    rules = "; ".join(f"{condition} ({_count(tested, condition)})" for condition in conditions)
    lines.append(f"A claim counts as reproduced when, over the same items, {rules}.")
    return "\n".join(lines)


def _count(tested: Sequence[Tested], condition: str) -> str:
    numbers = [str(number) for number, one in enumerate(tested, 1) if one.claim.condition == condition]
    return f"row{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def _find(claim: Claim, root: Path) -> Found | None:
    file = root / claim.file
    if not file.exists():
        return None
    entry = look_up(read_object(file), claim.entry)
    if entry is None:
        return None
    try:
        difference = read_interval(entry["difference"], "difference")
        auprc = to_interval(entry.get("auprc_difference"))
        return Found(str(entry["metric"]), str(entry["run"]), int(entry["n"]), difference, auprc, claim.file)
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{file}, {claim.entry}: {exc!r}") from exc
