"""The trials of a server's faults in small sizes: a real process of the embedded model, and real clients."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from evaluation.load import serving
from reliability.server_faults import SLOW, drain, kill_the_engine, kill_the_server, patient_server, slow_clients

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="kills processes with signals"),
    pytest.mark.usefixtures("embedded"),  # it is in the cache before a server looks for it
]


def test_a_killed_engine_costs_nobody_an_answer_and_comes_back_twice_in_a_row() -> None:
    """How soon is measured by the command: here other tests may want the cores too."""
    with serving("--mode", "verdict") as (url, server):
        found = asyncio.run(kill_the_engine(url, server, 2))
    assert found.figures["lost"] == 0, found
    assert found.figures["judged"] > 0


def test_the_engine_does_not_outlive_a_killed_server() -> None:
    assert asyncio.run(kill_the_server(1)).failed == 0


def test_a_shutdown_finishes_what_was_accepted() -> None:
    found = asyncio.run(drain(1))
    assert (found.failed, found.figures["judged"]) == (0, 26)


def test_a_shutdown_answers_what_was_accepted_even_where_the_engine_dies_meanwhile() -> None:
    found = asyncio.run(drain(1, kill=True))
    assert found.failed == 0
    assert found.figures["judged"] + found.figures["error told"] == 26


@pytest.fixture(scope="module")
def patient() -> Iterator[str]:
    with patient_server() as url:
        yield url


@pytest.mark.parametrize("kind", SLOW)
def test_slow_clients_are_cut_off_and_hold_nobody_up(patient: str, kind: str) -> None:
    found = asyncio.run(slow_clients(patient, kind, 320))
    assert found.failed == 0, found
    assert found.figures["judged"] > 0
