from __future__ import annotations

from pathlib import Path

import pytest

from guardreasoner_moderation.errors import InputError
from model_cards.claims import CLAIMS
from texts.strict_yaml import read_yaml
from training.ablation_grid import read_grid

SHIPPED = Path(__file__).parents[2] / "training" / "ablations.yaml"
MINIMAL = """\
recipe: {base: smollm2-135m, data: {file: own.jsonl}}
cells:
  - {name: all}
  - {name: short, think_share: 1.0, sentences: 1}
comparisons:
  - {claim: short_traces, first: short, second: all, first_mode: think, second_mode: think}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "grid.yaml").write_text(text, encoding="utf-8")
    return folder / "grid.yaml"


def test_the_shipped_grid_answers_every_claim() -> None:
    grid = read_grid(SHIPPED)
    asked = {row["entry"].removeprefix("claims.") for row in read_yaml(CLAIMS) if "ablations" in row["file"]}
    assert asked <= {comparison.claim for comparison in grid.comparisons}


def test_the_shipped_grid_compares_at_equal_steps_where_it_says_so() -> None:
    grid = read_grid(SHIPPED)
    few, whole = grid.cell("items-500-five"), grid.cell("all")
    assert few.items * few.epochs == pytest.approx(2494 * whole.epochs, rel=0.01)
    for comparison in grid.comparisons:
        if comparison.claim in ("reasoning", "short_traces", "dual_mode"):
            first, second = grid.cell(comparison.first), grid.cell(comparison.second)
            assert (first.items, first.epochs) == (second.items, second.epochs)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("first: short", "first: shrot", "unknown cell of short_traces 'shrot'; did you mean 'short'"),
        ("name: short", "name: all", "two cells have the same name"),
        ("first_mode: think", "first_mode: verdict", "needs short in verdict mode, which it does not learn"),
        ("sentences: 1", "sentenses: 1", "did you mean 'sentences'"),
        ("sentences: 1", "kind: hs_dpo", "start belongs to hs_dpo"),
        (
            "name: all}\n  - {name: short, think_share: 1.0, sentences: 1",
            "name: all, kind: qlora}\n  - {name: short, kind: difficult, start: all",
            "cell short would go on from all on another base",
        ),
        ("{file: own.jsonl}", "[{file: a.jsonl}, {file: b.jsonl}]", "learn from one data file, found 2"),
        ("{base: smollm2-135m,", "{base: smollm2-135m, rnk: 3,", "unknown key recipe.rnk; did you mean 'rank'"),
    ],
)
def test_a_wrong_grid_says_what_is_wrong(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert read_grid(write(tmp_path, MINIMAL)).cell("short").sentences == 1
    with pytest.raises(InputError) as caught:
        read_grid(write(tmp_path, MINIMAL.replace(old, new)))
    assert message in str(caught.value)
