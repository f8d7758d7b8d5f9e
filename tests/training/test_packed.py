"""A packed pass against one pass for each sequence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from guardreasoner_moderation.checkpoint import read_gguf
from guardreasoner_moderation.engines.transformers import llama_from_checkpoint
from training.data import Example
from training.packed import ATTENTION, PassWorkers, logits_at, loss_sum, micro_batches, pack

SHARED = tuple(range(20, 40))


def example(ids: tuple[int, ...], start: int) -> Example:
    weights = [0.0] * start + [1.0 + n % 3 for n in range(len(ids) - start)]
    return Example(ids, tuple(weights), ())


EXAMPLES = [
    example((*SHARED, 41, 42, 43, 44, 45, 46, 47, 48, 49), 22),
    example((*SHARED, 41, 42, 43, 44, 45, 46, 47, 48, 60, 61), 29),  # shares a second run
    example((*SHARED, 70), 20),
    example((80, 81, 82, 83), 1),  # shares nothing
    example(SHARED, 5),  # ends where others go on
    example((80, 81, 90), 2),  # shares too little to be worth a run
]


@pytest.fixture(scope="module")
def models(tiny_gguf: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    packed, plain = (llama_from_checkpoint(read_gguf(tiny_gguf)) for _ in range(2))
    packed.set_attn_implementation(ATTENTION)
    return packed, plain


def separate_loss(model: torch.nn.Module, examples: list[Example]) -> torch.Tensor:
    total = torch.zeros(())
    for one in examples:
        ids = torch.tensor([one.ids])
        losses = functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
        total = total + (losses * torch.tensor(one.weights[1:])).sum()
    return total


def test_loss_and_gradients_equal_those_of_separate_passes(models: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    packed, plain = models
    ours, theirs = loss_sum(packed, pack(EXAMPLES)), separate_loss(plain, EXAMPLES)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    ours.backward()
    theirs.backward()
    for (name, one), (_, other) in zip(packed.named_parameters(), plain.named_parameters(), strict=True):
        assert one.grad is not None, name
        assert torch.allclose(one.grad, other.grad, rtol=1e-3, atol=1e-3), name


def test_a_shared_run_stands_in_the_row_once() -> None:
    batch = pack(EXAMPLES)
    assert batch.ids.shape[1] < sum(map(len, EXAMPLES))
    assert batch.ids[0].tolist().count(SHARED[0]) == 1
    for one, path in zip(EXAMPLES, batch.paths, strict=True):
        assert batch.ids[0, path].tolist() == list(one.ids)
        assert batch.positions[0, path].tolist() == list(range(len(one)))


def test_logits_at_a_place_are_the_sequences_own(models: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    packed, plain = models
    batch = pack(EXAMPLES)
    rows = torch.tensor([path[-1] for path in batch.paths])
    with torch.inference_mode():
        ours = logits_at(packed, batch, rows)
        theirs = torch.stack([plain(torch.tensor([one.ids])).logits[0, -1] for one in EXAMPLES])
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_one_example_alone_is_packed() -> None:
    batch = pack(EXAMPLES[:1])
    assert batch.ids[0].tolist() == list(EXAMPLES[0].ids)
    assert len(batch.rows) == len(EXAMPLES[0]) - 22


def test_micro_batches_keep_the_budget_and_every_example() -> None:
    runs = micro_batches(EXAMPLES, 40)
    assert [one for run in runs for one in run] == EXAMPLES
    assert all(sum(map(len, run)) <= 40 for run in runs)
    assert micro_batches(EXAMPLES[:2], 3) == [EXAMPLES[:1], EXAMPLES[1:2]]
    assert micro_batches([], 40) == []


def test_micro_batches_are_as_many_as_workers_need_and_about_equal() -> None:
    assert [sum(map(len, run)) for run in micro_batches(EXAMPLES, 200, 2)] == [59, 48]
    assert len(micro_batches(EXAMPLES, 60, 2)) == 2
    assert len(micro_batches(EXAMPLES, 50, 2)) == 4


def test_workers_give_results_in_order_and_torch_its_threads_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with PassWorkers() as workers:
            found = list(workers.run(lambda run: (run, torch.get_num_threads()), EXAMPLES, 200))
            assert torch.get_num_threads() == 1
        assert [one for run, _ in found for one in run] == EXAMPLES
        assert [threads for _, threads in found] == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_rounding_lengths_up_changes_no_logits(models: tuple[torch.nn.Module, torch.nn.Module]) -> None:
    packed, plain = models
    batch = pack(EXAMPLES[3:4])
    with torch.inference_mode():
        ours = logits_at(packed, batch, torch.tensor([3, 1]))
        theirs = plain(torch.tensor([EXAMPLES[3].ids])).logits[0, [3, 1]]
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-4)
