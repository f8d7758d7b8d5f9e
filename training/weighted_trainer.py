"""trl's SFT trainer with a loss weight for each token, and figures of the verdicts in each look at validation items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import IntervalStrategy, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from guardreasoner_moderation.errors import EngineError
from guardreasoner_moderation.results import LABELS, Task
from training.data import Example
from training.verdict_figures import verdict_figures

if TYPE_CHECKING:
    from transformers import EvalPrediction

    from training.trl_run import ExampleBuilder

_TASKS = tuple(Task)
_NO_SLOT = -1


def row_of(example: Example, build: ExampleBuilder) -> dict[str, Any]:
    """An example as a row of the data set; a slot is (position, id of the risky word, of the other, is it risky)."""
    slots = [[_NO_SLOT] * 4 for _ in _TASKS]
    for position, task, label in example.labels:
        risky, other = (build.encoder.encode_text(f" {word}", trusted=True)[0] for word in LABELS[task])
        slots[_TASKS.index(task)] = [position, risky, other, int(label is LABELS[task][0])]
    return {"ids": example.ids, "weights": example.weights, "slots": slots}


def collate(rows: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """A padded batch: (sequences, tokens), and ``slots`` (sequences, tasks, 4)."""
    width = max(len(row["ids"]) for row in rows)

    def padded(values: Iterable[Sequence[float]], fill: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([[*one, *[fill] * (width - len(one))] for one in values], dtype=dtype)

    ids = padded((row["ids"] for row in rows), pad_id, torch.long)
    loss_weights = padded((row["weights"] for row in rows), 0, torch.float32)
    return {
        "input_ids": ids,
        "attention_mask": padded(([1] * len(row["ids"]) for row in rows), 0, torch.long),
        "labels": ids.masked_fill(loss_weights == 0, -100),
        "weights": loss_weights,
        "slots": torch.tensor([row["slots"] for row in rows]),
    }


class WeightedTrainer(SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """trl's trainer with a loss weight for each token, and figures of the verdicts in each look.

    The loss of a step is that of :mod:`training.rsft`: the weighted sum of all cross-entropies of the step, on
    whatever process, divided by the sum of the weights.
    """

    loss_is_scaled_for_ga = True

    def get_batch_samples(self, *arguments: Any) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """The forward passes of one step, and the sum of all their loss weights."""
        batches, _ = super().get_batch_samples(*arguments)
        total = torch.stack([batch["weights"].sum() for batch in batches] or [torch.zeros(())]).sum()
        return batches, self.accelerator.gather(total.to(self.accelerator.device)).sum()

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The part of the step's loss that this forward pass adds; processes are averaged, so each tells its multiple.

        Without a total, as in a look: the mean of the sequences, however they are batched.
        """
        outputs = model(
            **{key: inputs[key] for key in ("input_ids", "attention_mask", "labels")},
            use_cache=False,
            fused_lm_head=True,  # trl's: log-probabilities without the logits, where there are labels
        )
        loss_weights = inputs["weights"][:, 1:]
        sums: torch.Tensor = -(outputs.log_probs.float() * loss_weights).sum(1)  # (sequences,)
        if num_items_in_batch is None:
            return (sums / loss_weights.sum(1)).mean()
        processes: int = self.accelerator.num_processes
        return sums.sum() / num_items_in_batch * processes

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, log-odds (sequences, tasks) of the risky label after the true ones before it, and what is true."""
        inputs = self._prepare_inputs(inputs)
        position, risky, other, truth = inputs["slots"].unbind(-1)  # each (sequences, tasks)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
            rows, places = (position - 1).clamp(min=0).unique(return_inverse=True)
            logits = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                use_cache=False,
                logits_to_keep=rows,
            ).logits  # (sequences, rows, vocabulary)
            sequence = torch.arange(len(places), device=places.device).unsqueeze(1)
            risky_logit, other_logit = (logits[sequence, places, word.clamp(min=0)] for word in (risky, other))
        return loss, (risky_logit - other_logit).float(), truth


class LastLook(TrainerCallback):
    """Looks at the validation items, and saves, after the last step too: it may be the best."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Where looks come with epochs, the last epoch ends in one anyway."""
        if args.eval_strategy == IntervalStrategy.STEPS and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True


def describe(prediction: EvalPrediction) -> dict[str, float]:
    """What a look tells of each task, by names such as ``request_f1``.

    Raises:
        EngineError: the model has no scores any more.
    """
    figures: dict[str, float] = {}
    odds, truths = torch.from_numpy(prediction.predictions), torch.from_numpy(cast("Any", prediction.label_ids))
    if odds.isnan().any():
        raise EngineError("training has diverged: the model's scores are no numbers; lower the learning_rate")
    for number, task in enumerate(_TASKS):
        truth = truths[:, number]
        if (there := truth >= 0).any():
            scores = odds[there, number].sigmoid().tolist()
            told = verdict_figures((truth[there] == 1).tolist(), scores)
            figures |= {f"{task.value}_{name}": value for name, value in told.items() if value is not None}
    return figures
