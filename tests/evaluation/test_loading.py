from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from samples import public_data, write_lines

from evaluation.benchmarks import BENCHMARKS
from evaluation.items import Columns
from evaluation.loading import Benchmark, HubSource, LocalFile, find_file, load, load_file
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label, Task


def row(prompt: str, response: str, output: str | None, **others: Any) -> dict[str, Any]:
    text = f"Human user:\n{prompt}\n\nAI assistant:\n{response}\n\n"
    return {"instruction": "Judge this.", "input": text, "output": output, **others}


def benchmark(task: Task = Task.RESPONSE, items: int = 2, label: str = "output", **hub: Any) -> Benchmark:
    source = HubSource("owner/data", **hub)
    return Benchmark(
        "Mini", task, items, "CC0", adversarial=False, hub=source, local=LocalFile("mini.json", None, label)
    )


def put(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mini.json").write_text(json.dumps(rows))
    return folder / "mini.json"


@pytest.mark.parametrize("subfolder", ["", "benchmarks"])
def test_release_files_are_found_and_read(tmp_path: Path, subfolder: str) -> None:
    block = "Answers: \nRequest: None\nCompletion: None\nResponse: unharmful\n"
    put(tmp_path / subfolder, [row("a", "b", "harmful"), row("c", "d", block)])
    loaded = load(benchmark(), tmp_path)
    assert [item.label for item in loaded.items] == [Label.HARMFUL, Label.UNHARMFUL]
    assert [item.interaction for item in loaded.items] == [Interaction("a", "b"), Interaction("c", "d")]
    assert (loaded.source, loaded.revision, loaded.size_note) == ("mini.json", None, None)


def test_unlabelled_rows_of_wildguard_are_left_out(tmp_path: Path) -> None:
    file = put(tmp_path, [row("a", "b", "", harm="harmful"), row("c", "d", "", harm=None)])
    loaded = load_file(benchmark(label="harm"), file)
    assert [item.id for item in loaded.items] == ["Mini/0"]
    assert loaded.size_note == "Mini has 1 items in mini.json, 2 were published"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a", "None", "harmful")], "row 1, column 'input': there is no response"),
        ([row("a", "b", "harmful"), row("a", "b", "refusal")], "row 2, column 'output': 'refusal' is neither harmful"),
        ([row(" ", "b", "harmful")], "row 1, column 'input': the prompt is empty"),
        ([{"input": "x", "output": "harmful"}], "row 1, column 'input': expected 'Human user:'"),
        ([{"input": "x", "outptu": "harmful"}], "row 1: there is no column 'output'; did you mean 'outptu'?"),
        ([row("a", "b", None)], "mini.json holds no item that is labelled for Mini"),
        ([], "holds no rows"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    file = put(tmp_path, rows)
    with pytest.raises(InputError, match=r"mini\.json") as caught:
        load_file(benchmark(), file)
    assert message in str(caught.value)


def test_the_hub_is_asked_for_the_pinned_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = tmp_path / "c0ffee"
    write_lines(tmp_path / "c0ffee/data/bad-0.jsonl", [{"text": "a"}])
    write_lines(tmp_path / "c0ffee/data/bad-1.jsonl", [{"text": "b"}])
    write_lines(tmp_path / "c0ffee/data/good.jsonl", [{"text": "c"}])
    asked: dict[str, Any] = {}

    def snapshot(repo_id: str, **options: Any) -> str:
        asked.update(options, id=repo_id)
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    files = {"data/bad-*.jsonl": Label.HARMFUL, "data/good.jsonl": Label.UNHARMFUL}
    mini = benchmark(Task.REQUEST, 3, revision="pinned", files=files, columns=Columns("text"))
    loaded = load(mini, tmp_path)
    assert [(item.id, item.label.value) for item in loaded.items] == [
        ("Mini/0", "harmful"),
        ("Mini/1", "harmful"),
        ("Mini/2", "unharmful"),
    ]
    assert (loaded.source, loaded.revision) == ("owner/data", "c0ffee")
    assert asked == {"id": "owner/data", "repo_type": "dataset", "revision": "pinned", "allow_patterns": list(files)}
    load(mini, revision="recorded")
    assert asked["revision"] == "recorded"
    (commit / "data" / "good.jsonl").unlink()
    with pytest.raises(InputError, match=r"owner/data has no file data/good\.jsonl at commit c0ffee"):
        load(mini)


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(repo_id: str, **options: Any) -> str:
        raise LocalEntryNotFoundError("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(InputError, match=r"Mini cannot be loaded.*no network\).*put mini\.json into the data folder"):
        load(benchmark(files={"x.csv": None}))


def test_selections_are_not_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Mini is a selection of owner/data.*take mini\.json from yueliu1999"):
        load(benchmark(), tmp_path)


def test_the_public_files_have_their_published_sizes() -> None:
    data = public_data()
    notes = {}
    total = 0
    for one in BENCHMARKS.values():
        file = find_file(one, data)
        if file is not None and not one.shipped:
            loaded = load_file(one, file)
            total += len(loaded.items)
            notes[one.name] = loaded.size_note
    differing = {name: note for name, note in notes.items() if note}
    assert differing == {
        "XSTestResponseRefusal": (
            "XSTestResponseRefusal has 449 items in 0_7_xstest_response_refusal.json, 499 were published"
        )
    }
    assert total == 13303
