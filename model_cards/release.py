"""Releases a run: checks it, writes the upload folder, and brings it onto the Hub in one commit with a tag.

    python -m model_cards.release RUN --repo-id owner/name --results FILE... --dry-run
    python -m model_cards.release RUN --repo-id owner/name --results FILE... --space
    python -m model_cards.release RUN --repo-id owner/name --pull-request

Without ``--results`` the files are taken that the card in RUN names. The gate comes first: ``evaluation.decide`` must
have said publish of these very weights, or ``--override`` gives the reason, which the card then prints. All problems
are told at once, and nothing is sent while there is one. Run the same command again after an interruption: it goes on.

Exit codes: 0 released (or, of a dry run, ready to be), 1 not ready, 2 an error.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import guardreasoner_moderation
from guardreasoner_moderation.errors import InputError, ModerationError
from model_cards.bundle import list_files, write_bundle
from model_cards.checks import find_gate_problem, find_loading_problem, find_problems
from model_cards.publish import Published, Target, publish
from model_cards.record import read_record
from model_cards.request import Request, last_request
from model_cards.space import write_space

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")
_VERSION = re.compile(r"\d+\.\d+\.\d+([.-]?\w+)*")


def main(
    run: Annotated[Path, typer.Argument(help="Run folder: run.json and an adapter.")],
    repo_id: Annotated[str, typer.Option(help="Where it goes: owner/name.")],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files of --results.")] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="Results files; default: those that the run's card names.")
    ] = None,
    beside: Annotated[list[Path] | None, typer.Option(help="results.json of another model, measured here.")] = None,
    decision: Annotated[
        Path | None, typer.Option(help="What evaluation.decide wrote; default: RUN/decision.json.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Of the release; default: the package's.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the model; default: the repository's.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="Where the base's is not known.")] = None,
    license_file: Annotated[Path | None, typer.Option(help="The copy that came with the base model.")] = None,
    override: Annotated[str | None, typer.Option(help="Publish against the gate, for this reason.")] = None,
    space: Annotated[bool, typer.Option("--space", help="Also create or update the demo's Space.")] = False,
    space_id: Annotated[str | None, typer.Option(help="Of the Space; default: the model's with -demo.")] = None,
    pull_request: Annotated[
        bool, typer.Option("--pull-request", help="Open a pull request; run again without this to tag it once merged.")
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make new repositories private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write and check; send nothing.")] = False,
    out: Annotated[Path, typer.Option(help="Where the upload folders are written.")] = Path("runs/release"),
    base: Annotated[str | None, typer.Option(help="Base model, to load the adapter with.")] = None,
    engine: Annotated[str, typer.Option(help="To load the adapter with.")] = "auto",
    device: Annotated[str | None, typer.Option(help="To load the adapter on.")] = None,
    quantization: Annotated[str | None, typer.Option(help="4bit or 8bit, to load the adapter with.")] = None,
) -> None:
    """Release a run."""
    try:
        version = version or guardreasoner_moderation.__version__
        for value, pattern, what in ((repo_id, _REPO_ID, "--repo-id"), (version, _VERSION, "--version")):
            if not pattern.fullmatch(value):
                raise InputError(f"{what} {value!r} is not right: expected owner/name, or a version such as 0.1.0")
        gate = find_gate_problem(read_record(run, decision))
        reason = override if gate else None
        files = (*(results or ()), *(more or ()))
        request = Request(run, files, tuple(beside or ()), decision, repo_id, name, version, licence, reason)
        if not files:
            earlier = last_request(run)
            request = replace(request, results=earlier.results, beside=earlier.beside)
        problems = [gate] if gate and not override else []
        bundle = write_bundle(request, out / repo_id.replace("/", "--"), licence_file=license_file)
        demo = space_id or f"{repo_id}-demo"
        place = out / f"{demo.replace('/', '--')}.space"
        if space:
            write_space(place, repo_id, f"{repo_id.split('/')[-1]} demo", bundle.licence)
        problems += find_problems(bundle, repo_id)
        loading = find_loading_problem(
            bundle,
            base=base,
            engine=engine,
            device=device,
            quantization=quantization,  # type: ignore[arg-type]
        )
        problems += [loading] if loading else []
        show(bundle.folder, f"upload folder for {repo_id}")
        typer.echo(f"card: {bundle.card}")
        if space:
            show(place, f"upload folder for the Space {demo}")
        for problem in problems:
            typer.echo(f"problem: {problem}", err=True)
        if problems:
            raise typer.Exit(1)
        if gate:
            typer.echo(f"published against the gate ({gate}): {override}")
        if dry_run:
            typer.echo("dry run: nothing was sent")
            return
        tag = f"v{version}"
        done = publish(bundle.folder, Target(repo_id, "model", tag, pull_request, private), f"Release {version}")
        typer.echo(report(repo_id, done))
        if space:
            done = publish(place, Target(demo, "space", None, pull_request, private), f"Demo of {repo_id} {version}")
            typer.echo(report(f"Space {demo}", done))
    except ModerationError as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from exc


def show(folder: Path, title: str) -> None:
    """Prints the files of a folder with their sizes."""
    files = list_files(folder)
    sizes = {path: file.stat().st_size for path, file in files.items()}
    typer.echo(f"{title}: {folder}, {len(files)} files, {sum(sizes.values()):,} bytes")
    for path, size in sizes.items():
        typer.echo(f"{size:>12,}  {path}")


def report(name: str, done: Published) -> str:
    """One line on what is there now."""
    if done.pull_request:
        state = "pull request opened" if done.new else "pull request is there already"
        return f"{name}: {state}: {done.pull_request}, commit {done.commit}"
    state = "committed" if done.new else "was there already"
    return f"{name}: {state}, commit {done.commit}{f', tag {done.tag}' if done.tag else ''}"


if __name__ == "__main__":
    typer.run(main)
