"""Recipes of the trainers that are built on trl: YAML files, read as strictly as those of :mod:`training.recipe`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from guardreasoner_moderation.checks import whole_number
from guardreasoner_moderation.errors import InputError, nearest
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.results import Task
from training.recipe import DataSource

METHODS = ("lora", "qlora", "full")
PRECISIONS = ("bf16", "fp16", "fp32")
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup")
OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit"}
TRACKERS = ("none", "tensorboard", "trackio", "wandb")
LOSS = "loss"
FIGURES = (LOSS, *(f"{task.value}_{figure}" for task in Task for figure in ("f1", "auprc")))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrlRecipe:
    """What both trainers are told.

    Attributes:
        base: id of the base model on the Hub, its folder, or the short name of an embedded base.
        revision: of the base on the Hub; empty for the newest.
        prompt_format, chat: how the model is asked; see :class:`guardreasoner_moderation.models.ModelSpec`.
        method: ``lora``, ``qlora`` (LoRA on a base in 4 bits, CUDA only) or ``full`` (all weights).
        precision: of the arithmetic.
        max_tokens: items with a longer sequence are left out, and counted.
        epochs: passes over the data.
        max_steps: stop after so many optimiser steps; 0 for all of them.
        batch_size: sequences (HS-DPO: pairs) of one optimiser step, over all processes.
        device_batch_size: those of one forward pass of one process.
        learning_rate, weight_decay, max_grad_norm: of the optimiser.
        schedule, warmup_steps: of the learning rate.
        optimizer: ``adamw``, or ``adamw_8bit`` (bitsandbytes, CUDA only).
        gradient_checkpointing: compute activations twice in place of keeping them.
        save_steps: optimiser steps between two checkpoints; 0 for one after each epoch.
        tracker: where the figures are sent beside the log.
        seed: of the adapter's initialisation, the order and the modes.
    """

    base: str
    revision: str = ""
    prompt_format: str = PromptFormat.GUARDREASONER.value
    chat: bool = False
    method: str = "lora"
    precision: str = "bf16"
    max_tokens: int = 2048
    epochs: int = 1
    max_steps: int = 0
    batch_size: int = 128
    device_batch_size: int = 2
    learning_rate: float = 5e-5
    schedule: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    optimizer: str = "adamw"
    gradient_checkpointing: bool = True
    save_steps: int = 0
    tracker: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        _insist("prompt_format", self.prompt_format, [one.value for one in PromptFormat])
        _insist("method", self.method, METHODS)
        _insist("precision", self.precision, PRECISIONS)
        _insist("schedule", self.schedule, SCHEDULES)
        _insist("optimizer", self.optimizer, OPTIMIZERS)
        _insist("tracker", self.tracker, TRACKERS)
        if self.chat and self.prompt_format != PromptFormat.GUARDREASONER.value:
            raise InputError("chat belongs to the guardreasoner format; compact has a frame of its own")
        for name in ("max_tokens", "epochs", "batch_size", "device_batch_size"):
            whole_number(name, getattr(self, name))
        for name in ("max_steps", "warmup_steps", "save_steps"):
            whole_number(name, getattr(self, name), least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SftRecipe(TrlRecipe):
    """Everything that decides a run of :mod:`training.trl_sft`, apart from the machine.

    Attributes:
        data: what is learned from; the items whose split is ``validation`` are held out.
        answers_alone: show an item that is shown with its reasoning also with the answers alone, after the same prompt.
        rank, alpha, dropout: of the LoRA on the seven projections of every layer.
        label_weight: loss weight of the token that tells a label from the other.
        eval_items: how many validation items a look takes, drawn by the seed; 0 for all. There is one before each
            checkpoint.
        best: the figure of these looks by which the checkpoint is chosen: ``loss``, or F1 or AUPRC of a task's risky
            label, such as ``request_auprc``.
    """

    data: tuple[DataSource, ...]
    answers_alone: bool = True
    rank: int = 16
    alpha: int = 16
    dropout: float = 0.0
    label_weight: float = 1.0
    eval_items: int = 0
    best: str = LOSS

    def __post_init__(self) -> None:
        TrlRecipe.__post_init__(self)  # super() does not work in a class with slots
        _insist("best", self.best, FIGURES)


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoRecipe(TrlRecipe):
    """Everything that decides a run of :mod:`training.hs_dpo`, apart from the machine.

    Attributes:
        beta: how near the model is kept to the one it starts from.
        sft_weight: of the loss on the chosen answer, beside the preference.
    """

    beta: float = 0.01
    sft_weight: float = 2.0


def _insist(key: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise InputError(f"unknown {key} {value!r}{nearest(value, known)}")
