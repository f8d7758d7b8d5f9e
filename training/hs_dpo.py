"""Hard-sample DPO (arXiv 2501.18492, section 2.3) of an adapter or a whole model that reasoning SFT has trained.

    python -m training.hs_dpo training/recipes/embedded_hs_dpo.yaml --pairs pairs.jsonl --adapter ADAPTER --out runs/dpo

The pairs are those of ``python -m training.hard_samples pairs``. Run the same command again to go on after a stop;
``accelerate launch`` takes it as it takes :mod:`training.trl_sft`.

The reference policy is the model that training starts from. Its log-probabilities do not change, so they are computed
once, before the first step, and kept in the run folder. That is one way for LoRA, QLoRA and all weights, it holds no
second model in memory, it costs one pass over the pairs in place of one in each epoch, and a run that goes on after a
kill has the same reference as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.models import SPEC_FILE, read_spec, weights_sha256
from guardreasoner_moderation.results import Mode
from training.pairs import PreferencePair, read_pairs
from training.recipe import read_strictly
from training.trl_recipe import DpoRecipe

if TYPE_CHECKING:
    from training.trl_run import ExampleBuilder


def main(
    recipe_file: Annotated[
        Path, typer.Argument(help="A recipe, such as training/recipes/guardreasoner_3b_hs_dpo.yaml.")
    ],
    pairs: Annotated[Path, typer.Option(help="Preference pairs with weights.")],
    adapter: Annotated[Path, typer.Option(help="The adapter to start from; for method: full a whole model's folder.")],
    out: Annotated[Path, typer.Option(help="Run folder; an unfinished run in it is resumed.")],
) -> None:
    """Train on preference pairs."""
    from datasets import load_from_disk
    from peft import PeftModel
    from trl import DPOConfig

    from training import trl_record, trl_run
    from training.preference_trainer import PairCollator, PreferenceTrainer

    recipe = read_strictly(recipe_file, DpoRecipe)
    trl_run.refuse_impossible(recipe)
    refuse_other_kind(recipe, adapter)
    trl_run.open_run(recipe, out)
    model, tokenizer = trl_run.load_model(recipe, adapter if recipe.method == "full" else recipe.base)
    if recipe.method != "full":
        model = PeftModel.from_pretrained(model, str(adapter), is_trainable=True)
    settings = DPOConfig(
        **trl_run.trainer_settings(recipe, out), beta=recipe.beta, max_length=None, precompute_ref_log_probs=True
    )
    rows, too_long = build_rows(read_pairs(pairs), trl_run.ExampleBuilder.of(tokenizer, recipe), recipe.max_tokens)
    trl_run.say(f"{len(rows)} pairs; {too_long} left out as too long")
    # The reference's log-probabilities are kept beside the data set's file, where every process finds them.
    with settings.main_process_first():
        dataset = load_from_disk(str(write_rows_once(rows, out / "pairs")))
    trainer = PreferenceTrainer(
        model,
        args=settings,
        sft_weight=recipe.sft_weight,
        data_collator=PairCollator(pad_token_id=tokenizer.pad_token_id),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[trl_record.Clock()],
    )
    trl_run.keep_steps_fine(trainer, recipe)
    trainer.train(resume_from_checkpoint=trl_run.newest_checkpoint(out))
    folder = out / ("model" if recipe.method == "full" else "adapter")
    trainer.save_model(str(folder))
    if trl_run.is_first_process():
        trl_record.write_spec(recipe, folder, start=adapter)
        trl_record.write_record(
            out,
            recipe,
            {"pairs": pairs},
            trainer.state,
            start_sha256=weights_sha256(adapter),
            left_out_as_too_long=too_long,
            margins=[round(line["margin"], 5) for line in trainer.state.log_history if "margin" in line],
            preferred=[round(line["preferred"], 4) for line in trainer.state.log_history if "preferred" in line],
        )
        trl_run.say(f"written to {folder}")


def refuse_other_kind(recipe: DpoRecipe, adapter: Path) -> None:
    """Insists that what training starts from is of the recipe's method.

    Raises:
        InputError: an adapter for ``method: full``, or a whole model for another, or one that is asked in another way.
    """
    if not adapter.is_dir():
        raise InputError(f"there is no folder {adapter}; name that of the R-SFT adapter or model")
    is_adapter = (adapter / "adapter_config.json").exists()
    if is_adapter == (recipe.method == "full"):
        found = "an adapter" if is_adapter else "no adapter"
        raise InputError(f"{adapter} holds {found}, which does not go with method: {recipe.method}")
    if (adapter / SPEC_FILE).exists():
        spec = read_spec(adapter / SPEC_FILE)
        if (spec.prompt_format.value, spec.chat) != (recipe.prompt_format, recipe.chat):
            raise InputError(
                f"{adapter} is asked with prompt_format: {spec.prompt_format.value} and chat: {str(spec.chat).lower()}"
                "; the recipe has others"
            )


def build_rows(
    pairs: Sequence[PreferencePair], build: ExampleBuilder, max_tokens: int
) -> tuple[list[dict[str, Any]], int]:
    """Token ids of prompt and answers, and how many pairs were left out as too long.

    Raises:
        InputError: no pair is left.
    """
    rows = []
    for pair in pairs:
        chosen, rejected = (build(side, Mode.THINK) for side in (pair.chosen, pair.rejected))
        if max(len(chosen), len(rejected)) > max_tokens:
            continue
        start = next(place for place, weight in enumerate(chosen.weights) if weight)  # both have the same prompt
        rows.append(
            {
                "prompt_ids": chosen.ids[:start],
                "chosen_ids": chosen.ids[start:],
                "rejected_ids": rejected.ids[start:],
                "alpha": pair.weight,
            }
        )
    if not rows:
        raise InputError(f"no pair is left: all {len(pairs)} have more than {max_tokens} tokens")
    return rows, len(pairs) - len(rows)


def write_rows_once(rows: Sequence[dict[str, Any]], folder: Path) -> Path:
    """Writes the data set into a new folder, named by its content: a killed run's is found again."""
    from datasets import Dataset
    from datasets.fingerprint import Hasher

    target = folder / str(Hasher.hash(rows))
    if not (target / "state.json").exists():  # written last
        Dataset.from_list(list(rows)).save_to_disk(str(target))
    return target


if __name__ == "__main__":
    typer.run(main)
