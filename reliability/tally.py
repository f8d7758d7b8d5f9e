"""Counts what came of one kind of fault, over many tries on batch jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

import typer

from reliability.jobs import Ended, Job, Losses, losses
from reliability.record import Trial


@dataclass(slots=True)
class Tally:
    """The tries of one kind of fault, on inputs of ``rows`` rows."""

    name: str
    rows: int
    tried: int = 0
    failed: int = 0
    unclear: int = 0
    found: list[Losses] = field(default_factory=list)

    def note(self, job: Job, again: Ended, *, told: bool, what: object = "") -> None:
        """One try.

        Args:
            job: whose output is there now.
            again: how the command ended after the fault was undone.
            told: whether the faulty run said what was wrong, in one sentence and by its exit code.
            what: for a person who looks for the mistake.
        """
        found = losses(job, self.rows)
        left = sorted(file.name for file in job.target.parent.glob(f"{job.target.name}*"))
        tidy = left == [job.target.name, f"{job.target.name}.job.json"]
        good = told and again.code == 0 and not found and tidy
        if not good:
            typer.echo(f"{self.name}: {what or job}: told {told}, then {again}, {found}, {left}", err=True)
        self.tried += 1
        self.failed += not good
        self.unclear += not told
        self.found.append(found)

    def trial(self) -> Trial:
        """The row of the record."""
        figures = {
            "rows lost": sum(one.lost for one in self.found),
            "rows twice": sum(one.twice for one in self.found),
            "rows with a wrong verdict": sum(one.wrong for one in self.found),
            "faults not told": self.unclear,
        }
        return Trial(self.name, self.tried, self.failed, figures)
