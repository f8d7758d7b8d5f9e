"""The grid of the ablations: what is trained, and what is compared with what; YAML, read strictly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.results import Mode
from training.recipe import Recipe, read_strictly

KINDS = ("sft", "qlora", "hs_dpo", "difficult")
MODES = (Mode.VERDICT.value, Mode.THINK.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One adapter.

    Attributes:
        name: of its run folder.
        kind: ``sft``; ``qlora``, the same on a base rounded to 4 bits (arXiv 2305.14314), with which it is measured
            too; or, from another cell's adapter, ``hs_dpo`` (hard-sample DPO, arXiv 2501.18492) or ``difficult`` (a
            second round with the difficult items several times, arXiv 2505.20087).
        start: the cell that ``hs_dpo`` and ``difficult`` go on from; not one of ``qlora``, since they do so on the base
            as it is.
        items: of the training split, drawn by the seed, so that smaller sets are parts of larger ones; 0 for all. Of
            ``hs_dpo`` and ``difficult`` those that the start answers several times.
        epochs: passes over them.
        think_share: share of the items that are shown with their reasoning.
        sentences: of the reasoning on each task, the first so many; 0 for all.
        learning_rate: at its highest; 0 for the recipe's.
    """

    name: str
    kind: str = "sft"
    start: str = ""
    items: int = 0
    epochs: int = 1
    think_share: float = 0.5
    sentences: int = 0
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        _insist("kind", self.kind, KINDS)
        if (self.kind in ("sft", "qlora")) != (not self.start):
            raise InputError(f"cell {self.name}: start belongs to hs_dpo and difficult, which need it")

    @property
    def on_4_bits(self) -> bool:
        """Whether it is trained and measured on a base rounded to 4 bits."""
        return self.kind == "qlora"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two adapters on the same items; of several with one claim the worst counts.

    Attributes:
        claim: what it is about; the claims of the papers are in ``model_cards/claims.yaml``.
        first, second: names of cells; the difference is the first minus the second.
        first_mode, second_mode: how they are asked.
    """

    claim: str
    first: str
    second: str
    first_mode: str = Mode.VERDICT.value
    second_mode: str = Mode.VERDICT.value

    def __post_init__(self) -> None:
        _insist("first_mode", self.first_mode, MODES)
        _insist("second_mode", self.second_mode, MODES)

    @property
    def asked(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Cell and mode of the first and of the second."""
        return (self.first, self.first_mode), (self.second, self.second_mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """All of the ablations.

    Attributes:
        recipe: what all cells have in common, with one data file; ``epochs`` and ``think_share`` are the cells' own.
        cells: in the order they are trained; a cell's start comes before it.
        comparisons: each needs its cells in the modes that it names.
        verdict_items, think_items: how many of the validation split each mode is measured on, drawn by the seed; 0 for
            all.
        draws: answers to each item for ``hs_dpo`` and ``difficult``.
        times: how often a difficult item is there in the second round.
        dpo_learning_rate, dpo_epochs, dpo_batch_size: of ``hs_dpo``; beta, SFT term and sampling are the paper's.
    """

    recipe: Recipe
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]
    verdict_items: int = 0
    think_items: int = 0
    draws: int = 4
    times: int = 3
    dpo_learning_rate: float = 5e-5
    dpo_epochs: int = 2
    dpo_batch_size: int = 8

    def __post_init__(self) -> None:
        if len(self.recipe.data) != 1:
            raise InputError(f"the ablations learn from one data file, found {len(self.recipe.data)}")
        names = [cell.name for cell in self.cells]
        if len(set(names)) < len(names):
            raise InputError("two cells have the same name")
        for number, cell in enumerate(self.cells):
            if cell.start:
                _insist(f"start of {cell.name}", cell.start, names[:number])
                if self.cell(cell.start).on_4_bits:
                    raise InputError(
                        f"cell {cell.name} would go on from {cell.start} on another base, one that is not rounded to "
                        "4 bits; choose a start of kind sft"
                    )
        for comparison in self.comparisons:
            for name, _ in comparison.asked:
                _insist(f"cell of {comparison.claim}", name, names)

    def cell(self, name: str) -> Cell:
        """The cell of a name.

        Raises:
            InputError: there is none.
        """
        _insist("cell", name, [cell.name for cell in self.cells])
        return next(cell for cell in self.cells if cell.name == name)

    def modes(self, cell: Cell) -> tuple[Mode, ...]:
        """How a cell is measured: as it learned to answer, but in slow think mode for comparisons alone."""
        asked = {one for comparison in self.comparisons for one in comparison.asked}
        return tuple(mode for mode in self.learned(cell) if mode is not Mode.THINK or (cell.name, mode.value) in asked)

    def learned(self, cell: Cell) -> tuple[Mode, ...]:
        """How a cell's adapter can be asked."""
        share = self.cell(cell.start).think_share if cell.start else cell.think_share
        return (*((Mode.VERDICT,) if share < 1 else ()), *((Mode.THINK,) if share > 0 else ()))


def read_grid(path: Path) -> Grid:
    """Reads a grid.

    Raises:
        InputError: unknown or missing keys, values of a wrong type, cells that are not there, modes not measured.
    """
    grid = read_strictly(path, Grid)
    for comparison in grid.comparisons:
        for name, mode in comparison.asked:
            if mode not in grid.learned(grid.cell(name)):
                raise InputError(f"{path}: {comparison.claim} needs {name} in {mode} mode, which it does not learn")
    return grid


def _insist(key: str, value: str, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        raise InputError(f"unknown {key} {value!r}{nearest(value, known)}")
