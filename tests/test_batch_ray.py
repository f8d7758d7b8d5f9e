"""The same job on a real Ray cluster: a head and two nodes on this machine."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batches import guard_that_knows, read_jsonl, some_rows, write_jsonl

from guardreasoner_moderation import EngineError, InputError, Interaction, Moderator, Turn
from guardreasoner_moderation.batch import Progress, judge_file
from guardreasoner_moderation.batch.cluster import RayRunner, from_json, to_json
from guardreasoner_moderation.batch.pending import Pending

ROWS = 400


def test_windows_survive_their_way_to_a_worker() -> None:
    whole = Interaction("Grüße 🎂", "Hi.", (Turn("user", "a"), Turn("assistant", "b")), "Be kind.")
    window = [Pending(3, whole), Pending(4, Interaction("x")), Pending(5, error="line 9: broken"), Pending(6)]
    assert from_json(to_json(window)) == window


ray = pytest.importorskip("ray")
cluster = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def on_cluster(function: Any) -> Any:
    for mark in cluster:
        function = mark(function)
    return function


def loader(*, dies_once: Path | None = None, breaks: bool = False) -> Callable[[], Moderator]:
    """Makes a worker's moderator; its results name the node and the process as their model."""
    flag = None if dies_once is None else str(dies_once)

    def load() -> Any:  # sent to the workers by value, so it imports what it needs there
        import os
        import signal
        import time

        import ray

        from guardreasoner_moderation import Moderator
        from guardreasoner_moderation.engines.scripted import ScriptedEngine
        from guardreasoner_moderation.models import ModelSpec
        from guardreasoner_moderation.prompts import PromptFormat

        def reply(prompt: Any) -> str:
            time.sleep(0.01)
            if breaks:
                raise RuntimeError("a bug in the engine")
            if flag is not None and "number 123 " in f"{prompt.text} ":
                try:
                    os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
                    os.kill(os.getpid(), signal.SIGKILL)
                except FileExistsError:
                    pass
            return " harmful\nCategory: other" if "bomb" in prompt.text else " unharmful"

        spec = ModelSpec(prompt_format=PromptFormat.COMPACT, categories=("other",))
        name = f"{ray.get_runtime_context().get_node_id()} {os.getpid()}"
        return Moderator.from_engine(ScriptedEngine(reply), spec, name=name)

    return load


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Any, list[Any]]]:
    """A cluster, and its two nodes with room for two workers each; the head has none."""
    from ray.cluster_utils import Cluster

    local = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    both = [local.add_node(num_cpus=2), local.add_node(num_cpus=2)]
    local.wait_for_nodes()
    ray.init(address=local.address, log_to_driver=False)
    yield local, both
    ray.shutdown()
    local.shutdown()


def judged(source: Path, runner: RayRunner, **settings: Any) -> list[dict[str, Any]]:
    target = source.with_name("out.jsonl")
    summary = judge_file(source, target, runner, mode="verdict", window_size=10, **settings)
    rows = read_jsonl(target)
    assert (summary.rows, summary.flagged, summary.unjudged) == (ROWS, ROWS // 5, 0)
    assert [row["id"] for row in rows] == list(range(ROWS))
    assert [row["moderation"]["flagged"] for row in rows] == [number % 5 == 0 for number in range(ROWS)]
    return rows


@on_cluster
def test_a_worker_that_is_killed_loses_no_row(nodes: Any, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", some_rows(ROWS))
    died = tmp_path / "died"
    rows = judged(source, RayRunner(loader(dies_once=died), "embedded", workers=2))
    assert died.exists()
    workers = Counter(row["moderation"]["model"] for row in rows)
    assert len(workers) >= 2, workers
    print("rows by worker:", dict(workers))


@on_cluster
def test_a_node_that_is_lost_loses_no_row(nodes: Any, tmp_path: Path) -> None:
    local, both = nodes
    source = write_jsonl(tmp_path / "in.jsonl", some_rows(ROWS))
    lost: list[float] = []

    def pull_the_plug(progress: Progress) -> None:
        if progress.done >= ROWS // 4 and not lost:
            lost.append(time.monotonic())
            local.remove_node(both.pop(), allow_graceful=False)

    rows = judged(source, RayRunner(loader(), "embedded", workers=2), on_progress=pull_the_plug)
    assert lost
    used = Counter(row["moderation"]["model"].split()[0] for row in rows)
    assert len(used) == 2, used
    print("rows by node:", dict(used))


@on_cluster
def test_an_interrupted_job_goes_on(nodes: Any, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", some_rows(ROWS))

    def stop(progress: Progress) -> None:
        if progress.done >= ROWS // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judged(source, RayRunner(loader(), "embedded", workers=2), on_progress=stop)
    before = tmp_path / "out.jsonl.unfinished" / "journal.jsonl"
    done = [json.loads(line)[0] for line in before.read_text().splitlines()[1:]]
    assert done == list(range(len(done)))
    seen: list[Progress] = []
    judged(source, RayRunner(loader(), "embedded", workers=2), on_progress=seen.append)
    assert seen[0].before == len(done)


@on_cluster
def test_a_bug_in_a_worker_is_an_error_of_this_package(nodes: Any, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", some_rows(20))
    with pytest.raises(EngineError, match="a bug in the engine"):
        judge_file(source, tmp_path / "out.jsonl", RayRunner(loader(breaks=True), "embedded", workers=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "at least 1 worker"),
        ({"cpus": 0.0}, "must take some part"),
        ({"address": "ray://head:10001"}, "must run on a node of the cluster"),
    ],
)
def test_wrong_settings_of_a_cluster(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RayRunner(guard_that_knows, "embedded", **options)
