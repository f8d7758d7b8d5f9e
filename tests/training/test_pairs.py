from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from labelled import refused, write

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Label, Task
from training.data import write_rows
from training.pairs import PreferencePair, pair_row, read_pairs

STEPS = {"request": ["Reading mail."], "completion": ["It declines."], "response": ["Nothing bad."]}
CHOSEN = refused(reasoning=STEPS)
WRONG = {**CHOSEN.labels, Task.REQUEST: Label.UNHARMFUL}
REJECTED = replace(
    CHOSEN, labels=WRONG, category=None, reasoning={**CHOSEN.reasoning, Task.REQUEST: ("Just letters.",)}
)
PAIR = PreferencePair(refused(), CHOSEN, REJECTED, 1.2, right=1, wrong=3, model="embedded")


def test_a_pair_is_written_as_it_is_read(tmp_path: Path) -> None:
    write_rows([pair_row(PAIR)], tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path / "pairs.jsonl") == [PAIR]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": None}, "line 2"),
        ({"rejected": {**pair_row(PAIR)["rejected"], "reasoning": None}}, "the rejected answer lacks reasoning"),
        ({"rejected": {}}, "the key 'request' is missing"),
        ({"weight": "heavy"}, "could not convert"),
    ],
)
def test_a_bad_pair_names_file_and_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "pairs.jsonl", [pair_row(PAIR), {**pair_row(PAIR), **changes}])
    with pytest.raises(InputError, match=rf"pairs\.jsonl, line 2.*{message}" if message != "line 2" else message):
        read_pairs(file)


def test_a_pair_without_a_weight_is_an_error(tmp_path: Path) -> None:
    row = {key: value for key, value in pair_row(PAIR).items() if key != "weight"}
    with pytest.raises(InputError, match="line 1: the key 'weight' is missing"):
        read_pairs(write(tmp_path / "pairs.jsonl", [row]))


def test_no_pairs_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pairs"):
        read_pairs(write(tmp_path / "pairs.jsonl", []))
