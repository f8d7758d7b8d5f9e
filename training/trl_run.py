"""What the trainers on trl have in common: the model, its examples, the trainer's settings, going on after a kill."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
import typer
from transformers import TrainingArguments

from guardreasoner_moderation import weights
from guardreasoner_moderation.checkpoint import read_gguf
from guardreasoner_moderation.engines.encoding import SpanEncoder
from guardreasoner_moderation.engines.transformers import llama_from_checkpoint
from guardreasoner_moderation.errors import InputError, ModelNotFoundError
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.results import Mode
from training.data import Example, LabelledInteraction, build_example
from training.run_folder import replace_text
from training.trl_recipe import OPTIMIZERS, TrlRecipe

CHECKPOINTING = (  # transformers 5.24 renamed it
    "activation_checkpointing" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient_checkpointing"
)
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def refuse_impossible(recipe: TrlRecipe) -> None:
    """Refuses what this machine or installation lacks, before anything is loaded.

    Raises:
        InputError: the recipe needs a GPU, or a package that is not installed.
    """
    if not torch.cuda.is_available():
        needs = {"method: qlora": recipe.method == "qlora", "optimizer: adamw_8bit": recipe.optimizer == "adamw_8bit"}
        needs["precision: fp16"] = recipe.precision == "fp16"
        if missing := [key for key, asked in needs.items() if asked]:
            raise InputError(
                f"{' and '.join(missing)} needs a CUDA GPU, and torch sees none; "
                "on this machine use method: lora, optimizer: adamw and precision: fp32 or bf16"
            )
    if recipe.tracker != "none":
        try:
            version(recipe.tracker)
        except ModuleNotFoundError as exc:
            raise InputError(f"tracker: {recipe.tracker} is not installed; run: pip install {recipe.tracker}") from exc


def load_model(recipe: TrlRecipe, source: str | Path) -> tuple[Any, Any]:
    """The base model and its tokenizer; transformers types neither closely.

    Weights that are trained are kept in float32, and frozen ones in the recipe's precision.

    Args:
        recipe: how it is loaded.
        source: short name of an embedded base, id on the Hub, or folder.

    Raises:
        ModelNotFoundError: there is none.
    """
    if str(source) in weights.BASES:
        checkpoint = read_gguf(weights.base_file(str(source)))
        model: Any = llama_from_checkpoint(checkpoint)
        model.name_or_path = weights.BASES[str(source)].source  # peft writes it into the adapter's configuration
        fast: Any = transformers.PreTrainedTokenizerFast
        return model, fast(
            tokenizer_object=checkpoint.tokenizer,
            bos_token=checkpoint.bos_token,
            eos_token=checkpoint.eos_token,
            pad_token=checkpoint.eos_token,
        )
    dtype = torch.float32 if recipe.method == "full" else _DTYPES[recipe.precision]
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
    if recipe.method == "qlora":
        config: Any = transformers.BitsAndBytesConfig
        options["quantization_config"] = config(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=dtype,  # FSDP shards tensors of one type only
        )
        options["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
    revision = {"revision": recipe.revision} if recipe.revision and source == recipe.base else {}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(str(source), **options, **revision)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(source), **revision)
    except (OSError, ValueError) as exc:
        raise ModelNotFoundError(
            f"the model {str(source)!r} could not be loaded ({exc}). Check its name and the network, log in if it is "
            "gated, or name a folder."
        ) from exc
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


@dataclass(frozen=True, slots=True)
class ExampleBuilder:
    """Builds examples for one model as the recipe has them asked."""

    tokenizer: Any
    recipe: TrlRecipe
    encoder: SpanEncoder

    @classmethod
    def of(cls, tokenizer: Any, recipe: TrlRecipe) -> ExampleBuilder:
        """For a tokenizer of transformers."""
        if recipe.chat and not tokenizer.chat_template:
            raise InputError(f"the tokenizer of {recipe.base} has no chat template; set chat to false")
        return cls(tokenizer, recipe, SpanEncoder.of(tokenizer))

    def __call__(
        self, item: LabelledInteraction, mode: Mode, *, answer_mode: Mode | None = None, label_weight: float = 1.0
    ) -> Example:
        """See :func:`training.data.build_example`."""
        render = partial(self.tokenizer.apply_chat_template, tokenize=False, add_generation_prompt=True)
        return build_example(
            item,
            mode,
            self.encoder.encode,
            self.tokenizer.eos_token_id,
            answer_mode=answer_mode,
            label_weight=label_weight,
            prompt_format=PromptFormat(self.recipe.prompt_format),
            chat_template=render if self.recipe.chat else None,
        )


def trainer_settings(recipe: TrlRecipe, out: Path) -> dict[str, Any]:
    """Arguments for trl's configurations.

    Raises:
        InputError: the batch can't be divided among processes and devices.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    at_once = recipe.device_batch_size * processes
    if recipe.batch_size % at_once:
        raise InputError(
            f"a batch_size of {recipe.batch_size} cannot be divided into forward passes of {recipe.device_batch_size} "
            f"on {processes} processes; choose a multiple of {at_once}"
        )
    return {
        "output_dir": str(out),
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "per_device_train_batch_size": recipe.device_batch_size,
        "per_device_eval_batch_size": recipe.device_batch_size,
        "gradient_accumulation_steps": recipe.batch_size // at_once,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup_steps,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "optim": OPTIMIZERS[recipe.optimizer],
        CHECKPOINTING: recipe.gradient_checkpointing,
        "bf16": recipe.precision == "bf16",
        "fp16": recipe.precision == "fp16",
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "steps" if recipe.save_steps else "epoch",
        "save_steps": recipe.save_steps or 500,
        "save_total_limit": 2,  # the newest and the best
        "logging_steps": 1,
        "include_num_input_tokens_seen": "non_padding",
        "remove_unused_columns": False,
        "report_to": recipe.tracker,
        "seed": recipe.seed,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def is_first_process() -> bool:
    """Whether this process writes what one process writes."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Prints once, however many processes there are."""
    if is_first_process():
        typer.echo(text)


def open_run(recipe: TrlRecipe, out: Path) -> None:
    """Writes the recipe into a new run folder; in an old one, insists that it is the same.

    Raises:
        InputError: the folder holds a run of another recipe.
    """
    file = out / "recipe.json"
    content = json.dumps(dataclasses.asdict(recipe), indent=2) + "\n"
    if file.exists() and file.read_text(encoding="utf-8") != content:
        raise InputError(f"{out} holds a run of another recipe ({file}); choose another --out")
    if is_first_process():
        out.mkdir(parents=True, exist_ok=True)
        replace_text(file, content)


def newest_checkpoint(out: Path) -> str | None:
    """The newest whole checkpoint: the trainer's state, written last, is there and can be read."""
    for folder in sorted(out.glob("checkpoint-*"), key=lambda one: int(one.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        say(f"goes on from {folder.name}")
        return str(folder)
    return None


def keep_steps_fine(trainer: Any, recipe: TrlRecipe) -> None:
    """Keeps a QLoRA adapter in float32: trl makes it bf16, whose steps are coarser than the learning rate.

    Under FSDP and DeepSpeed, which shard tensors of one type only, it stays as it is.
    """
    if recipe.method == "qlora" and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
