"""Files in every format, sound and not."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from batches import InstantRunner, guard_that_knows, read_jsonl, write_jsonl

from guardreasoner_moderation import InputError, MissingDependencyError
from guardreasoner_moderation.batch import Columns, judge_file

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TASKS = ("request", "completion", "response")
CSV_COLUMNS = ["flagged", *(name for task in TASKS for name in (task, f"{task}_score"))]
CSV_COLUMNS += ["category", "reasoning", "mode", "model", "prompt_tokens", "completion_tokens", "seconds", "error"]


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def judge(source: Path, target: Path, **settings: Any) -> Any:
    return judge_file(source, target, guard_that_knows(), **{"mode": "verdict", **settings})


ROWS = [
    {"id": 1, "prompt": "bake a cake", "response": "Mix flour.", "weight": 0.5, "tags": ["a", "b"], "ok": True},
    {"id": 2, "prompt": "a bomb", "response": None, "weight": 2, "tags": [], "ok": False},
    {"id": 3, "prompt": "Grüße, 你好 🎂", "response": "", "weight": None, "tags": None, "extra": "x"},
]


def test_jsonl_keeps_every_key_and_adds_one_object(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    summary = judge(source, tmp_path / "out.jsonl")
    assert (summary.rows, summary.flagged, summary.unjudged) == (3, 1, 0)
    assert summary.categories == {"violence_physical_harm": 1}
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [{key: row[key] for key in row if key != "moderation"} for row in rows] == ROWS
    assert [list(row)[-1] for row in rows] == ["moderation"] * 3
    assert [row["moderation"]["flagged"] for row in rows] == [False, True, False]
    assert rows[0]["moderation"]["response"]["label"] == "unharmful"
    assert rows[1]["moderation"]["response"] is None
    assert "你好" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")


def test_csv_has_plain_columns_with_a_prefix(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    judge(source, tmp_path / "out.csv", prefix="guard")
    rows = read_csv(tmp_path / "out.csv")
    assert list(rows[0]) == [*ROWS[0], "extra", *(f"guard_{name}" for name in CSV_COLUMNS)]
    first = [rows[0][name] for name in ("id", "weight", "tags", "ok", "extra", "guard_flagged", "guard_request_score")]
    assert first == ["1", "0.5", '["a", "b"]', "true", "", "false", "0.1"]
    assert rows[1]["guard_category"] == "violence_physical_harm"
    assert rows[2]["prompt"] == "Grüße, 你好 🎂"


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb", "a\nb", "\r", 'a "b" c', "a,b", " a ", "a\x85b\u2028c"])
def test_csv_gives_every_text_back(tmp_path: Path, text: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "x", "text": text}, {"prompt": "y", "text": "z"}])
    judge(source, tmp_path / "out.csv")
    assert [row["text"] for row in read_csv(tmp_path / "out.csv")] == [text, "z"]


def test_reasoning_is_one_step_a_line(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a bomb"}])
    guard = guard_that_knows()
    guard.model.engine._reply = lambda prompt: "It asks for harm.\nThat is bad.\n---\nAnswers:\nRequest: harmful"  # type: ignore[attr-defined]
    judge_file(source, tmp_path / "out.csv", guard)
    assert read_csv(tmp_path / "out.csv")[0]["moderation_reasoning"] == "It asks for harm.\nThat is bad."


def test_parquet_takes_its_types_from_what_the_columns_hold(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ROWS)
    judge(source, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert [types[name] for name in ("id", "weight", "tags", "ok")] == ["int64", "double", "string", "bool"]
    assert [types[f"moderation_{name}"] for name in ("flagged", "request_score", "error")] == [
        "bool",
        "double",
        "string",
    ]
    assert table["weight"].to_pylist() == [0.5, 2.0, None]
    assert table["tags"].to_pylist() == ['["a", "b"]', "[]", None]
    assert table["moderation_flagged"].to_pylist() == [False, True, False]


def parquet_of_all_types(file: Path, rows: int = 3) -> Any:
    when = pa.array([1_700_000_000_000_000_001 + n for n in range(rows)], pa.timestamp("ns"))
    columns = {
        "prompt": pa.array([f"number {n}" for n in range(rows)]).dictionary_encode(),
        "when": when,
        "money": pa.array([decimal.Decimal("1.50")] * rows),
        "raw": pa.array([b"\x00\xff"] * rows),
        "nested": pa.array([[{"a": n}] for n in range(rows)]),
        "day": pa.array([datetime.date(2025, 1, 2)] * rows),
    }
    table = pa.table(columns)
    pq.write_table(table, file, row_group_size=1500)
    return table


def test_parquet_to_parquet_keeps_every_type_and_value(tmp_path: Path) -> None:
    before = parquet_of_all_types(tmp_path / "in.parquet", 5000)
    judge_file(tmp_path / "in.parquet", tmp_path / "out.parquet", InstantRunner())
    after = pq.read_table(tmp_path / "out.parquet")
    assert after.select(before.column_names).equals(before)
    assert after["moderation_flagged"].to_pylist() == [True] * 5000


def test_parquet_to_json_and_csv(tmp_path: Path) -> None:
    parquet_of_all_types(tmp_path / "in.parquet")
    judge(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    row = read_jsonl(tmp_path / "out.jsonl")[0]
    assert row["when"].startswith("2023-11-14T22:13:20")
    assert (row["money"], row["raw"], row["nested"], row["day"]) == ("1.50", "AP8=", [{"a": 0}], "2025-01-02")
    judge(tmp_path / "in.parquet", tmp_path / "out.csv")
    row = read_csv(tmp_path / "out.csv")[0]
    assert (row["money"], row["raw"], row["nested"]) == ("1.50", "AP8=", '[{"a": 0}]')


def test_what_json_has_no_form_for_is_null(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a", "x": [NaN, {"y": -Infinity, "z": 1.5}]}\n{"prompt": "a", "\\ud800": NaN}\n')
    judge(source, tmp_path / "out.jsonl")
    assert "NaN" not in (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert [row.get("x") for row in read_jsonl(tmp_path / "out.jsonl")] == [[None, {"y": None, "z": 1.5}], None]


def test_compressed_files(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "in.csv.gz", "wt", encoding="utf-8") as stream:
        stream.write("prompt,id\na bomb,1\na cake,2\n")
    judge(tmp_path / "in.csv.gz", tmp_path / "out.jsonl.gz")
    with gzip.open(tmp_path / "out.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert [(row["id"], row["moderation"]["flagged"]) for row in rows] == [("1", True), ("2", False)]
    judge(tmp_path / "out.jsonl.gz", tmp_path / "again.csv.gz", prefix="second")
    with gzip.open(tmp_path / "again.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        assert next(csv.DictReader(lines))["second_flagged"] == "true"


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    long = "word " * 40_000  # longer than the csv module's own limit
    source.write_bytes(f'\ufeffprompt,note\r\n"two\r\nlines","a ""quote"""\r\n\r\n{long},x\r\n'.encode())
    summary = judge(source, tmp_path / "out.csv")
    assert (summary.rows, summary.unjudged) == (2, 0)
    rows = read_csv(tmp_path / "out.csv")
    assert (rows[0]["prompt"], rows[0]["note"]) == ("two\r\nlines", 'a "quote"')
    assert rows[1]["prompt"] == long


CHAT = [{"role": "user", "content": "a bomb"}, {"role": "assistant", "content": "No."}]


def test_conversations_as_lists_as_json_text_and_in_parquet(tmp_path: Path) -> None:
    rows = [{"messages": CHAT}, {"messages": json.dumps(CHAT)}, {"messages": "[{"}, {"messages": [{"role": "x"}]}, {}]
    judge(write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    results = [row["moderation"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert [result["flagged"] for result in results] == [True] * 5
    assert [result.get("error") is None for result in results] == [True, True, False, False, False]
    assert results[0]["completion"] is not None
    assert "line 3: 'messages' is not a list of chat messages in JSON" in results[2]["error"]
    assert "line 5: no 'messages' in this row" in results[4]["error"]
    pq.write_table(pa.table({"chat": [CHAT]}), tmp_path / "in.parquet")
    judge(tmp_path / "in.parquet", tmp_path / "chat.jsonl", columns=Columns(messages="chat"))
    assert read_jsonl(tmp_path / "chat.jsonl")[0]["moderation"]["completion"] is not None


def test_columns_of_other_names(tmp_path: Path) -> None:
    row = {"question": "a cake", "answer": "Mix.", "rules": "Be kind.", "response": "not this one"}
    source = write_jsonl(tmp_path / "in.jsonl", [row])
    judge(source, tmp_path / "1.jsonl", columns=Columns("question", "answer", "rules"))
    assert read_jsonl(tmp_path / "1.jsonl")[0]["moderation"]["response"] is not None
    judge(source, tmp_path / "2.jsonl", columns=Columns("question"))
    assert read_jsonl(tmp_path / "2.jsonl")[0]["moderation"]["response"] is None


BROKEN_LINES = [
    (b'{"prompt": "a cake"', "line 2: not JSON: Expecting ',' delimiter"),
    (b'["a cake"]', "line 2: expected a JSON object, found list"),
    (b'{"prompt": "caf\xe9"}', "line 2: not UTF-8 text: invalid continuation byte"),
    (b"[" * 100_000, "line 2: not readable: nested too deeply"),
    (b'{"prompt": ' + b"1" * 5000 + b"}", "line 2: not readable: Exceeds the limit"),
    (b'{"prompt": "a cake", "prompt": "a bomb"}', "line 2: not readable: the key 'prompt' stands there twice"),
    # Python reads this, and runs out of stack when it writes it again.
    (b'{"prompt": "a", "x": ' + b"[" * 600 + b"]" * 600 + b"}", "line 2: not readable: nested too deeply"),
    (b'{"text": "a cake"}', "line 2: no 'prompt' in this row"),
    (b'{"prompt": 7}', "line 2: the prompt must be text, found int"),
    (b'{"prompt": " "}', "line 2: the prompt is empty"),
    (b'{"prompt": "\\ud800"}', "line 2: the prompt holds a lone surrogate"),
    (b'{"prompt": "a", "response": 3}', "line 2: the response must be text, found int"),
]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(("line", "message"), BROKEN_LINES, ids=[message for _, message in BROKEN_LINES])
def test_a_row_that_cannot_be_read_is_written_with_its_error_and_flagged(
    tmp_path: Path, line: bytes, message: str, ending: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'\xef\xbb\xbf{"prompt": "a cake"}\n' + line + b'\n\n{"prompt": "a bomb"}')
    target = tmp_path / f"out.{ending}"
    summary = judge(source, target)
    assert (summary.rows, summary.flagged, summary.unjudged) == (3, 2, 1)
    if ending == "jsonl":
        results = [row["moderation"] for row in read_jsonl(target)]
        assert [result["flagged"] for result in results] == [False, True, True]
        assert results[1]["request"] is None
        error = results[1]["error"]
    elif ending == "csv":
        error = read_csv(target)[1]["moderation_error"]
    else:
        error = pq.read_table(target)["moderation_error"].to_pylist()[1]
    assert error.startswith(message)


def test_ragged_and_undecodable_rows_of_csv(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(b'id,prompt\n1,a cake\n2\n3,a,bomb\n4,caf\xe9\n5,"a\nb"\n6,a bomb\n')
    summary = judge(source, tmp_path / "out.csv")
    assert (summary.rows, summary.flagged, summary.unjudged) == (6, 4, 3)
    rows = read_csv(tmp_path / "out.csv")
    assert [row["id"] for row in rows] == list("123456")
    assert [row["moderation_error"] for row in rows] == [
        "",
        "line 3: 1 fields, but 2 columns",
        "line 4: 3 fields, but 2 columns",
        "line 5: not UTF-8 text",
        "",
        "",
    ]


def test_a_line_of_jsonl_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardreasoner_moderation.batch.reading._LONGEST_LINE", 1 << 20)
    with gzip.open(tmp_path / "in.jsonl.gz", "wb") as packed:  # 50 kB for 50 MB
        packed.write(b'{"prompt": "a cake"}\n{"prompt": "' + b"x" * 50_000_000)
    with pytest.raises(InputError, match="line 2: longer than 1 MiB"):
        judge(tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl")


def test_values_of_parquet_that_python_has_no_form_for_cost_their_row_alone(tmp_path: Path) -> None:
    texts = pa.array([b"a cake", b"caf\xe9", b"a bomb"], pa.binary()).view(pa.string())
    times = pa.array([0, 0, 2**62], pa.timestamp("ms"))
    pq.write_table(pa.table({"prompt": texts, "when": times}), tmp_path / "in.parquet")
    summary = judge(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert (summary.rows, summary.flagged, summary.unjudged) == (3, 2, 1)
    results = [row["moderation"] for row in read_jsonl(tmp_path / "out.jsonl")]
    assert results[1]["error"].startswith("row 2: not readable: 'utf-8' codec")
    assert [result["flagged"] for result in results] == [False, True, True]


def test_whole_numbers_that_no_float_can_hold_go_into_a_column_of_numbers(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "x": 0.5}, {"prompt": "b", "x": 2**53 + 1}]
    judge(write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["x"].to_pylist() == [0.5, float(2**53)]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def damaged(folder: Path) -> dict[str, tuple[str, bytes, str]]:
    parquet_of_all_types(folder / "whole.parquet")
    whole = (folder / "whole.parquet").read_bytes()
    packed = gzip.compress(b'{"prompt": "a cake"}\n' * 1000)
    return {
        "nothing readable": ("in.jsonl", b"prompt\nhello\n", "no row of .* can be read; line 1: not JSON"),
        "an array": ("in.jsonl", b'[{"prompt": "x"}]', "line 1: expected a JSON object, found list"),
        "utf-16": ("in.csv", "prompt\nhello\n".encode("utf-16"), "is UTF-16"),
        "utf-16 jsonl": ("in.jsonl", '{"prompt": "x"}'.encode("utf-16"), "is UTF-16"),
        "truncated gzip": ("in.jsonl.gz", cut(packed), "damaged or cut short"),
        "no gzip": ("in.csv.gz", b"prompt\nhello\n", "damaged or cut short"),
        "truncated parquet": ("in.parquet", cut(whole), "damaged, cut short, or no Parquet"),
        "empty parquet": ("in.parquet", b"", "damaged, cut short, or no Parquet"),
        "empty csv": ("in.csv", b"", "no line with the names"),
        "twins": ("in.csv", b"prompt,prompt\na,b\n", "two columns of the name 'prompt'"),
        "header bytes": ("in.csv", b"prompt,\xff\na,b\n", "not UTF-8"),
        "open quote": ("in.csv", b'prompt,id\n"a,1\nb,2\n', "line 3: unexpected end of data"),
        "stray quote": ("in.csv", b'prompt,id\n"a"b,1\n', "line 2: .*quotes do not match"),
        "missing column": ("in.csv", b"promt,id\na,1\n", "no prompt column 'prompt'; did you mean 'promt'"),
        "taken": ("in.jsonl", b'{"prompt": "a", "moderation": 1}', "column 'moderation' already"),
        "missing everywhere": ("in.jsonl", b'{"text": "a"}', "no prompt column 'prompt'; known: text"),
    }


def test_damaged_files_are_refused_before_anything_is_judged(tmp_path: Path) -> None:
    for name, (file, content, message) in damaged(tmp_path).items():
        (tmp_path / file).write_bytes(content)
        with pytest.raises(InputError, match=message):
            judge(tmp_path / file, tmp_path / "out.jsonl")
        assert not list(tmp_path.glob("out*")), name


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("nowhere.jsonl", "out.jsonl", "there is no file"),
        ("in.txt", "out.jsonl", "unknown ending '.txt'"),
        ("in.jsonl", "out.json", "unknown ending '.json'; did you mean '.jsonl'"),
        ("in.jsonl", "out.parquet.gz", "unknown ending '.parquet.gz'"),
        ("in.jsonl", "nowhere/out.jsonl", "there is no folder"),
        ("in.jsonl", "in.jsonl", "is the input itself"),
        ("in.jsonl", "link.jsonl", "is the input itself"),
        ("folder.jsonl", "out.jsonl", "is a folder"),
        ("in.jsonl", "folder.jsonl", "is a folder"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, source: str, target: str, message: str) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a cake"}])
    (tmp_path / "in.txt").touch()
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    with pytest.raises(InputError, match=message):
        judge(tmp_path / source, tmp_path / target)
    assert not list(tmp_path.glob("out*"))


def test_columns_that_csv_and_parquet_cannot_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a", "\\ud800": 1}\n')
    monkeypatch.setattr("guardreasoner_moderation.batch.writing.MAX_COLUMNS", 3)
    wide = write_jsonl(tmp_path / "wide.jsonl", [{"prompt": "a", "b": 1, "c": 2, "d": 3}])
    for ending in ("csv", "parquet"):
        with pytest.raises(InputError, match="only JSONL can hold"):
            judge(source, tmp_path / f"out.{ending}")
        with pytest.raises(InputError, match="more than 3 columns; write JSONL"):
            judge(wide, tmp_path / f"out.{ending}")


def test_a_file_of_no_rows_gives_one_of_no_rows(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").touch()
    assert judge(tmp_path / "in.jsonl", tmp_path / "out.jsonl").rows == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    (tmp_path / "in.csv").write_text("prompt\n")
    judge(tmp_path / "in.csv", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    judge(tmp_path / "out.parquet", tmp_path / "out2.parquet", prefix="more")
    assert "more_flagged" in pq.read_table(tmp_path / "out2.parquet").column_names


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "guardreasoner_moderation.batch.parquet", raising=False)
    (tmp_path / "in.parquet").touch()
    with pytest.raises(MissingDependencyError, match=r"pip install 'guardreasoner-moderation\[batch\]'"):
        judge(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "a"}])
    with pytest.raises(MissingDependencyError, match="Parquet needs more packages"):
        judge(source, tmp_path / "out.parquet")


def test_the_module_loads_no_pyarrow_and_no_ray() -> None:
    code = (
        "import sys, guardreasoner_moderation.batch; print([n for n in ('pyarrow', 'ray', 'rich') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
