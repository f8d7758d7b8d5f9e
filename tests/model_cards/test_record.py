from __future__ import annotations

from pathlib import Path

import pytest
from example_cards import BASE, EMBEDDED, make_run, sha256_of_run, write

from guardreasoner_moderation.errors import InputError
from model_cards.record import find_licence, read_record


def test_a_run_is_read_with_its_adapter_below_it(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run"))
    assert record.base == BASE
    assert record.sha256 == sha256_of_run(tmp_path / "run")
    assert [(row.source, row.license, row.train) for row in record.data] == [
        ("WildGuardTrain", "ODC-BY-1.0", 3000),
        ("written here", "CC0-1.0", 100),
    ]
    assert not record.is_shipped


def test_the_embedded_adapter_is_a_run_and_known_as_shipped() -> None:
    assert read_record(EMBEDDED).is_shipped


def test_a_decision_can_lie_elsewhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert read_record(run).decision is None
    assert read_record(run, write(tmp_path / "d.json", {"verdict": "publish"})).decision == {"verdict": "publish"}


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no adapter: no adapter_config\.json"):
        read_record(tmp_path)
    with pytest.raises(InputError, match="there is no run folder"):
        read_record(tmp_path / "none")


def test_an_adapter_that_does_not_tell_how_it_is_asked_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "adapter" / "moderation.json").unlink()
    with pytest.raises(InputError, match=r"has no moderation\.json"):
        read_record(run)


def test_a_damaged_inventory_names_the_file(tmp_path: Path) -> None:
    record = read_record(make_run(tmp_path / "run", inventory=[{"source": "x"}]))
    with pytest.raises(InputError, match=r"run\.json: the inventory is not right: KeyError\('license'\)"):
        _ = record.data


@pytest.mark.parametrize(
    ("base", "licence"),
    [
        (BASE, "apache-2.0"),
        ("meta-llama/Llama-3.2-3B-Instruct", "llama3.2"),
        ("unsloth/llama-3.2-1b-instruct-bnb-4bit", "llama3.2"),
        ("meta-llama/Llama-3.1-8B", "llama3.1"),
    ],
)
def test_the_licence_follows_from_the_base(base: str, licence: str) -> None:
    found = find_licence(base)
    assert found.id == licence
    if licence.startswith("llama"):
        number = licence.removeprefix("llama")
        assert (found.name_begins, found.display) == ("Llama", "Built with Llama")
        assert found.notice == (
            f"Llama {number} is licensed under the Llama {number} Community License, Copyright © Meta Platforms, Inc. "
            "All Rights Reserved."
        )


def test_an_unknown_base_needs_a_licence_and_a_known_one_keeps_its_own() -> None:
    with pytest.raises(InputError, match="pass --license"):
        find_licence("someone/model")
    assert find_licence("someone/model", "mit").id == "mit"
    with pytest.raises(InputError, match=r"is under llama3\.2, so an adapter of it cannot be under mit"):
        find_licence("meta-llama/Llama-3.2-3B", "mit")
