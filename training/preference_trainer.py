"""trl's DPO trainer with a weight for each pair and a loss on the chosen answers: HS-DPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference


def hs_dpo_losses(
    log_odds: torch.Tensor,
    reference_log_odds: torch.Tensor,
    alpha: torch.Tensor,
    chosen_loss: torch.Tensor,
    *,
    beta: float,
    sft_weight: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each pair: arXiv 2501.18492, equation (2), and its SFT term.

    -alpha log sigmoid(beta (log_odds - reference_log_odds)) + sft_weight chosen_loss. The authors add the SFT term by
    LLaMA-Factory's ``pref_ftx``, which is without alpha.

    Args:
        log_odds: (pairs,) log-probability of the chosen answer less that of the rejected one.
        reference_log_odds: the same of the reference policy.
        alpha: (pairs,) weights, equation (3).
        chosen_loss: (pairs,) mean cross-entropy of the chosen answer's tokens.
        beta: how near the policy is kept to the reference.
        sft_weight: of the SFT term.

    Returns:
        The losses, and the margins that the sigmoid is taken of.
    """
    margins = beta * (log_odds - reference_log_odds)
    return -alpha * functional.logsigmoid(margins) + sft_weight * chosen_loss, margins


class PairCollator(DataCollatorForPreference):  # type: ignore[misc]  # trl is untyped
    """trl's batches, chosen answers before rejected ones, with the weights of the pairs."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pads rows."""
        return {**super().torch_call(examples), "alpha": torch.tensor([row["alpha"] for row in examples])}


class PreferenceTrainer(DPOTrainer):  # type: ignore[misc]
    """trl's trainer for rows of token ids; the reference policy is the model as it is given."""

    def __init__(self, model: Any, *, sft_weight: float, **options: Any) -> None:
        self._sft_weight = sft_weight
        super().__init__(model, **options)
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")  # trl's copy of the start, of which the log-probabilities are known now

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset  # trl would tokenise texts, and read control tokens in what users wrote

    def compute_ref_log_probs(self, model: Any, inputs: Mapping[str, Any]) -> Any:
        """See trl; the weights of the pairs are no input of the model."""
        return super().compute_ref_log_probs(model, {key: inputs[key] for key in inputs if key != "alpha"})

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The mean loss of the pairs of a batch."""
        answers = inputs["completion_mask"]  # (2 pairs, tokens), chosen answers first
        log_probs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=inputs["input_ids"].masked_fill(answers == 0, -100),
            use_cache=False,
            fused_lm_head=True,  # trl's: log-probabilities without the logits, 0 where there is no label
        ).log_probs
        chosen, rejected = log_probs.sum(1, dtype=torch.float64).chunk(2)  # thousands, of which small differences count
        losses, margins = hs_dpo_losses(
            chosen - rejected,
            inputs["ref_chosen_logps"] - inputs["ref_rejected_logps"],
            inputs["alpha"],
            -chosen / answers[:, 1:].sum(1).chunk(2)[0],
            beta=self.beta,
            sft_weight=self._sft_weight,
        )
        told = self._metrics["train" if model.training else "eval"]
        everywhere = self.accelerator.gather(margins.detach())
        told["margin"].append(everywhere.mean().item())
        told["preferred"].append((everywhere > 0).float().mean().item())
        return losses.mean().float()
