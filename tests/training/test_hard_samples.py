from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from labelled import item, row, write
from typer.testing import CliRunner, Result

from guardreasoner_moderation.engines.scripted import ScriptedEngine
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import LoadedModel, ModelSpec
from guardreasoner_moderation.prompts import Prompt, PromptFormat
from guardreasoner_moderation.results import Label, Task
from training import hard_samples
from training.data import LabelledInteraction, read_interactions
from training.hard_samples import merge, mine, repeat_difficult, weigh
from training.pairs import read_pairs
from training.sampling import Samples


def answer(prompt: str, label: str, *steps: str) -> LabelledInteraction:
    return item(prompt, request=label, reasoning={"request": list(steps)})


def samples(prompt: str, right: int, wrong: int) -> Samples:
    """Of a harmless request; the n-th answer has a reasoning of n letters."""
    return Samples(
        item(prompt),
        [answer(prompt, "unharmful", "r" * length) for length in range(1, right + 1)],
        [answer(prompt, "harmful", "w" * length) for length in range(1, wrong + 1)],
    )


def test_weights_are_those_of_equation_3() -> None:
    # k = 4: one, two or three of four answers wrong; the differences are -2, 0 and 2.
    assert weigh([-2, 0, 2, 0], 0.2) == pytest.approx([0.8, 1.0, 1.2, 1.0])


def test_norm_is_linear_between_the_extremes() -> None:
    assert weigh([-3, -1, 5], 0.4) == pytest.approx([0.6, 0.6 + 0.8 * 2 / 8, 1.4])


@pytest.mark.parametrize("differences", [[], [2], [0, 0, 0]])
def test_equal_items_have_equal_weights(differences: list[int]) -> None:
    assert weigh(differences, 0.2) == [1.0] * len(differences)


@pytest.mark.parametrize("gamma", [-0.1, 1.1])
def test_a_gamma_that_makes_negative_weights_is_an_error(gamma: float) -> None:
    with pytest.raises(InputError, match="gamma must be from 0 to 1"):
        weigh([0, 1], gamma)


def test_only_ambiguous_items_are_hard() -> None:
    found = mine([samples("easy", 4, 0), samples("hard", 3, 1), samples("hopeless", 0, 4), samples("half", 1, 3)], "a")
    assert [(pair.item.id, pair.right, pair.wrong, pair.weight) for pair in found] == [
        ("hard", 3, 1, pytest.approx(0.8)),
        ("half", 1, 3, pytest.approx(1.2)),
    ]


def test_the_longest_answers_make_the_pair() -> None:
    (pair,) = mine([samples("hard", 2, 2)], "a")
    assert pair.chosen.reasoning[Task.REQUEST] == ("rr",)
    assert pair.rejected.reasoning[Task.REQUEST] == ("ww",)
    assert (pair.chosen.labels[Task.REQUEST], pair.rejected.labels[Task.REQUEST]) == (Label.UNHARMFUL, Label.HARMFUL)


def test_the_first_model_that_finds_an_item_hard_has_it() -> None:
    own, others = mine([samples("both", 1, 1)], "self"), mine([samples("both", 1, 1), samples("other", 1, 1)], "one")
    assert [(pair.item.id, pair.model) for pair in merge([own, others])] == [("both", "self"), ("other", "one")]


ITEMS = [item("easy"), item("hard"), item("held out", split="validation")]


@pytest.mark.parametrize(
    ("alone", "ids"),
    [(False, ["easy", "hard", "hard#2", "hard#3", "held out"]), (True, ["hard", "hard#2", "hard#3", "held out"])],
)
def test_difficult_items_are_repeated(alone: bool, ids: list[str]) -> None:
    assert [one.id for one in repeat_difficult(ITEMS, {"hard", "held out"}, 3, alone=alone)] == ids


def test_no_repetition_is_an_error() -> None:
    with pytest.raises(InputError, match="at least once"):
        list(repeat_difficult(ITEMS, {"hard"}, 0))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Short names of models that are unsure of "hard", and wrong about "hopeless"; one is called bold."""
    answers: dict[str, int] = {}

    def load(name: str, **_: Any) -> LoadedModel:
        def reply(prompt: Prompt) -> str:
            text = next(span.text for span in prompt.spans if not span.trusted)
            answers[name + text] = answers.get(name + text, 0) + 1
            wrong = text == "hopeless" or (text == "hard" and answers[name + text] % 2 == 0)
            label = "harmful" if wrong else "unharmful"
            return f"{name} thinks of {text}.\n---\nAnswers:\nRequest: {label}"

        return LoadedModel(name, ScriptedEngine(reply), ModelSpec(prompt_format=PromptFormat.COMPACT))

    monkeypatch.setattr(hard_samples, "load_model", load)
    return ["bold", "shy"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(hard_samples.app, list(map(str, arguments)), catch_exceptions=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [row("easy"), row("hard"), row("hopeless"), row("doubted", flag="wrong"), row("held", split="validation")]
    return write(tmp_path / "data.jsonl", rows)


def test_from_samples_to_pairs_and_to_a_second_round(model: list[str], data: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.jsonl" for name in model]
    for name, file in zip(model, files, strict=True):
        result = run("sample", data, "--model", name, "--k", 4, "--out", file)
        assert result.exit_code == 0, result.output
    assert len(files[0].read_text().splitlines()) == 1 + 3 * 4  # neither doubtful nor validation items
    result = run("pairs", *files, "--data", data, "--out", tmp_path / "pairs.jsonl")
    assert "1 pairs of own by bold" in result.output
    (pair,) = read_pairs(tmp_path / "pairs.jsonl")
    assert (pair.item.id, pair.model, pair.right, pair.wrong, pair.weight) == ("hard", "bold", 2, 2, 1.0)
    assert pair.chosen.reasoning[Task.REQUEST] == ("bold thinks of hard.",)
    result = run("difficult", files[1], "--data", data, "--times", 2, "--out", tmp_path / "second.jsonl")
    assert "2 difficult items, 2 times each; 7 items written" in result.output
    ids = [one.id for one in read_interactions(tmp_path / "second.jsonl")]
    assert ids == ["easy", "hard", "hard#2", "hopeless", "hopeless#2", "doubted", "held"]


def test_more_wrong_answers_make_an_item_difficult(model: list[str], data: Path, tmp_path: Path) -> None:
    run("sample", data, "--model", "bold", "--k", 4, "--out", tmp_path / "bold.jsonl")
    options = ("--data", data, "--least-wrong", 3, "--alone", "--out", tmp_path / "second.jsonl")
    run("difficult", tmp_path / "bold.jsonl", *options)
    ids = [one.id for one in read_interactions(tmp_path / "second.jsonl")]
    assert ids == ["hopeless", "hopeless#2", "held"]


def test_samples_of_a_changed_data_file_are_not_mixed(model: list[str], data: Path, tmp_path: Path) -> None:
    run("sample", data, "--model", "bold", "--k", 2, "--out", tmp_path / "bold.jsonl")
    write(data, [row("easy", request="harmful")])
    with pytest.raises(InputError, match="was begun with data"):
        run("sample", data, "--model", "bold", "--k", 2, "--out", tmp_path / "bold.jsonl")


def test_two_files_of_one_model_are_an_error(model: list[str], data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run("sample", data, "--model", "bold", "--k", 2, "--out", tmp_path / f"{name}.jsonl")
    with pytest.raises(InputError, match="answers of bold, of which there are some already"):
        run("pairs", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--data", data, "--out", tmp_path / "pairs.jsonl")


def test_nothing_hard_is_an_error(model: list[str], tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", [row("easy")])
    run("sample", data, "--model", "bold", "--k", 2, "--out", tmp_path / "bold.jsonl")
    for command, message in (("pairs", "no item is hard"), ("difficult", "no item is difficult")):
        with pytest.raises(InputError, match=message):
            run(command, tmp_path / "bold.jsonl", "--data", data, "--out", tmp_path / "out.jsonl")


def test_an_error_of_the_command_is_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "training.hard_samples",
        "pairs",
        "nowhere.jsonl",
        "--data",
        "nothing",
        "--out",
        "x",
    ]
    root = Path(hard_samples.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: there is no file nothing\n"


def test_the_embedded_model_is_sampled(tmp_path: Path) -> None:
    data = write(
        tmp_path / "data.jsonl",
        [row("How do I sharpen a kitchen knife?"), row("How do I hurt my neighbour?", request="harmful")],
    )
    result = run("sample", data, "--k", 2, "--temperature", 1.0, "--out", tmp_path / "self.jsonl")
    assert result.exit_code == 0, result.output
    job, *rows = map(json.loads, (tmp_path / "self.jsonl").read_text().splitlines())
    assert len(job["weights_sha256"]) == 64
    assert len(rows) == 4
    usable = [one for one in rows if one["unusable"] is None]
    assert usable
    assert all(one["reasoning"]["request"] for one in usable)
    assert len({json.dumps(one["reasoning"]) for one in usable}) > 1  # the draws differ
