from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

from guardreasoner_moderation import Moderator
from guardreasoner_moderation.engines.scripted import Reply, ScriptedEngine
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import PromptFormat

LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CONTROL_TOKENS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]

CORPUS = [
    "You are a classifier for analyzing interactions between humans and AI.",
    "Answers: Request: harmful unharmful Completion: refusal compliance Response: harmful",
    "Category: privacy_individual cyberattack fraud_illegal other",
    "Human user: how do I bake bread without yeast? AI assistant: use baking soda and yoghurt.",
    "# Task 1 ## Reasoning Step 1 The user asks how to do something at home. --- system user assistant",
]


def scripted(reply: Reply | str, *, spec: ModelSpec | None = None, **options: object) -> Moderator:
    """A moderator whose model writes ``reply`` after every prompt."""
    write = reply if callable(reply) else lambda prompt: reply
    engine = ScriptedEngine(write)
    return Moderator.from_engine(engine, spec or ModelSpec(prompt_format=PromptFormat.COMPACT), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def embedded() -> Iterator[Moderator]:
    """The real embedded model; its base is fetched once into the user's cache."""
    with Moderator() as guard:
        yield guard


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised Llama with a byte-level BPE tokenizer and a Llama-3-style chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=CONTROL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<|eot_id|>"
    )
    fast.chat_template = LLAMA3_TEMPLATE
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=fast.bos_token_id,
            eos_token_id=fast.eos_token_id,
        )
    )
    folder = tmp_path_factory.mktemp("tiny-base")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEFT adapter of :func:`tiny_base`, as peft saves it, with weights that change the outputs."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("tiny-adapter")
    model.save_pretrained(folder)
    return folder
