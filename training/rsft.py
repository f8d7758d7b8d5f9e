"""Reasoning SFT (arXiv 2501.18492, section 2.2) of a LoRA adapter, in think and verdict mode at once.

    python -m training.rsft training/recipes/embedded.yaml --data-dir DATA --out runs/embedded

Run the same command again to go on after a stop. The run folder holds the recipe, a log line per look at the
validation split, the newest resumable checkpoint and, at the end, the adapter.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardreasoner_moderation import weights
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Mode
from training.curves import write_curves
from training.data import TRAIN, VALIDATION, Example, LabelledInteraction, build_example, read_interactions
from training.nf4 import round_to_nf4
from training.recipe import DataSource, Recipe, read_recipe
from training.run_folder import (
    adapter_weights,
    describe_start,
    load_best,
    load_progress,
    refuse_late_cut,
    refuse_other_run,
    save_best,
    save_progress,
    write_record,
)
from training.validation import validate

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from guardreasoner_moderation.checkpoint import Checkpoint
    from training.packed import PassWorkers

_SMALLEST_BUDGET = 128  # tokens of a forward pass; where even these do not fit, the machine is too small


def main(
    recipe_file: Annotated[Path, typer.Argument(help="A recipe, such as training/recipes/embedded.yaml.")],
    data_dir: Annotated[Path, typer.Option(help="Folder with the recipe's data files.")],
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run in it is resumed.")],
    start: Annotated[Path | None, typer.Option(help="Adapter folder to go on from, for a second round.")] = None,
) -> None:
    """Train an adapter."""
    import torch
    from transformers import get_wsd_schedule

    from guardreasoner_moderation.checkpoint import read_gguf
    from guardreasoner_moderation.engines.encoding import SpanEncoder
    from training.packed import PassWorkers

    recipe = read_recipe(recipe_file)
    refuse_other_run(out, recipe)
    torch.set_flush_denormal(True)
    torch.manual_seed(recipe.seed)

    checkpoint = read_gguf(weights.base_file(recipe.base))
    encoder = SpanEncoder(checkpoint.tokenizer)
    eos_id = checkpoint.tokens.index(checkpoint.eos_token)
    sources = [(source, read_interactions(data_dir / source.file)) for source in recipe.data]
    held_out = [item for _, items in sources for item in items if item.split == VALIDATION and not item.doubtful]
    random.Random(recipe.seed).shuffle(held_out)
    validation = [build_example(item, Mode.VERDICT, encoder.encode, eos_id) for item in held_out]
    styles = [item.style or item.source for item in held_out]
    batches, too_long = make_batches(recipe, sources, encoder, eos_id)
    if not batches:
        raise InputError(f"nothing to learn from: all {too_long} items are longer than {recipe.max_tokens} tokens")
    tokens_to_come = [sum(map(len, batch)) for batch in batches]
    typer.echo(
        f"{sum(map(len, batches))} sequences in {len(batches)} steps, {sum(tokens_to_come)} tokens; {too_long} items "
        f"left out as longer than {recipe.max_tokens} tokens; {len(validation)} validation items"
    )

    model = add_adapter(checkpoint, recipe, start)
    base: Any = model.get_base_model()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    decay_steps = round(recipe.decay_share * len(batches))
    schedule = get_wsd_schedule(
        optimizer,
        recipe.warmup_steps,
        num_decay_steps=decay_steps,
        num_stable_steps=len(batches) - recipe.warmup_steps - decay_steps,
        decay_type="linear",
    )
    progress = load_progress(out, model, optimizer, schedule)
    refuse_late_cut(progress, len(batches) - decay_steps)
    budget = recipe.token_budget
    seconds_before, tokens_before = progress["seconds"], progress["tokens"]
    started = saved = time.monotonic()

    with PassWorkers() as workers:
        for step in range(progress["step"], len(batches)):
            loss, budget = gradients(workers, base, batches[step], budget, recipe.precision)
            torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)

            now = time.monotonic()
            progress["step"] = step + 1
            progress["tokens"] += tokens_to_come[step]
            progress["seconds"] = seconds_before + now - started
            progress["losses"].append(round(loss, 5))
            if (step + 1) % 10 == 0:
                rate = (progress["tokens"] - tokens_before) / (now - started)
                left = sum(tokens_to_come[step + 1 :]) / rate
                mean = sum(progress["losses"][-10:]) / 10
                place = f"step {step + 1}/{len(batches)}"
                typer.echo(f"{place}  loss {mean:.3f}  {rate:.0f} tokens/s  {left / 60:.0f} minutes left")
            last = step + 1 == len(batches)
            if (step + 1) % recipe.eval_steps == 0 or last:
                few = slice(recipe.eval_items)
                figures = validate(workers, base, validation[few], styles[few], checkpoint, budget, recipe.precision)
                if all(figures["loss"] < look["loss"] for look in progress["validation"]):
                    save_best(out, model, step + 1)
                progress["validation"].append({"step": step + 1, **figures})
                typer.echo(json.dumps(progress["validation"][-1]))
            if now - saved > 60 * recipe.save_minutes or last:
                save_progress(out, model, progress, optimizer, schedule)
                saved = time.monotonic()

        best_step = load_best(out, model)
        for parameter in parameters:  # half the size; what is evaluated and released is this rounded adapter
            parameter.data = parameter.data.half().float()
        looked = validate(workers, base, validation, styles, checkpoint, budget, recipe.precision)
        final = {"step": best_step, **looked}
    for parameter in parameters:
        parameter.data = parameter.data.half()
    model.save_pretrained(str(out / "adapter"), save_embedding_layers=False)
    write_record(
        out,
        recipe,
        data_dir,
        sources,
        progress,
        best=final,
        started_from=start and describe_start(start),
        left_out_as_too_long=too_long,
    )
    write_curves(out)
    typer.echo(f"adapter of step {best_step} written to {out / 'adapter'}: {json.dumps(final)}")


def gradients(
    workers: PassWorkers, model: Any, batch: Sequence[Example], budget: int, precision: str
) -> tuple[float, int]:
    """One step's gradients, summed over passes of at most ``budget`` tokens, always in the same order.

    Where a pass does not fit into memory, the step starts anew with half the budget.

    Returns:
        The weighted mean loss, and the budget that did.
    """
    import torch

    from training.packed import autocast, loss_sum, pack

    total_weight = sum(sum(one.weights) for one in batch)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def one_pass(run: list[Example]) -> tuple[float, tuple[torch.Tensor, ...]]:
        with autocast(precision):
            part = loss_sum(model, pack(run)) / total_weight
        return part.item(), torch.autograd.grad(part, parameters)

    while True:
        loss = 0.0
        try:
            for part, found in workers.run(one_pass, sorted(batch, key=lambda one: one.ids), budget):
                loss += part
                for parameter, gradient in zip(parameters, found, strict=True):
                    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
            return loss, budget
        except (MemoryError, torch.OutOfMemoryError, RuntimeError) as exc:
            out_of_memory = not isinstance(exc, RuntimeError) or "allocate memory" in str(exc)
            if not out_of_memory or budget // 2 < _SMALLEST_BUDGET:
                raise
            budget //= 2
            model.zero_grad(set_to_none=True)
            typer.echo(f"a forward pass did not fit into memory; going on with {budget} tokens in a pass")


def make_batches(
    recipe: Recipe, sources: Sequence[tuple[DataSource, list[LabelledInteraction]]], encoder: Any, eos_id: int
) -> tuple[list[list[Example]], int]:
    """All steps of all epochs, and how many items were left out as too long."""
    batches: list[list[Example]] = []
    too_long = 0
    for epoch in range(recipe.epochs):
        shown = []
        for item, thinks in draw_epoch(recipe, sources, epoch):
            mode = Mode.THINK if thinks else Mode.VERDICT
            wanted = (Mode.THINK, Mode.VERDICT) if thinks else (Mode.VERDICT,)
            sequences = [
                build_example(item, mode, encoder.encode, eos_id, answer_mode=answer, label_weight=recipe.label_weight)
                for answer in wanted
            ]
            if max(map(len, sequences)) <= recipe.max_tokens:
                shown.append(sequences)
            else:
                too_long += 1
        batches += [
            [sequence for sequences in shown[start : start + recipe.batch_size] for sequence in sequences]
            for start in range(0, len(shown), recipe.batch_size)
        ]
    return batches[: recipe.max_steps or None], too_long


def draw_epoch(
    recipe: Recipe, sources: Sequence[tuple[DataSource, list[LabelledInteraction]]], epoch: int
) -> list[tuple[LabelledInteraction, bool]]:
    """The training items of one pass, in the order they are learned, and whether each is shown with its reasoning."""
    drawn = []
    for source, items in sources:
        dice = random.Random(f"{recipe.seed} {epoch} {source.file}")
        for item in items:
            thinks = dice.random() < source.think_share and item.can_think
            if item.split == TRAIN and not item.doubtful:
                drawn.append((item, thinks))
    random.Random(recipe.seed + epoch).shuffle(drawn)
    return drawn


def add_adapter(checkpoint: Checkpoint, recipe: Recipe, start: Path | None = None) -> PeftModel:
    """The base model with a LoRA on every linear layer of the decoder: a fresh one, or that of ``start``.

    The adapter is in float32. With ``precision: bf16`` the base, which does not learn, is in bfloat16; with ``nf4`` it
    is rounded to 4 bits before.

    Raises:
        InputError: the adapter to start from does not fit the recipe or the base.
        MissingDependencyError: bitsandbytes, which ``nf4`` needs, is not installed.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer
    from safetensors.torch import load_file

    from guardreasoner_moderation.engines.transformers import llama_from_checkpoint
    from training.packed import ATTENTION

    model = llama_from_checkpoint(round_to_nf4(checkpoint) if recipe.precision == "nf4" else checkpoint)
    model.set_attn_implementation(ATTENTION)
    model.name_or_path = weights.BASES[recipe.base].source  # peft writes it into the adapter's configuration
    if recipe.precision != "fp32":
        model.bfloat16()
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,  # on a CPU drawing its masks costs as much as the model
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(recipe.first_layer, checkpoint.shape.layers)),
        use_rslora=recipe.rank_stabilized,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)  # casts its own weights to float32
    layers: list[Any] = [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.cast_input_dtype_enabled = False  # autocast chooses the type of its input; peft would widen it first
    if start is not None:
        known = adapter_weights(adapted)
        found = load_file(start / "adapter_model.safetensors")
        if {name: tuple(tensor.shape) for name, tensor in known.items()} != {
            name: tuple(tensor.shape) for name, tensor in found.items()
        }:
            raise InputError(
                f"the adapter in {start} does not fit: its layers or shapes are not those of rank {recipe.rank} from "
                f"layer {recipe.first_layer} on of {recipe.base}"
            )
        set_peft_model_state_dict(adapted, found)
    return adapted


if __name__ == "__main__":
    typer.run(main)
