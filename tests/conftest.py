from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the workers share the cores
    cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores))

import guardreasoner_moderation.engines.ctranslate2  # noqa: F401 - before a test loads the library by itself
from guardreasoner_moderation import Moderator, weights
from guardreasoner_moderation.engines.scripted import Reply, ScriptedEngine
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import PromptFormat
from guardreasoner_moderation.weights import BaseFile

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


def leftovers(cache: Path) -> list[str]:
    """What is in the cache beside locks and what is known of files."""
    if not cache.is_dir():
        return []
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock" and path.name != ".verified")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GUARDREASONER_CACHE", str(folder))
    monkeypatch.delenv("GUARDREASONER_BASE", raising=False)
    return folder


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


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised Llama in a GGUF file like the embedded base's, written as llama.cpp writes one."""
    import gguf
    import numpy as np
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]

    layers, heads, kv_heads, hidden, feed_forward = 2, 4, 2, 32, 64
    file = tmp_path_factory.mktemp("tiny-gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(feed_forward)
    writer.add_vocab_size(len(vocabulary))
    writer.add_context_length(2048)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in control else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    dice = np.random.default_rng(0)
    size = hidden // heads
    shapes = {
        "attn_q": (hidden, hidden),
        "attn_k": (kv_heads * size, hidden),
        "attn_v": (kv_heads * size, hidden),
        "attn_output": (hidden, hidden),
        "ffn_gate": (feed_forward, hidden),
        "ffn_up": (feed_forward, hidden),
        "ffn_down": (hidden, feed_forward),
    }
    writer.add_tensor("token_embd.weight", dice.normal(0, 0.3, (len(vocabulary), hidden)).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", dice.uniform(0.5, 1.5, hidden).astype(np.float32))
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", dice.normal(0, 0.2, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def tiny_weights(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Short name of :func:`tiny_gguf` as a base model, with a cache of its own."""
    content = tiny_gguf.read_bytes()
    base = BaseFile(
        name="tiny",
        package="tiny-weights",
        version="1",
        member="tiny_weights/tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        wheel_sha256="0" * 64,
        wheel_size=len(content),
        source="nobody/tiny",
        license="CC0-1.0",
    )
    monkeypatch.setattr(weights, "BASES", {**weights.BASES, "tiny": base})
    monkeypatch.setenv("GUARDREASONER_BASE", str(tiny_gguf))
    monkeypatch.setenv("GUARDREASONER_CACHE", str(tmp_path / "cache"))
    return "tiny"
