"""The moderators of a Ray cluster as a runner: a Ray Data pipeline of windows through a pool of actors.

    read (one task, on the driver's node)  ->  judge (one actor a worker, each with its own model)  ->  the journal

One row of the dataset is one window of rows, as JSON text. Ray starts a dead actor again, and gives its windows to it
or to another one; windows come out in the order in which they went in.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from guardreasoner_moderation.batch.journal import Judged
from guardreasoner_moderation.batch.pending import HowToJudge, Pending, PendingRows, judge
from guardreasoner_moderation.batch.runners import model_facts
from guardreasoner_moderation.errors import EngineError, InputError, MissingDependencyError
from guardreasoner_moderation.interactions import Interaction, Turn
from guardreasoner_moderation.models import find_folder, weights_sha256
from guardreasoner_moderation.moderator import Moderator
from guardreasoner_moderation.telemetry import switch_off


class RayRunner:
    """Judges with moderators on the nodes of a Ray cluster."""

    def __init__(
        self,
        load: Callable[[], Moderator],
        model: str,
        *,
        address: str | None = None,
        workers: int | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        """Describes the workers; :meth:`run` starts them.

        Args:
            load: makes the moderator of a worker; it runs there.
            model: name of that model, for the hashes of its files.
            address: of the cluster, as for ``ray.init``: "auto" on one of its nodes, or ``host:port``. Left out: the
                one that ``RAY_ADDRESS`` names, or else one of this machine alone, for the time of the job.
            workers: how many moderators; left out, as many as the cluster has room for now.
            cpus, gpus: what each of them takes.

        Raises:
            InputError: a number is out of range, or the address is that of a Ray Client.
            MissingDependencyError: Ray is not installed.
        """
        if workers is not None and workers < 1:
            raise InputError(f"there must be at least 1 worker, found {workers}")
        if cpus < 0 or gpus < 0 or cpus + gpus == 0:
            raise InputError(f"a worker must take some part of a CPU or GPU, found {cpus} and {gpus}")
        if address is not None and address.startswith("ray://"):
            raise InputError("this command must run on a node of the cluster, with --address auto; not through ray://")
        self._ray = _import_ray()
        self._load = load
        self._model = model
        self._address = address
        self._workers = workers
        self._cpus = cpus
        self._gpus = gpus

    def model(self) -> Mapping[str, Any]:
        """See :meth:`guardreasoner_moderation.batch.runners.Runner.model`."""
        folder = find_folder(self._model)
        return model_facts(self._model, folder, weights_sha256(folder))

    def run(self, rows: PendingRows, how: HowToJudge) -> Iterator[list[Judged]]:
        """See :meth:`guardreasoner_moderation.batch.runners.Runner.run`."""
        ray = self._ray
        ours = not ray.is_initialized()
        if ours:
            try:
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as exc:
                raise InputError(f"there is no Ray cluster at {self._address!r}: {exc}") from exc
        try:
            for row in self._pipeline(rows, how).iter_rows():
                if row["error"]:
                    raise EngineError(f"the Ray job failed: {row['error']}")
                yield [(number, result) for number, result in json.loads(row["judged"])]
        except ray.exceptions.RayError as exc:
            lines = str(exc).strip().splitlines()  # the error itself comes after its traceback
            raise EngineError(f"the Ray job failed: {lines[-1] if lines else type(exc).__name__}") from exc
        finally:
            if ours:
                ray.shutdown()

    def _pipeline(self, rows: PendingRows, how: HowToJudge) -> Any:
        ray = self._ray
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors come as exceptions too
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        # Ray Data fills blocks up to a size in bytes, and a block goes to one worker: every window is to be a block.
        context.target_max_block_size = 1
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        with ray.data.DataContext.current(context):
            return (
                ray.data.from_items([{"file": str(rows.source)}])
                # The input is on the disk of this node, and reading it must not wait for a CPU that judges.
                .flat_map(_windows_of(rows), num_cpus=0, label_selector=here)
                .map(
                    _Worker,
                    fn_constructor_args=(self._load, how),
                    compute=ray.data.ActorPoolStrategy(size=self._workers or self._room()),
                    num_cpus=self._cpus,
                    num_gpus=self._gpus,
                )
            )

    def _room(self) -> int:
        """How many workers fit into the cluster as it is now."""
        there = self._ray.cluster_resources()
        taken = {"CPU": self._cpus, "GPU": self._gpus}
        return max(1, min(int(there.get(name, 0) / each) for name, each in taken.items() if each))


class _Worker:
    """An actor with a moderator of its own."""

    def __init__(self, load: Callable[[], Moderator], how: HowToJudge) -> None:
        self._guard = load()
        self._how = how

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        if row["error"]:
            return {"judged": "", "error": row["error"]}
        try:
            return {"judged": json.dumps(judge(self._guard, from_json(row["window"]), self._how)), "error": ""}
        except Exception as exc:  # noqa: BLE001 - raised again by the driver, in words and without Ray's own
            return {"judged": "", "error": f"{type(exc).__name__}: {exc}"}


def _windows_of(rows: PendingRows) -> Callable[[Any], Iterator[dict[str, str]]]:
    def read(_: Any) -> Iterator[dict[str, str]]:
        try:
            for window in rows.windows():
                yield {"window": to_json(window), "error": ""}
        except InputError as exc:
            yield {"window": "", "error": str(exc)}

    return read


def to_json(window: Sequence[Pending]) -> str:
    """Rows as text, for their way to a worker."""
    records = []
    for row in window:
        one = row.interaction
        asked = one and [one.prompt, one.response, [[turn.role, turn.text] for turn in one.history], one.system]
        records.append([row.number, asked, row.error])
    return json.dumps(records)


def from_json(text: str) -> list[Pending]:
    """What :func:`to_json` wrote."""
    window = []
    for number, asked, error in json.loads(text):
        one = None
        if asked is not None:
            prompt, response, history, system = asked
            one = Interaction(prompt, response, tuple(Turn(role, said) for role, said in history), system)
        window.append(Pending(number, one, error))
    return window


def _import_ray() -> Any:
    switch_off()
    try:
        import ray
        import ray.data
    except ImportError as exc:
        raise MissingDependencyError("Judging on a Ray cluster", "ray") from exc
    return ray
