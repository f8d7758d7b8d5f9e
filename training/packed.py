"""Sequences in one forward pass without padding each, and with what they have in common computed once.

The sequences are laid end to end in one row as a trie: a run of tokens that several sequences begin with (the system
message, or one item's text before its think and its verdict answer) stands there once. Every layer but attention treats
positions alike; in attention each run sees itself and the runs before it on its path, so a packed pass equals separate
ones (tests/training/test_packed.py). The output projection, here the dearest layer (49,152 words), is computed at the
positions that carry loss alone. The row as a whole is filled up to one of few lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, groupby, takewhile
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch.nn import functional
from transformers import AttentionInterface, LlamaForCausalLM

from training.data import Example

Result = TypeVar("Result")

ATTENTION = "packed_sdpa"
"""Name of the attention implementation to set on the model."""

_SHORTEST_SHARED_RUN = 8  # a shorter run costs more in attention calls than it saves

_LENGTH_STEP, _ROWS_STEP = 64, 16
"""Lengths are rounded up to these. oneDNN makes and keeps kernels for each length that it meets, milliseconds and
megabytes for every matrix of the model, so that of ever new ones memory grows and steps become slow."""

_MOST_WORKERS = 4  # a step is split among them; in small parts less is shared, and each has its own memory


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


def micro_batches(examples: Sequence[Example], token_budget: int, multiple: int = 1) -> list[list[Example]]:
    """Splits a batch into runs of about equal size, of at most ``token_budget`` tokens; a longer example is alone.

    Args:
        examples: in the order to keep.
        token_budget: of one run.
        multiple: the number of runs is one of this, if there are enough examples.
    """
    ends = list(accumulate(map(len, examples)))
    total = ends[-1] if ends else 0
    count = multiple * -(-total // (token_budget * multiple))
    while True:
        shares = [count * (2 * end - len(one)) // (2 * total) for one, end in zip(examples, ends, strict=True)]
        numbered = groupby(zip(shares, examples, strict=True), key=itemgetter(0))
        runs = [[one for _, one in run] for _, run in numbered]
        if all(len(run) == 1 or sum(map(len, run)) <= token_budget for run in runs):
            return runs
        count += multiple


class PassWorkers:
    """Threads that run packed passes side by side: a pass gains little from a second core.

    They share the threads that PyTorch has; until they end, it computes with one worker's part of them elsewhere too.
    """

    def __init__(self) -> None:
        self._threads = torch.get_num_threads()
        self._count = min(self._threads, _MOST_WORKERS)
        torch.set_num_threads(self._threads // self._count)
        # Holds for one thread, as inference mode and autocast do.
        self._pool = ThreadPoolExecutor(self._count, initializer=torch.set_flush_denormal, initargs=(True,))

    def __enter__(self) -> PassWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)

    def run(
        self, one_pass: Callable[[list[Example]], Result], examples: Sequence[Example], token_budget: int
    ) -> Iterator[Result]:
        """Results of passes over at most ``token_budget`` tokens each, in the order of the examples."""
        return self._pool.map(one_pass, micro_batches(examples, token_budget, self._count))


def logits_at(model: LlamaForCausalLM, batch: PackedBatch, rows: torch.Tensor) -> torch.Tensor:
    """Logits (rows, vocabulary) of the token after each of ``rows``."""
    tokens, spare = batch.ids.shape[1], -batch.ids.shape[1] % _LENGTH_STEP
    filler = [Run(slice(tokens, tokens + spare), (), None)] if spare else []
    hidden = model.model(
        input_ids=functional.pad(batch.ids, (0, spare)),
        position_ids=functional.pad(batch.positions, (0, spare)),
        use_cache=False,
        runs=[*batch.runs, *filler],
    ).last_hidden_state[0]
    logits: torch.Tensor = model.lm_head(hidden[functional.pad(rows, (0, -len(rows) % _ROWS_STEP))])
    return logits[: len(rows)]


def loss_sum(model: LlamaForCausalLM, batch: PackedBatch) -> torch.Tensor:
    """Weighted sum of the cross-entropies; divide by the weights of the whole step for its mean."""
    losses = functional.cross_entropy(logits_at(model, batch, batch.rows), batch.targets, reduction="none")
    return (losses * batch.weights).sum()


def autocast(precision: str) -> Any:
    """The context in which the matrix products are computed in bfloat16, if so wished."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "fp32")
