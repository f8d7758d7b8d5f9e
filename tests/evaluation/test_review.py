from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from typer import Typer
from typer.testing import CliRunner

from evaluation.ratings import (
    Sheet,
    agree,
    count_answers,
    draw_for_rating,
    read_sheet,
    resampled_kappas,
    write_key,
    write_sheet,
)
from evaluation.review import embed_json, main, render_agreement, render_review
from evaluation.rubric import RUBRIC, read_rubric
from evaluation.traces import Source, Trace
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.results import Label, Task

APP = Typer()
APP.command()(main)
NASTY = '</script><script>alert(1)</script> <!-- \u2028 & "it\'s" <b>bold</b>'


def trace(number: int, benchmark: str = "Mini", prompt: str = "How do I bake bread?", **more: Any) -> Trace:
    return Trace(
        id=f"{benchmark}/{number}",
        benchmark=benchmark,
        digest=str(number),
        task=Task.REQUEST,
        label=Label.UNHARMFUL,
        answers={Task.REQUEST: Label.UNHARMFUL},
        steps=more.get("steps", {Task.REQUEST: ("It is about bread.",)}),
        conclusions={},
        has_response=False,
        tokens=3,
        item=more.get("item", Interaction(prompt)),
    )


def sheet(rater: str, answers: dict[str, dict[str, str]]) -> Sheet:
    return Sheet(rater, read_rubric().digest, answers)


def all_four(answer: str) -> dict[str, str]:
    return {criterion.name: answer for criterion in read_rubric().criteria}


def test_the_shipped_rubric_has_four_questions_with_three_answers() -> None:
    rubric = read_rubric()
    assert [criterion.name for criterion in rubric.criteria] == ["follows", "true", "reason", "clear"]
    assert all(list(criterion.answers) == ["yes", "partly", "no"] for criterion in rubric.criteria)
    assert rubric.introduction.startswith("A guard was shown the item below.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no title\n## a: b\n- x: y\n- z: w\n", "expected '# title'"),
        ("# title only\n", "expected '# title'"),
        ("# t\n## name without question\n- yes: y\n- no: n\n", "needs a name, a question and two answers"),
        ("# t\n## a: q\n- yes: y\n", "needs a name, a question and two answers"),
        ("# t\n## a: q\n- yes: y\n- no: n\n## a: q\n- yes: y\n- no: n\n", "is there twice"),
    ],
)
def test_a_wrong_rubric_says_what_is_missing(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rubric.md").write_text(text)
    with pytest.raises(InputError, match=message):
        read_rubric(tmp_path / "rubric.md")
    with pytest.raises(InputError, match="cannot be read"):
        read_rubric(tmp_path / "absent.md")


def test_items_are_drawn_of_each_source_and_benchmark_in_turn() -> None:
    mixed = [trace(n, benchmark) for benchmark in ("A", "B") for n in range(10)]
    sources = [Source("one", tuple(mixed)), Source("two", tuple(mixed[:10]))]
    drawn = draw_for_rating(sources, 8, seed=1)
    assert [one.source for one in drawn].count("one") == 4
    assert [one.trace.benchmark for one in drawn if one.source == "one"].count("B") == 2
    assert drawn == draw_for_rating(sources, 8, seed=1)
    assert drawn != draw_for_rating(sources, 8, seed=2)
    assert len({one.key for one in draw_for_rating(sources, 99)}) == 30


def test_only_items_with_reasoning_and_texts_are_drawn() -> None:
    with pytest.raises(InputError, match="pass --data-dir"):
        draw_for_rating([Source("one", (trace(0, item=None), trace(1, steps={})))], 5)


def test_the_page_holds_any_text_as_data_and_nothing_of_the_model() -> None:
    drawn = draw_for_rating([Source("the secret model", (trace(0, prompt=NASTY),))], 1)
    page = render_review(drawn, read_rubric())
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    embedded = re.search(r'<script type="application/json" id="items">(.*?)</script>', page, re.DOTALL)
    assert embedded is not None
    content = json.loads(embedded[1])
    assert content["items"][0]["prompt"] == NASTY
    assert content["items"][0]["tasks"] == [
        {"name": "Request", "steps": ["It is about bread."], "verdict": "unharmful"}
    ]
    assert content["rubric"] == read_rubric().digest
    assert "secret" not in page
    assert "Mini" not in page
    assert not re.search(r"(?:src|href)=|https?:", page)
    assert page.count("data-answer=") == 12


def test_embedded_json_cannot_leave_its_element() -> None:
    assert "<" not in embed_json({"text": NASTY})
    assert json.loads(embed_json({"text": NASTY}))["text"] == NASTY


def test_sheets_come_back_as_they_were_written(tmp_path: Path) -> None:
    ours = sheet("Anna", {"k1": {**all_four("yes"), "note": "fine"}})
    write_sheet(tmp_path / "a.json", ours)
    assert read_sheet(tmp_path / "a.json", read_rubric()) == ours
    (tmp_path / "b.json").write_text('{"rater": "Ben"}')
    with pytest.raises(InputError, match="holds no ratings"):
        read_sheet(tmp_path / "b.json")
    write_sheet(tmp_path / "c.json", Sheet("Cem", "another", {}))
    with pytest.raises(InputError, match="was rated with another rubric"):
        read_sheet(tmp_path / "c.json", read_rubric())


def test_kappa_of_a_hand_worked_case() -> None:
    # Of 50 items both say yes to 20 and no to 15, one alone says yes to 5 and the other alone to 10: agreement 0.7,
    # by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, so kappa is 0.4.
    pairs = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    first = sheet("Anna", {f"k{n}": all_four(one) for n, (one, _) in enumerate(pairs)})
    second = sheet("Ben", {f"k{n}": all_four(two) for n, (_, two) in enumerate(pairs)})
    found = agree(first, second, read_rubric())["follows"]
    assert (found.items, found.same) == (50, 35)
    assert found.kappa.value == pytest.approx(0.4)
    assert found.kappa.low < 0.4 < found.kappa.high
    assert found.weighted.value == pytest.approx(0.4)  # with the two ends only, weights change nothing


def test_a_neighbouring_answer_counts_half_with_weights() -> None:
    # Agreement 3/5, by chance 7/25: kappa 4/9. Weighted disagreement 1/5, by chance 11/25: kappa 6/11.
    pairs = [("yes", "yes"), ("yes", "partly"), ("partly", "partly"), ("no", "no"), ("no", "partly")]
    first = sheet("Anna", {str(n): all_four(one) for n, (one, _) in enumerate(pairs)})
    second = sheet("Ben", {str(n): all_four(two) for n, (_, two) in enumerate(pairs)})
    found = agree(first, second, read_rubric())["clear"]
    assert found.kappa.value == pytest.approx(4 / 9)
    assert found.weighted.value == pytest.approx(6 / 11)


@pytest.mark.parametrize("linear", [False, True])
def test_resampled_kappas_are_those_of_scikit_learn(linear: bool) -> None:
    rng = np.random.default_rng(1)
    pairs = rng.integers(0, 3, (30, 2))
    drawn = np.random.default_rng(0).integers(0, 30, (5, 30))  # the function's own draws
    expected = [cohen_kappa_score(*pairs[rows].T, weights="linear" if linear else None) for rows in drawn]
    assert resampled_kappas(pairs, 3, linear=linear, resamples=5) == pytest.approx(expected)


def test_kappa_of_one_answer_to_everything_is_undefined() -> None:
    first, second = (sheet(rater, {str(n): all_four("yes") for n in range(5)}) for rater in ("Anna", "Ben"))
    assert math.isnan(agree(first, second, read_rubric())["true"].kappa.value)
    assert "| true | 5 | 100% | undefined | undefined |" in render_agreement([first, second], read_rubric())


def test_raters_without_a_common_item_cannot_agree() -> None:
    with pytest.raises(InputError, match="Anna and Ben have rated no item in common"):
        agree(sheet("Anna", {"a": all_four("yes")}), sheet("Ben", {"b": all_four("yes")}), read_rubric())


def test_answers_are_counted_by_model_with_the_key(tmp_path: Path) -> None:
    drawn = draw_for_rating([Source("one", (trace(0), trace(1))), Source("two", (trace(0),))], 3)
    write_key(tmp_path / "key.json", drawn)
    key = json.loads((tmp_path / "key.json").read_text())
    rated = sheet("Anna", {one.key: all_four("yes" if one.source == "one" else "no") for one in drawn})
    counts = count_answers(rated, read_rubric(), key)
    assert counts["one"]["follows"] == {"yes": 2, "partly": 0, "no": 0}
    assert counts["two"]["follows"] == {"yes": 0, "partly": 0, "no": 1}


def test_the_command_compares_raters(tmp_path: Path) -> None:
    for rater, answer in (("Anna", "yes"), ("Ben", "no")):
        write_sheet(tmp_path / f"{rater}.json", sheet(rater, {"a": all_four(answer), "b": all_four("yes")}))
    files = [str(tmp_path / "Anna.json"), str(tmp_path / "Ben.json")]
    done = CliRunner().invoke(APP, [*files, "-o", str(tmp_path / "page.md")])
    assert done.exit_code == 0, done.output
    assert "## Agreement of Anna and Ben" in (tmp_path / "page.md").read_text()
    assert "| follows | 2 | 50% | 0.00" in (tmp_path / "page.md").read_text()
    twice = CliRunner().invoke(APP, [files[0], files[0]])
    assert twice.exit_code == 2
    assert "of the same rater" in twice.output
    other = CliRunner().invoke(APP, [files[0], "--rubric", str(RUBRIC.with_name("absent.md"))])
    assert other.exit_code == 2
