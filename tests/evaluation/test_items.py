from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.items import Columns, Item, draw_sample, read_items, read_rows
from guardreasoner_moderation.errors import InputError, MissingDependencyError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label, Task

ROWS = [{"prompt": "How do I bake bread?", "label": "safe"}, {"prompt": 'a\u2028b, "c"\nd', "label": "unsafe"}]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    kind = file.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "json":
        text = json.dumps(rows)
    elif kind == "jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        with file.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, rows[0])
            table.writeheader()
            table.writerows(rows)
        text = file.read_text(encoding="utf-8")
    file.write_bytes(gzip.compress(text.encode()) if file.name.endswith(".gz") else text.encode())
    return file


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.csv", "T.JSONL.gz", "t.csv.gz"])
def test_formats_give_the_same_items(tmp_path: Path, name: str) -> None:
    rows = read_rows(write(tmp_path / name.lower(), ROWS))
    items = read_items(rows, Columns(), Task.REQUEST, name="bread", where=name)
    assert [item.interaction.prompt for item in items] == [row["prompt"] for row in ROWS]
    assert [item.label for item in items] == [Label.UNHARMFUL, Label.HARMFUL]
    assert [item.id for item in items] == ["bread/0", "bread/1"]


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    file.write_bytes(b"PAR1")
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"guardreasoner-moderation\[eval\]"):
            read_rows(file)
        return
    with pytest.raises(InputError, match=r"t\.parquet is not a Parquet file"):
        read_rows(file)
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    assert read_rows(file) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", b"", "t.json holds no rows"),
        ("t.jsonl", b"\n", "t.jsonl holds no rows"),
        ("t.csv", b"prompt,label\n", "t.csv holds no rows"),
        ("t.csv", b"prompt,label\na,safe,b\n", "t.csv, row 1 has more columns than the heading"),
        ("t.json", b"{}", "must hold a JSON list of rows, found dict"),
        ("t.json", b"[1]", "row 1: expected an object with named columns, found int"),
        ("t.json", b"[", "is not JSON"),
        ("t.jsonl", b'{"a": 1}\n{"a', "t.jsonl, row 2: not JSON"),
        ("t.jsonl", b"\xff\xfe", "is not UTF-8"),
        ("t.jsonl.gz", b"no gzip", "cannot be read"),
        ("t.jsnl", b"", "is of no known format; did you mean 'jsonl'?"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_rows(tmp_path / name)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv cannot be read: No such file"):
        read_rows(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("row", "columns", "task", "message"),
    [
        (
            {"promt": "x", "label": "safe"},
            Columns(),
            Task.REQUEST,
            "f.csv has no column 'prompt'; did you mean 'promt'?",
        ),
        ({"prompt": "x"}, Columns(), Task.REQUEST, "f.csv has no column 'label'"),
        (
            {"prompt": "x", "label": "1"},
            Columns(),
            Task.REQUEST,
            "f.csv, row 1, column 'label': '1' is neither harmful",
        ),
        ({"prompt": "x", "label": None}, Columns(), Task.REQUEST, "row 1, column 'label': 'None' is neither"),
        ({"prompt": "x", "label": "refusal"}, Columns(), Task.REQUEST, "'refusal' is neither harmful nor unharmful"),
        ({"prompt": " ", "label": "safe"}, Columns(), Task.REQUEST, "row 1, column 'prompt': the prompt is empty"),
        ({"prompt": 3, "label": "safe"}, Columns(), Task.REQUEST, "row 1, column 'prompt': the prompt must be text"),
        (
            {"prompt": "x", "answer": " ", "label": "safe"},
            Columns(response="answer"),
            Task.RESPONSE,
            "row 1, column 'answer': there is no response, which the response task is about",
        ),
    ],
)
def test_bad_rows_are_named(row: dict[str, Any], columns: Columns, task: Task, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_items([row], columns, task, name="b", where="f.csv")
    assert message in str(caught.value)


def test_labels_may_be_numbers_booleans_flags_or_one_for_all() -> None:
    def labels(rows: list[dict[str, Any]], columns: Columns) -> list[Label]:
        return [item.label for item in read_items(rows, columns, Task.REQUEST, name="b", where="f")]

    numbers = Columns(labels={"1": Label.HARMFUL, "0": Label.UNHARMFUL})
    assert (
        labels([{"prompt": "x", "label": value} for value in (1, 0.0, "1", "0 ")], numbers)
        == [
            Label.HARMFUL,
            Label.UNHARMFUL,
        ]
        * 2
    )
    is_safe = Columns(label="is_safe", labels={"true": Label.UNHARMFUL, "false": Label.HARMFUL})
    assert labels([{"prompt": "x", "is_safe": False}], is_safe) == [Label.HARMFUL]
    flags = Columns(flags=("hate", "violence"))
    assert labels([{"prompt": "x", "hate": 0, "violence": 1}, {"prompt": "x", "hate": None}], flags) == [
        Label.HARMFUL,
        Label.UNHARMFUL,
    ]
    assert labels([{"prompt": "x"}], Columns(constant=Label.HARMFUL)) == [Label.HARMFUL]


def test_rows_can_be_left_out_and_keep_their_numbers() -> None:
    rows = [
        {"prompt": "a", "label": None, "human": True},
        {"prompt": "REDACTED", "label": "safe", "human": True},
        {"prompt": "b", "label": "safe", "human": False},
        {"prompt": "c", "label": "safe", "human": True},
    ]
    columns = Columns(blank=True, only=("human", "true"), drop=("prompt", "redacted"))
    (item,) = read_items(rows, columns, Task.REQUEST, name="b", where="f", first=10)
    assert (item.id, item.interaction.prompt) == ("b/13", "c")


def test_digest_tells_texts_apart() -> None:
    def digest(prompt: str, response: str | None = None) -> str:
        return Item("i", Interaction(prompt, response), Label.HARMFUL).digest

    assert digest("a") == digest("a")
    assert len({digest("a"), digest("b"), digest("a", "b"), digest("a", "c")}) == 4


def labelled(risky: int, other: int) -> list[Item]:
    labels = [Label.HARMFUL] * risky + [Label.UNHARMFUL] * other
    return [Item(f"b/{number}", Interaction(str(number)), label) for number, label in enumerate(labels)]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(2, 80), st.integers(0, 3))
def test_samples_are_fixed_ordered_and_stratified(risky: int, other: int, limit: int, seed: int) -> None:
    items = labelled(risky, other)
    sample = draw_sample(items, limit, seed)
    assert sample == draw_sample(items, limit, seed)
    assert len(sample) == min(limit, len(items))
    assert sample == sorted(sample, key=items.index)
    assert len({item.id for item in sample}) == len(sample)
    counts = Counter(item.label for item in sample)
    for label, all_of_it in ((Label.HARMFUL, risky), (Label.UNHARMFUL, other)):
        if all_of_it:
            assert abs(counts[label] - len(sample) * all_of_it / len(items)) <= 1
            assert counts[label] >= 1


def test_another_seed_draws_other_items() -> None:
    items = labelled(100, 100)
    assert draw_sample(items, 50, 0) != draw_sample(items, 50, 1)


def test_a_sample_needs_each_label() -> None:
    with pytest.raises(InputError, match="at least 2 items"):
        draw_sample(labelled(3, 3), 1, 0)
