"""Reasoning SFT (arXiv 2501.18492, section 2.2) of any base on the Hub, by trl: LoRA, QLoRA or all weights.

    python -m training.trl_sft training/recipes/llama32_3b_exp18.yaml --data-dir DATA --out runs/exp18
    accelerate launch --config_file training/accelerate/fsdp.yaml -m training.trl_sft RECIPE --data-dir DATA --out RUN

Run the same command again to go on after a stop. For the embedded base :mod:`training.rsft` is faster on a CPU.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.results import Mode, Task
from training.data import TRAIN, VALIDATION, Example, LabelledInteraction, read_interactions
from training.inventory import take_inventory
from training.recipe import DataSource, read_strictly
from training.trl_recipe import LOSS, SftRecipe

if TYPE_CHECKING:
    from training.trl_run import ExampleBuilder

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main(
    recipe_file: Annotated[Path, typer.Argument(help="A recipe, such as training/recipes/llama32_3b_exp18.yaml.")],
    data_dir: Annotated[Path, typer.Option(help="Folder with the recipe's data files.")],
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run in it is resumed.")],
) -> None:
    """Train an adapter or a whole model."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig

    from training import trl_record, trl_run
    from training.weighted_trainer import LastLook, WeightedTrainer, collate, describe, row_of

    recipe = read_strictly(recipe_file, SftRecipe)
    trl_run.refuse_impossible(recipe)
    trl_run.open_run(recipe, out)
    sources = [(source, read_interactions(data_dir / source.file)) for source in recipe.data]
    model, tokenizer = trl_run.load_model(recipe, recipe.base)
    build = trl_run.ExampleBuilder.of(tokenizer, recipe)
    shown, too_long = build_training(recipe, sources, build)
    looked_at = [row_of(example, build) for example in build_validation(recipe, sources, build)]
    trl_run.say(
        f"{len(shown)} sequences; {too_long} items left out as too long; {len(looked_at)} to look at for validation"
    )

    settings = trl_run.trainer_settings(recipe, out)
    if looked_at:
        settings |= {
            "eval_strategy": settings["save_strategy"],
            "eval_steps": recipe.save_steps or None,
            "load_best_model_at_end": True,
            "metric_for_best_model": recipe.best,
            "greater_is_better": recipe.best != LOSS,
        }
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=PROJECTIONS,
        task_type="CAUSAL_LM",
    )
    trainer = WeightedTrainer(
        model,
        args=SFTConfig(**settings, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}),
        data_collator=partial(collate, pad_id=tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([row_of(example, build) for example in shown]),
        eval_dataset=Dataset.from_list(looked_at) if looked_at else None,
        processing_class=tokenizer,
        compute_metrics=describe,
        callbacks=[trl_record.Clock(), LastLook()],
        peft_config=None if recipe.method == "full" else lora,
    )
    trl_run.keep_steps_fine(trainer, recipe)
    trainer.train(resume_from_checkpoint=trl_run.newest_checkpoint(out))
    folder = out / ("model" if recipe.method == "full" else "adapter")
    trainer.save_model(str(folder))
    if trl_run.is_first_process():
        trl_record.write_spec(recipe, folder)
        trl_record.write_record(
            out,
            recipe,
            {source.file: data_dir / source.file for source in recipe.data},
            trainer.state,
            inventory=take_inventory([item for _, items in sources for item in items]),
            left_out_as_too_long=too_long,
            validation=read_looks(trainer.state.log_history),
            best_step=trainer.state.best_global_step,
        )
        trl_run.say(f"written to {folder}")


Sources = Sequence[tuple[DataSource, list[LabelledInteraction]]]


def build_training(recipe: SftRecipe, sources: Sources, build: ExampleBuilder) -> tuple[list[Example], int]:
    """The sequences of one pass over the training items, and how many items were left out as too long.

    Which items are shown with their reasoning is drawn once, as :class:`training.recipe.DataSource` says; all passes
    show the same, each in an order of its own.
    """
    shown: list[Example] = []
    too_long = 0
    for source, items in sources:
        dice = random.Random(f"{recipe.seed} {source.file}")
        for item in items:
            thinks = dice.random() < source.think_share and item.can_think
            if item.split != TRAIN or item.doubtful:
                continue
            mode = Mode.THINK if thinks else Mode.VERDICT
            answers = (Mode.THINK, Mode.VERDICT) if thinks and recipe.answers_alone else (mode,)
            sequences = [build(item, mode, answer_mode=answer, label_weight=recipe.label_weight) for answer in answers]
            if max(map(len, sequences)) <= recipe.max_tokens:
                shown += sequences
            else:
                too_long += 1
    if not shown:
        raise InputError(f"nothing is left to learn from: {too_long} items have more than {recipe.max_tokens} tokens")
    return shown, too_long


def build_validation(recipe: SftRecipe, sources: Sources, build: ExampleBuilder) -> list[Example]:
    """The answers alone of the validation items, in the mode that the recipe trains them in.

    They follow a verdict prompt; where everything is shown with reasoning, a think prompt, the only one that the model
    knows. Reasoning is left out as it would give the labels away.
    """
    mode = Mode.THINK if all(source.think_share == 1 for source in recipe.data) else Mode.VERDICT
    items = [item for _, some in sources for item in some if item.split == VALIDATION and not item.doubtful]
    random.Random(recipe.seed).shuffle(items)
    examples = (build(item, mode, answer_mode=Mode.VERDICT) for item in items[: recipe.eval_items or None])
    return [example for example in examples if len(example) <= recipe.max_tokens]


def read_looks(log: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The looks at the validation split in a trainer's log, in the form of :mod:`training.rsft`'s record."""
    looks = []
    for line in log:
        if "eval_loss" not in line:
            continue
        look: dict[str, Any] = {"step": line["step"], "loss": round(line["eval_loss"], 5)}
        for task in Task:
            names = {key: key.removeprefix(f"eval_{task.value}_") for key in line}
            if told := {short: line[key] for key, short in names.items() if short != key}:
                look[task.value] = {"auprc": None, **told}
        looks.append(look)
    return looks


if __name__ == "__main__":
    typer.run(main)
