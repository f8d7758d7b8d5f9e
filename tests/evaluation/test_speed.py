from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import pytest

from evaluation.speed import race
from evaluation.speed_limits import bytes_to_write, measure_peaks, operations_to_read
from evaluation.speed_sides import come_to_rest
from guardreasoner_moderation.checkpoint import LlamaShape
from guardreasoner_moderation.results import Mode

SHAPE = LlamaShape(
    layers=2,
    heads=4,
    kv_heads=2,
    hidden=8,
    feed_forward=16,
    vocabulary=100,
    context=64,
    rope_theta=10000.0,
    norm_epsilon=1e-5,
)


class Paced:
    """A side that takes the times it is told, and writes three tokens, or as many as it must."""

    def __init__(self, times: Sequence[float], *, obeys: bool) -> None:
        self._times = list(times)
        self._obeys = obeys
        self.seen: list[tuple[str, ...]] = []

    def judge(self, texts: Sequence[str], mode: Mode, tokens: int) -> tuple[float, list[int]]:
        self.seen.append(tuple(texts))
        return self._times.pop(0), [tokens if self._obeys else 3] * len(texts)


def test_the_first_round_is_not_counted_and_the_ratio_is_of_medians() -> None:
    ours, plain = Paced([9, 1, 2, 3], obeys=False), Paced([9, 4, 8, 5], obeys=True)
    runs = [["a"], ["b"], ["c"], ["d"]]
    row = race({"ours": ours, "transformers": plain}, runs, Mode.THINK)  # type: ignore[dict-item]
    assert (row["ours"]["p50"], row["transformers"]["p50"], row["ratio"]) == (2, 5, {"transformers": 2.5})
    assert ours.seen == plain.seen == [("a",), ("b",), ("c",), ("d",)]


def test_plain_transformers_writes_as_many_tokens_as_ours_did() -> None:
    sides = {"ours": Paced([1, 1], obeys=False), "transformers": Paced([1, 1], obeys=True)}
    row = race(sides, [["a", "b"], ["c", "d"]], Mode.THINK)  # type: ignore[arg-type]
    assert row["ours"]["tokens"] == row["transformers"]["tokens"] == 3
    assert row["ours"]["items_per_second"] == 2


def test_the_machine_is_measured_with_the_engines_own_products() -> None:
    peaks = measure_peaks(256)
    assert min(peaks.float_gflops, peaks.int8_gops, peaks.read_gbs) > 0.1


def test_bytes_of_a_token_are_those_of_all_matrices() -> None:
    # Each layer: q and o 8x8, k and v 8x4, three of 8x16; then the projection to 100 words.
    assert bytes_to_write(SHAPE, 1) == 2 * (2 * 64 + 2 * 32 + 3 * 128) + 800


def test_operations_of_a_prompt_are_two_for_each_weight_and_token_and_those_of_attention() -> None:
    assert operations_to_read(SHAPE, 10) == 2 * 10 * 2 * 576 + 2 * 800 + 2 * 2 * 8 * 100


@pytest.mark.parametrize("mode", [Mode.VERDICT, Mode.THINK])
def test_a_side_answers_line_by_line(mode: Mode) -> None:
    command = json.dumps({"texts": ["How do I bake bread?"], "mode": mode, "tokens": 4})
    found = subprocess.run(
        [sys.executable, "-m", "evaluation.speed_sides", "transformers"],
        input=command + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(found.stdout)
    assert answer["tokens"] == [1 if mode is Mode.VERDICT else 4]
    assert answer["seconds"] > 0
    assert answer["peak_mb"] > 100


def test_a_side_hands_over_only_when_its_threads_are_at_rest() -> None:
    ended = threading.Event()

    def poll() -> None:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            pass
        ended.set()

    threading.Thread(target=poll).start()
    come_to_rest()
    assert ended.is_set()


def test_a_side_that_never_rests_is_not_waited_for_longer_than_allowed() -> None:
    ended = threading.Event()

    def poll() -> None:
        while not ended.is_set():
            pass

    thread = threading.Thread(target=poll)
    thread.start()
    started = time.monotonic()
    come_to_rest(most=0.3)
    ended.set()
    thread.join()
    assert 0.3 <= time.monotonic() - started < 5
