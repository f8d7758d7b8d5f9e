"""Reasoning SFT (arXiv 2501.18492, section 2.2) of a LoRA adapter, in think and verdict mode at once.

    python -m training.rsft training/recipes/embedded.yaml --data-dir DATA --out runs/embedded

Run the same command again to go on after a stop. The run folder holds the recipe, a log line per look at the
validation split, the newest resumable checkpoint and, at the end, the adapter.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import random
import shutil
import subprocess
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardreasoner_moderation import weights
from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import LABELS, Label, Mode, Task
from training.data import Example, LabelledInteraction, build_example, read_interactions
from training.recipe import DataSource, Recipe, read_recipe

if TYPE_CHECKING:
    from peft import PeftModel

    from guardreasoner_moderation.checkpoint import Checkpoint


def main(
    recipe_file: Annotated[Path, typer.Argument(help="A recipe, such as training/recipes/embedded.yaml.")],
    data_dir: Annotated[Path, typer.Option(help="Folder with the recipe's data files.")],
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run in it is resumed.")],
) -> None:
    """Train an adapter."""
    import torch
    from transformers import get_wsd_schedule

    from guardreasoner_moderation.checkpoint import read_gguf
    from guardreasoner_moderation.engines.encoding import SpanEncoder
    from training.packed import loss_sum, micro_batches, pack

    recipe = read_recipe(recipe_file)
    out.mkdir(parents=True, exist_ok=True)
    refuse_other_run(out, recipe)
    torch.set_flush_denormal(True)
    torch.manual_seed(recipe.seed)

    checkpoint = read_gguf(weights.base_file(recipe.base))
    encoder = SpanEncoder(checkpoint.tokenizer)
    eos_id = checkpoint.tokens.index(checkpoint.eos_token)
    sources = [(source, read_interactions(data_dir / source.file)) for source in recipe.data]
    validation = [
        build_example(item, Mode.VERDICT, encoder.encode, eos_id)
        for _, items in sources
        for item in items
        if item.split == "validation" and not item.doubtful
    ]
    random.Random(recipe.seed).shuffle(validation)

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
    if recipe.max_steps:
        batches = batches[: recipe.max_steps]
    tokens_to_come = [sum(map(len, batch)) for batch in batches]
    typer.echo(
        f"{sum(map(len, batches))} sequences in {len(batches)} steps, {sum(tokens_to_come)} tokens; {too_long} items "
        f"left out as longer than {recipe.max_tokens} tokens; {len(validation)} validation items"
    )

    model = add_adapter(checkpoint, recipe)
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
    started = saved = time.monotonic()
    tokens_here = 0

    for step in range(progress["step"], len(batches)):
        batch = batches[step]
        total_weight = sum(sum(one.weights) for one in batch)
        loss = 0.0
        for run in micro_batches(sorted(batch, key=lambda one: one.ids), recipe.token_budget):
            part = loss_sum(base, pack(run)) / total_weight
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)

        now = time.monotonic()
        tokens_here += tokens_to_come[step]
        progress["step"] = step + 1
        progress["tokens"] += tokens_to_come[step]
        progress["losses"].append(round(loss, 5))
        if (step + 1) % 10 == 0:
            left = (now - started) / tokens_here * sum(tokens_to_come[step + 1 :])
            mean = sum(progress["losses"][-10:]) / 10
            rate = tokens_here / (now - started)
            typer.echo(
                f"step {step + 1}/{len(batches)}  loss {mean:.3f}  {rate:.0f} tokens/s  {left / 60:.0f} minutes left"
            )
        last = step + 1 == len(batches)
        if (step + 1) % recipe.eval_steps == 0 or last:
            looked_at = validation if last else validation[: recipe.eval_items]
            figures = {"step": step + 1, **validate(base, looked_at, checkpoint, recipe.token_budget)}
            progress["validation"].append(figures)
            typer.echo(json.dumps(figures))
        if now - saved > 60 * recipe.save_minutes or last:
            progress["seconds"] += time.monotonic() - started - progress.pop("counted", 0.0)
            progress["counted"] = time.monotonic() - started
            save_progress(out, model, optimizer, schedule, progress)
            saved = time.monotonic()

    for parameter in parameters:  # half the size; what is evaluated and released is this rounded adapter
        parameter.data = parameter.data.half()
    model.save_pretrained(str(out / "adapter"), save_embedding_layers=False)
    write_record(out, recipe, data_dir, progress, too_long)
    typer.echo(f"adapter written to {out / 'adapter'}")


def draw_epoch(
    recipe: Recipe, sources: Sequence[tuple[DataSource, list[LabelledInteraction]]], epoch: int
) -> list[tuple[LabelledInteraction, bool]]:
    """The training items of one pass, in the order they are learned, and whether each is shown with its reasoning."""
    drawn = []
    for source, items in sources:
        dice = random.Random(f"{recipe.seed} {epoch} {source.file}")
        for item in items:
            thinks = dice.random() < source.think_share and item.can_think
            if item.split == "train" and not item.doubtful:
                drawn.append((item, thinks))
    random.Random(recipe.seed + epoch).shuffle(drawn)
    return drawn


def add_adapter(checkpoint: Checkpoint, recipe: Recipe) -> PeftModel:
    """The base model in float32 with a fresh LoRA on every linear layer of the decoder."""
    from peft import LoraConfig, get_peft_model

    from guardreasoner_moderation.engines.transformers import llama_from_checkpoint
    from training.packed import ATTENTION

    model = llama_from_checkpoint(checkpoint)
    model.set_attn_implementation(ATTENTION)
    model.name_or_path = weights.BASES[recipe.base].source  # peft writes it into the adapter's configuration
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,  # on a CPU drawing its masks costs as much as the model
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(recipe.first_layer, checkpoint.shape.layers)),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def validate(model: Any, examples: Sequence[Example], checkpoint: Checkpoint, token_budget: int) -> dict[str, Any]:
    """Figures of the verdict mode, each label judged after the true ones before it.

    Returns:
        For each task the count, accuracy, F1 of the risky label at 0.5 and area under the precision-recall curve.
    """
    import torch
    from sklearn.metrics import accuracy_score, average_precision_score, f1_score

    from training.packed import logits_at, micro_batches, pack

    def first_token(label: Label) -> int:
        ids: list[int] = checkpoint.tokenizer.encode(f" {label.value}").ids
        return ids[0]

    scores: dict[Task, list[tuple[bool, float]]] = {}
    model.eval()
    with torch.inference_mode():
        for run in micro_batches(sorted(examples, key=len), token_budget):
            batch = pack(run)
            slots = [
                (path[position - 1], task, label)
                for path, example in zip(batch.paths, run, strict=True)
                for position, task, label in example.labels
            ]
            logits = logits_at(model, batch, torch.tensor([row for row, _, _ in slots]))
            for row, (_, task, label) in zip(logits, slots, strict=True):
                risky, other = (row[first_token(word)].item() for word in LABELS[task])
                scores.setdefault(task, []).append((label is LABELS[task][0], 1 / (1 + math.exp(other - risky))))
    model.train()
    figures = {}
    for task, pairs in scores.items():
        truth, score = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        chosen = [value >= 0.5 for value in score]
        figures[task.value] = {
            "n": len(pairs),
            "accuracy": round(float(accuracy_score(truth, chosen)), 4),
            "f1": round(float(f1_score(truth, chosen, zero_division=0.0)), 4),
            "auprc": round(float(average_precision_score(truth, score)), 4) if any(truth) else None,
        }
    return figures


def refuse_other_run(out: Path, recipe: Recipe) -> None:
    """Writes the recipe into a new run folder; in an old one, insists that it is the same."""
    file = out / "recipe.json"
    content = json.dumps(dataclasses.asdict(recipe), indent=2) + "\n"
    if file.exists() and file.read_text(encoding="utf-8") != content:
        raise InputError(f"{out} holds a run of another recipe ({file}); choose another --out")
    file.write_text(content, encoding="utf-8")


def load_progress(out: Path, model: PeftModel, *states: Any) -> dict[str, Any]:
    """The newest whole checkpoint, or a fresh start."""
    import torch
    from peft import set_peft_model_state_dict

    file = out / "checkpoint.pt"
    if not file.exists():
        return {"step": 0, "tokens": 0, "seconds": 0.0, "losses": [], "validation": []}
    saved = torch.load(file, weights_only=True)
    set_peft_model_state_dict(model, saved["adapter"])
    for state, content in zip(states, saved["states"], strict=True):
        state.load_state_dict(content)
    progress: dict[str, Any] = saved["progress"]
    typer.echo(f"resumed at step {progress['step']}")
    return progress


def save_progress(out: Path, model: PeftModel, *states_and_progress: Any) -> None:
    """Replaces the checkpoint in one move, so that a kill leaves the old or the new one, whole."""
    import torch
    from peft import get_peft_model_state_dict

    *states, progress = states_and_progress
    content = {
        "adapter": get_peft_model_state_dict(model, save_embedding_layers=False),
        "states": [state.state_dict() for state in states],
        "progress": {key: value for key, value in progress.items() if key != "counted"},
    }
    torch.save(content, out / "checkpoint.new")
    os.replace(out / "checkpoint.new", out / "checkpoint.pt")


def write_record(out: Path, recipe: Recipe, data_dir: Path, progress: dict[str, Any], too_long: int) -> None:
    """Writes run.json: what went in, on which machine, and what it cost."""
    import peft
    import torch
    import transformers

    git = shutil.which("git")
    commit = (
        git and subprocess.run([git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    )
    record = {
        "recipe": dataclasses.asdict(recipe),
        "data_sha256": {
            source.file: sha256((data_dir / source.file).read_bytes()).hexdigest() for source in recipe.data
        },
        "left_out_as_too_long": too_long,
        "commit": commit or None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
        "hardware": f"{os.cpu_count()} x {platform.processor() or platform.machine()} CPU",
        "steps": progress["step"],
        "tokens": progress["tokens"],
        "hours": round(progress["seconds"] / 3600, 2),
        "losses": progress["losses"],
        "validation": progress["validation"],
    }
    (out / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
