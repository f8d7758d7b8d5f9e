from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from labelled import pair_of_texts, row, write

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction, Turn
from guardreasoner_moderation.results import Category, Label, Task
from training import sources
from training.sources import HUB_SPLITS, Loaded, load_file, load_sources, read_prompts

OUTPUT = """\
# Task 1

## Reasoning Step 1
The user wants to read letters that are not theirs.

# Task 2

## Reasoning Step 1
The assistant declines.

# Task 3

## Reasoning Step 1
Nothing of use is said.

---

Answers:
Request: harmful
Completion: refusal
Response: unharmful"""


def release(prompt: str, response: str = "None", output: str = OUTPUT) -> dict[str, str]:
    text = f"Human user:\n{prompt}\n\nAI assistant:\n{response}\n\n"
    return {"instruction": "Judge this.", "input": text, "output": output}


def chat(*texts: str, **columns: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)], **columns}


def test_rows_of_the_release_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "AegisTrain-R.jsonl", [release("How do I open letters?", "No."), release("Letters?")])
    loaded = load_file(file)
    both, request = loaded.items
    assert both.id == "AegisTrainR/0"
    assert (both.source, both.license) == ("AegisTrainR", "CC-BY-4.0")
    assert both.interaction == Interaction("How do I open letters?", "No.")
    assert list(both.labels.values()) == [Label.HARMFUL, Label.REFUSAL, Label.UNHARMFUL]
    assert both.reasoning[Task.COMPLETION] == ("The assistant declines.",)
    # What the teacher invented of a response that is not there is no label.
    assert request.labels == {Task.REQUEST: Label.HARMFUL}
    assert set(request.reasoning) == {Task.REQUEST}


def test_rows_of_the_release_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    rows = [release("a"), release("b", output="I cannot help."), {**release("c"), "input": "c"}]
    loaded = load_file(write(tmp_path / "mine.jsonl", rows))
    assert len(loaded.items) == 1
    assert sorted(loaded.left_out.values()) == [1, 1]


def test_a_release_without_any_label_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labelled interactions; 2 rows: no request label in the output"):
        load_file(write(tmp_path / "mine.jsonl", [release("a", output="?"), release("b", output="?")]))


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "lines.json", "parquet"])
def test_all_formats_give_the_same_items(tmp_path: Path, ending: str) -> None:
    rows = [row(), pair_of_texts(reasoning={"request": ["a"], "completion": ["b"], "response": ["c"]})]
    file = tmp_path / f"mine.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    elif ending == "json":
        file.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    elif ending == "jsonl.gz":
        file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    else:
        write(file, rows)
    assert load_file(file).items == load_file(write(tmp_path / "expected.jsonl", rows)).items


def test_a_csv_has_no_value_where_it_has_no_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("prompt,response,request,category\nHi,,unharmful,\nKill,,harmful,violence_physical_harm\n")
    first, second = load_file(file).items
    assert first.interaction == Interaction("Hi")
    assert second.category is Category.VIOLENCE_PHYSICAL_HARM


def test_what_a_row_does_not_say_is_filled_in(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.jsonl", [{"prompt": "Hi", "request": "unharmful"}])
    (item,) = load_file(file, default_license="CC-BY-4.0").items
    assert (item.id, item.source, item.license, item.split) == ("mine/0", "mine", "CC-BY-4.0", "train")
    assert load_file(file).items[0].license == "not stated"


def test_chat_exports_keep_the_conversation(tmp_path: Path) -> None:
    labels = {"request": "harmful", "completion": "refusal", "response": "unharmful"}
    rows = [chat("Hi", "Hello", "Open a letter?", "No.", labels=labels), chat("Hi", request="unharmful")]
    first, second = load_file(write(tmp_path / "chats.jsonl", rows)).items
    history = (Turn("user", "Hi"), Turn("assistant", "Hello"))
    assert first.interaction == Interaction("Open a letter?", "No.", history)
    assert first.labels[Task.RESPONSE] is Label.UNHARMFUL
    assert second.labels == {Task.REQUEST: Label.UNHARMFUL}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (chat("Hi"), "the key 'request' is missing"),
        (chat("Hi", labels={"reqest": "harmful"}), "unknown task 'reqest' in labels; did you mean 'request'"),
        (chat("Hi", labels={"request": "bad"}), "'bad' is not a valid Label"),
        (chat("Hi", labels={"request": "unharmful", "completion": "refusal"}), "there is no response"),
        ({"messages": [{"role": "robot", "content": "Hi"}], "request": "harmful"}, "the role 'robot'"),
        ({"promt": "Hi", "request": "harmful"}, "no column 'prompt' or 'messages'; found promt, request"),
        (row(split="test"), "unknown split 'test'"),
    ],
)
def test_a_bad_row_names_file_and_place(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    file = write(tmp_path / "mine.jsonl", [row(), bad])
    with pytest.raises(InputError, match=rf"mine\.jsonl, line 2: .*{message}"):
        load_file(file)


def test_a_damaged_line_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(row()) + '\n{"id": ')
    with pytest.raises(InputError, match="line 2: not JSON"):
        load_file(file)


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", [row("b")])
    write(tmp_path / "a.jsonl", [row("a", split="validation")])
    for name in ("README.md", "a.record.json", "a.journal.jsonl"):
        (tmp_path / name).write_text("no data")
    loaded = load_sources([str(tmp_path)])
    assert [(one.name, one.splits_itself) for one in loaded] == [("a", True), ("b", False)]
    assert loaded[0].sha256 == hashlib.sha256((tmp_path / "a.jsonl").read_bytes()).hexdigest()


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no file"):
        load_sources([str(tmp_path)])


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_sources([str(tmp_path / "nowhere.jsonl")])


def test_two_items_of_one_id_are_an_error(tmp_path: Path) -> None:
    files = [str(write(tmp_path / name, [row("a")])) for name in ("one.jsonl", "two.jsonl")]
    with pytest.raises(InputError, match="the id 'a' stands in one and again in two"):
        load_sources(files)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A Hub whose GuardReasonerTrain has one row in each split; notes what was asked for."""
    folder = tmp_path / ("0" * 40)
    folder.mkdir()
    for name, split in HUB_SPLITS.items():
        (folder / split.file).write_text(json.dumps([release(f"What about {name}?")]), encoding="utf-8")
    asked: dict[str, Any] = {}

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.update(id=repo_id, **options)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    known = {name: replace(split, rows=1, sha256=None) for name, split in HUB_SPLITS.items()}
    content = (folder / "WildGuardTrain-R.json").read_bytes()
    known["WildGuardTrainR"] = replace(known["WildGuardTrainR"], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(sources, "HUB_SPLITS", known)
    return asked


def test_the_hubs_four_splits_are_read_at_a_commit(hub: dict[str, Any]) -> None:
    loaded = load_sources(["GuardReasonerTrain"], revision="1" * 40)
    assert [one.name for one in loaded] == list(HUB_SPLITS)
    assert {one.revision for one in loaded} == {"0" * 40}
    assert loaded[2].items[0].license == "CC-BY-NC-4.0"
    assert hub["id"] == "yueliu1999/GuardReasonerTrain"
    assert (hub["repo_type"], hub["revision"]) == ("dataset", "1" * 40)


def test_one_split_of_the_hub_is_read(hub: dict[str, Any]) -> None:
    (loaded,) = load_sources(["GuardReasonerTrain/AegisTrainR"])
    assert isinstance(loaded, Loaded)
    assert hub["allow_patterns"] == ["AegisTrain-R.json"]


def test_an_unknown_split_names_the_nearest() -> None:
    with pytest.raises(InputError, match="no split 'AegisTrain'; did you mean 'AegisTrainR'"):
        load_sources(["GuardReasonerTrain/AegisTrain"])


@pytest.mark.parametrize("changes", [{"sha256": "0" * 64}, {"rows": 2}])
def test_a_file_that_changed_on_the_hub_is_refused(
    hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    name = "GuardReasonerTrain/WildGuardTrainR"
    split = replace(sources.HUB_SPLITS["WildGuardTrainR"], **changes)
    monkeypatch.setattr(sources, "HUB_SPLITS", {"WildGuardTrainR": split})
    with pytest.raises(InputError, match=r"is no longer what was published.*pass --revision 0000"):
        load_sources([name])
    assert load_sources([name], revision="0" * 40)


def test_without_a_network_the_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"no network.*pass copies of AegisTrain-R\.json"):
        load_sources(["GuardReasonerTrain/AegisTrainR"])


def test_prompts_of_benchmark_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([release("a", "x"), release("b")]))
    assert read_prompts(tmp_path / "a.json") == ["a", "b"]
    assert read_prompts(write(tmp_path / "b.jsonl", [{"text": "c", "label": 1}])) == ["c"]
    with pytest.raises(InputError, match=r"c\.jsonl, line 1: there is no text in a column"):
        read_prompts(write(tmp_path / "c.jsonl", [{"question": "d"}]))
