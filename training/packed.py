"""Sequences in one forward pass without padding, and with what they have in common computed once.

The sequences are laid end to end in one row as a trie: a run of tokens that several sequences begin with (the system
message, or one item's text before its think and its verdict answer) stands there once. Every layer but attention treats
positions alike; in attention each run sees itself and the runs before it on its path, so a packed pass equals separate
ones (tests/training/test_packed.py). The output projection, here the dearest layer (49,152 words), is computed at the
positions that carry loss alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, LlamaForCausalLM

from training.data import Example

ATTENTION = "packed_sdpa"
"""Name of the attention implementation to set on the model."""

_SHORTEST_SHARED_RUN = 8  # a shorter run costs more in attention calls than it saves


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens that stand together in the row.

    Attributes:
        place: where; the runs of a batch follow each other without a gap.
        before: numbers of the runs before it on its path, nearest last.
        mask: (tokens, tokens of the path) what each token sees, itself included; None where that is plainly causal.
    """

    place: slice
    before: tuple[int, ...]
    mask: torch.Tensor | None

    def __len__(self) -> int:
        length: int = self.place.stop - self.place.start
        return length


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, heads, tokens, size)
    key: torch.Tensor,  # (1, kv heads, tokens, size)
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    runs: list[Run],
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    # Split, not sliced: the gradient of a slice is as large as the whole tensor.
    lengths = [len(run) for run in runs]
    queries, keys, values = (torch.split(tensor.float(), lengths, dim=2) for tensor in (query, key, value))
    outputs = []
    # In float32 whatever the model computes in: PyTorch's kernels for the gradient of short runs on a CPU are five
    # times slower in bfloat16.
    with torch.autocast("cpu", enabled=False):
        for number, run in enumerate(runs):
            path = (*run.before, number)
            seen, said = (torch.cat([parts[one] for one in path], dim=2) for parts in (keys, values))
            outputs.append(
                functional.scaled_dot_product_attention(
                    queries[number],
                    seen,
                    said,
                    attn_mask=run.mask,
                    is_causal=run.mask is None,
                    scale=scaling,
                    enable_gqa=True,
                )
            )
    found = torch.cat(outputs, dim=2).transpose(1, 2)  # (1, tokens, heads, size)
    return found.to(query.dtype, memory_format=torch.contiguous_format), None


AttentionInterface.register(ATTENTION, _attention)


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences laid end to end.

    Attributes:
        ids, positions: (1, tokens).
        runs: the trie, in the order of the row.
        paths: for each sequence, the place in the row of each of its tokens.
        rows: (targets,) places whose next token carries loss; a place may stand here once for each of its branches.
        targets, weights: (targets,) those tokens and their loss weights.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    runs: list[Run]
    paths: list[list[int]]
    rows: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def pack(examples: Sequence[Example]) -> PackedBatch:
    """Lays examples end to end, what they begin with in common once."""
    ids: list[int] = []
    positions: list[int] = []
    runs: list[Run] = []
    paths: list[list[int]] = [[] for _ in examples]

    def lay(group: list[int], depth: int, before: tuple[int, ...]) -> None:
        """Lays the tokens from ``depth`` on of a group of sequences that agree up to there, sorted by their ids."""
        first, last = examples[group[0]].ids, examples[group[-1]].ids
        agree = depth + sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first[depth:], last[depth:], strict=False))
        )
        if len(group) == 1 or agree - depth >= _SHORTEST_SHARED_RUN:
            place = slice(len(ids), len(ids) + agree - depth)
            ids.extend(first[depth:agree])
            positions.extend(range(depth, agree))
            mask = None
            if before:  # causal, aligned at the end: the first token sees all that came before its run
                mask = torch.ones(agree - depth, agree, dtype=torch.bool).tril(depth)
            runs.append(Run(place, before, mask))
            before, depth = (*before, len(runs) - 1), agree
            for number in group:
                paths[number].extend(range(place.start, place.stop))
        unfinished = [number for number in group if len(examples[number]) > depth]
        for _, branch in groupby(unfinished, key=lambda number: examples[number].ids[agree : agree + 1]):
            lay(list(branch), depth, before)

    lay(sorted(range(len(examples)), key=lambda number: examples[number].ids), 0, ())
    rows, targets, weights = [], [], []
    for example, path in zip(examples, paths, strict=True):
        for position, weight in enumerate(example.weights):
            if weight:
                rows.append(path[position - 1])
                targets.append(example.ids[position])
                weights.append(weight)
    return PackedBatch(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        runs=runs,
        paths=paths,
        rows=torch.tensor(rows, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        weights=torch.tensor(weights),
    )


def micro_batches(examples: Sequence[Example], token_budget: int) -> Iterator[list[Example]]:
    """Splits a batch into groups of at most ``token_budget`` tokens; a longer example makes a run of its own."""
    run: list[Example] = []
    for example in examples:
        if run and sum(map(len, run)) + len(example) > token_budget:
            yield run
            run = []
        run.append(example)
    if run:
        yield run


def logits_at(model: LlamaForCausalLM, batch: PackedBatch, rows: torch.Tensor) -> torch.Tensor:
    """Logits (rows, vocabulary) of the token after each of ``rows``."""
    hidden = model.model(
        input_ids=batch.ids, position_ids=batch.positions, use_cache=False, runs=batch.runs
    ).last_hidden_state[0]
    logits: torch.Tensor = model.lm_head(hidden[rows])
    return logits


def loss_sum(model: LlamaForCausalLM, batch: PackedBatch) -> torch.Tensor:
    """Weighted sum of the cross-entropies; divide by the weights of the whole step for its mean."""
    losses = functional.cross_entropy(logits_at(model, batch, batch.rows), batch.targets, reduction="none")
    return (losses * batch.weights).sum()
