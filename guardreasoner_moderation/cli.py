"""The command line: ``guardreasoner classify``, ``batch``, ``serve``, ``demo``, ``pull`` and ``info``."""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from guardreasoner_moderation import __version__
from guardreasoner_moderation.errors import InputError, ModerationError
from guardreasoner_moderation.server import ServerSettings, require_extra, run

if TYPE_CHECKING:
    from guardreasoner_moderation.results import ModerationResult

EXIT_UNFLAGGED, EXIT_FLAGGED, EXIT_ERROR = 0, 1, 2
EXIT_UNJUDGED = 3  # of batch: the output is complete, but some of its rows have an error

app = typer.Typer(
    name="guardreasoner",
    help="Moderation of LLM traffic that explains itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_SERVE = ServerSettings()
ModelOption = Annotated[str, typer.Option(help="Short name, folder, GGUF file or repository id of the model.")]
EngineOption = Annotated[str, typer.Option(help="ctranslate2, transformers, llamacpp, vllm, openai; or what fits.")]
ServerOption = Annotated[
    str | None,
    typer.Option(help="Address of an OpenAI-compatible server that runs the model; its key: GUARDREASONER_SERVER_KEY."),
]
TokenizerOption = Annotated[str | None, typer.Option(help="With --server: folder or repository id of the tokenizer.")]


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
    engine: EngineOption = "auto",
    server: ServerOption = None,
    tokenizer: TokenizerOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge a request and, if given, a response. Exit code: 0 not flagged, 1 flagged, 2 error."""
    if text is None:
        if sys.stdin.isatty():
            typer.echo("Type the text to judge; end it with Ctrl-D.", err=True)
        text = _read_stdin()
    from guardreasoner_moderation.moderator import Moderator

    settings: dict[str, Any] = {"mode": mode, "thresholds": threshold}
    with Moderator.from_pretrained(model, engine=engine, server=server, tokenizer=tokenizer) as guard:
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
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = _SERVE.host,
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = _SERVE.port,
    model: ModelOption = "embedded",
    engine: EngineOption = "auto",
    server: ServerOption = None,
    tokenizer: TokenizerOption = None,
    mode: Annotated[str, typer.Option(help="think, verdict or auto, for requests that do not say.")] = _SERVE.mode,
    threshold: Annotated[
        float | None, typer.Option(help="Score from which a request or response is flagged; default: the model's.")
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Items that go to the engine together.")] = _SERVE.max_batch,
    max_wait_ms: Annotated[
        float, typer.Option(help="Milliseconds that an idle engine waits for more items.")
    ] = _SERVE.max_wait_ms,
    queue_size: Annotated[int, typer.Option(help="Items that may wait; beyond it 429.")] = _SERVE.queue_size,
    queue_seconds: Annotated[
        float | None,
        typer.Option(
            help="Seconds of work that may be ahead; beyond it 429. Default: half of --timeout.", show_default=False
        ),
    ] = _SERVE.queue_seconds,
    max_streams: Annotated[int, typer.Option(help="Streaming requests at once; beyond it 429.")] = _SERVE.max_streams,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is answered with 504.")] = _SERVE.timeout,
    read_timeout: Annotated[
        float, typer.Option(help="Seconds that a client may take to send a request; beyond it 408.")
    ] = _SERVE.read_timeout,
    keep_alive: Annotated[
        int, typer.Option(help="Seconds that a connection is kept after an answer.")
    ] = _SERVE.keep_alive,
    max_body_mb: Annotated[float, typer.Option(help="Size of a body in MiB; beyond it 413.")] = _SERVE.max_body_mb,
    max_items: Annotated[int, typer.Option(help="Items of a request; beyond it 422.")] = _SERVE.max_items,
    max_text_chars: Annotated[int, typer.Option(help="Characters of an item; beyond it 422.")] = _SERVE.max_text_chars,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Key that clients must send; better given in the environment, where other users cannot see it.",
            envvar="GUARDREASONER_API_KEY",
            show_default=False,
        ),
    ] = None,
    allow_images: Annotated[
        bool, typer.Option("--allow-images", help="Let images of LiteLLM calls pass unjudged.")
    ] = _SERVE.allow_images,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Run the engine in the server's own process, and die with it.")
    ] = False,
) -> None:
    """Answer over HTTP: OpenAI's moderation API, a native one, and a LiteLLM guardrail."""
    if api_key is None and "GUARDREASONER_API_KEY" in os.environ:
        raise InputError("GUARDREASONER_API_KEY is set but empty; unset it to let everyone in")
    settings = ServerSettings(
        host=host,
        port=port,
        mode=mode,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        queue_size=queue_size,
        queue_seconds=queue_seconds,
        max_streams=max_streams,
        timeout=timeout,
        read_timeout=read_timeout,
        keep_alive=keep_alive,
        max_body_mb=max_body_mb,
        max_items=max_items,
        max_text_chars=max_text_chars,
        api_key=api_key,
        allow_images=allow_images,
    )
    require_extra()
    from guardreasoner_moderation.moderator import Moderator
    from guardreasoner_moderation.server.running import bind

    # These two run the model elsewhere already.
    elsewhere = engine in ("openai", "vllm") or (engine == "auto" and server is not None)
    load = partial(
        Moderator.from_pretrained,
        model,
        engine=engine,
        server=server,
        tokenizer=tokenizer,
        own_process=not (in_process or elsewhere),
    )
    with bind(host, port) as listener, load(thresholds=threshold, batch_size=max_batch) as guard:
        # uvicorn raises it again after the last answer. As an exception it closes what is open here, above all the
        # engine's process; by default that would be left behind, to end when it notices.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        typer.echo(f"guardreasoner: serving {model} on {host} port {listener.getsockname()[1]}", err=True)
        if api_key is None and host not in ("127.0.0.1", "::1", "localhost"):
            typer.echo("guardreasoner: no API key is set, so everyone who can reach this port may use it", err=True)
        run(guard, settings, listener)


@app.command()
def batch(
    source: Annotated[
        Path,
        # Typer would answer a file that may not be read with its usage text.
        typer.Argument(metavar="IN", readable=False, help="JSONL, CSV or Parquet file; JSONL and CSV also .gz."),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, in any of these formats.")],
    prompt_column: Annotated[str | None, typer.Option(help="Column of what users wrote; default: prompt.")] = None,
    response_column: Annotated[
        str | None, typer.Option(help="Column of what the assistant answered; default: response, if it is there.")
    ] = None,
    system_column: Annotated[
        str | None, typer.Option(help="Column of system messages; default: system, if it is there.")
    ] = None,
    messages_column: Annotated[
        str | None, typer.Option(help="Column of chat messages, in place of the others; as a list, or as JSON text.")
    ] = None,
    mode: Annotated[str, typer.Option(help="think, verdict or auto.")] = "think",
    threshold: Annotated[
        float | None, typer.Option(help="Score from which a request or response is flagged; default: the model's.")
    ] = None,
    max_reasoning_tokens: Annotated[
        int | None, typer.Option(help="Budget of a row's reasoning; default: the model's.")
    ] = None,
    model: ModelOption = "embedded",
    prefix: Annotated[str, typer.Option(help="What the new columns' names begin with.")] = "moderation",
    window_size: Annotated[int, typer.Option(help="Rows in memory, which are sorted by length.")] = 1024,
    batch_size: Annotated[int, typer.Option(help="Rows that go to the model together.")] = 64,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is something else.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Judge the rows of a finished OUT that have an error again.")
    ] = False,
    engine: Annotated[str, typer.Option(help="ray for a Ray cluster, or an engine of this machine.")] = "auto",
    server: ServerOption = None,
    tokenizer: TokenizerOption = None,
    address: Annotated[
        str | None, typer.Option(help="Ray: the cluster, such as auto; default: one of this machine alone.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Ray: how many moderators; default: as many as fit.")] = None,
    worker_cpus: Annotated[float, typer.Option(help="Ray: CPUs of a worker.")] = 1.0,
    worker_gpus: Annotated[float, typer.Option(help="Ray: GPUs of a worker.")] = 0.0,
    worker_engine: Annotated[str, typer.Option(help="Ray: engine of a worker.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Judge every row of a file. Run it again to go on after an interruption.

    Exit code: 0 every row is judged, 3 OUT is complete but some rows have an error, 2 there is no OUT.
    """
    from guardreasoner_moderation.batch import Columns, LocalRunner, Runner, judge_file
    from guardreasoner_moderation.batch.progress import ProgressView
    from guardreasoner_moderation.moderator import Moderator

    load = partial(
        Moderator.from_pretrained,
        model,
        engine=worker_engine if engine == "ray" else engine,
        server=server,
        tokenizer=tokenizer,
        batch_size=batch_size,
    )
    runner: Runner
    if engine == "ray":
        from guardreasoner_moderation.batch.cluster import RayRunner

        runner = RayRunner(load, model, address=address, workers=workers, cpus=worker_cpus, gpus=worker_gpus)
    else:
        runner = LocalRunner(load, rows_at_once=batch_size)
    with ProgressView() as view:
        summary = judge_file(
            source,
            target,
            runner,
            columns=Columns(prompt_column, response_column, system_column, messages_column),
            mode=mode,
            thresholds=threshold,
            max_reasoning_tokens=max_reasoning_tokens,
            prefix=prefix,
            window_size=window_size,
            overwrite=overwrite,
            retry_errors=retry_errors,
            on_progress=None if quiet else view,
        )
    typer.echo(json.dumps(summary.to_dict(), ensure_ascii=False) if as_json else str(summary))
    raise typer.Exit(EXIT_UNJUDGED if summary.unjudged else 0)


@app.command()
def demo(
    model: Annotated[list[str] | None, typer.Option(help="A model to choose from; may be given again.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; default: the first free one from 7860 on.")] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show a page to try the models in: one text, a file, benchmarks."""
    from guardreasoner_moderation.demo import DemoSettings
    from guardreasoner_moderation.demo import run as run_demo

    run_demo(DemoSettings(tuple(model or ("embedded",)), host, port, open_browser))


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
