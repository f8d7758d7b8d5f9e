"""The command line: ``guardreasoner classify``, ``pull`` and ``info``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from guardreasoner_moderation import __version__
from guardreasoner_moderation.errors import InputError, ModerationError

if TYPE_CHECKING:
    from guardreasoner_moderation.results import ModerationResult

EXIT_UNFLAGGED, EXIT_FLAGGED, EXIT_ERROR = 0, 1, 2

app = typer.Typer(
    name="guardreasoner",
    help="Moderation of LLM traffic that explains itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelOption = Annotated[str, typer.Option(help="Short name, folder or repository id of the model.")]


def main() -> None:
    """Entry point: errors of this package become one sentence and exit code 2."""
    try:
        app()
    except ModerationError as exc:
        _fail(str(exc))
    except BrokenPipeError:  # the reader of our output has gone, as in ``| head -1``
        sys.stderr.close()
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        sys.exit(130)


@app.callback(invoke_without_command=True)
def about(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Moderation of LLM traffic that explains itself."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def classify(
    text: Annotated[
        str | None, typer.Argument(help="What the user wrote; read from standard input if left out.")
    ] = None,
    response: Annotated[str | None, typer.Option(help="What the assistant answered.")] = None,
    mode: Annotated[str, typer.Option(help="think, verdict or auto.")] = "think",
    threshold: Annotated[
        float | None, typer.Option(help="Score from which a request or response is flagged; default: the model's.")
    ] = None,
    model: ModelOption = "embedded",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge a request and, if given, a response. Exit code: 0 not flagged, 1 flagged, 2 error."""
    if text is None:
        if sys.stdin.isatty():
            typer.echo("Type the text to judge; end it with Ctrl-D.", err=True)
        text = _read_stdin()
    from guardreasoner_moderation.moderator import Moderator

    settings: dict[str, Any] = {"mode": mode, "thresholds": threshold}
    with Moderator(model) as guard:
        if as_json:
            result = guard.classify(text, response, **settings)
            typer.echo(result.to_json())
        elif sys.stdout.isatty():
            result = _stream(guard.stream(text, response, **settings))
        else:
            result = guard.classify(text, response, **settings)
            typer.echo(str(result))
    raise typer.Exit(EXIT_FLAGGED if result.flagged else EXIT_UNFLAGGED)


@app.command()
def pull(model: Annotated[str, typer.Argument(help="Short name, folder or repository id.")] = "embedded") -> None:
    """Fetch and prepare a model, so that it then works without a network."""
    from guardreasoner_moderation.models import prepare

    typer.echo(f"ready: {prepare(model)}")


@app.command()
def info(
    model: ModelOption = "embedded",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what would run: model, hashes, cache, engine, versions. Fetches and loads nothing."""
    from guardreasoner_moderation.models import describe

    facts = describe(model)
    if as_json:
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {value}")


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as exc:
        raise InputError(f"standard input is not UTF-8 text: {exc}") from exc


def _stream(events: Any) -> ModerationResult:
    """Shows reasoning as it is written, then the verdicts."""
    from rich.console import Console

    from guardreasoner_moderation.rendering import render

    console = Console(highlight=False)
    wrote = False
    for event in events:
        if isinstance(event, str):
            console.print(event, end="", style="dim", markup=False)
            wrote = True
        else:
            result: ModerationResult = event
    if wrote:
        console.print()
    console.print(render(result, with_reasoning=not wrote))
    return result


def _fail(message: str) -> NoReturn:
    typer.echo(f"guardreasoner: {message}", err=True)
    sys.exit(EXIT_ERROR)


# So that ``python -m guardreasoner_moderation.cli`` works where scripts are not on the PATH.
if __name__ == "__main__":
    main()
