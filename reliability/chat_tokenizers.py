"""Tokenizers with the control tokens and chat templates of four families of models, trained on the spot.

Vocabularies of real models are not needed to see what becomes of control tokens, and none is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from texts.filler import filler

_SYSTEM_FIRST = "{% set system = messages[0]['content'] %}"


@dataclass(frozen=True, slots=True)
class Family:
    """How models of a family are talked to.

    Attributes:
        template: in Jinja, as the models' own does it for a system message and a user message.
        special: control tokens; the first begins a text where the template asks for it.
        added: tokens that the tokenizer finds in texts though they are not marked as special.
        sentencepiece: pieces that begin with "▁", with bytes for what they lack; else byte-level BPE.
    """

    template: str
    special: Sequence[str]
    added: Sequence[str] = ()
    sentencepiece: bool = False


FAMILIES: Mapping[str, Family] = {
    "ChatML": Family(
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        ("<think>", "</think>", "<tool_call>", "</tool_call>", "<｜User｜>", "<｜Assistant｜>"),
    ),
    "Llama 3": Family(
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
        "{{ m['content'] | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "Gemma": Family(
        _SYSTEM_FIRST + "{{ bos_token }}<start_of_turn>user\n{{ system }}\n\n{{ messages[1]['content'] | trim }}"
        "<end_of_turn>\n<start_of_turn>model\n",
        ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
        ("<table>", "<b>", "[multimodal]"),
        sentencepiece=True,
    ),
    "Mistral": Family(
        _SYSTEM_FIRST + "{{ bos_token }}[SYSTEM_PROMPT]{{ system }}[/SYSTEM_PROMPT]"
        "[INST]{{ messages[1]['content'] }}[/INST]",
        ("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]"),
        sentencepiece=True,
    ),
}


def train(family: Family, *, vocabulary: int = 800) -> Any:
    """A tokenizer of transformers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if family.sentencepiece:
        byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106 - no password
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
        first, alphabet = [*family.special, "<unk>", *byte_tokens], []
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        first, alphabet = list(family.special), pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=first, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([filler(2000, 0), *family.special, *family.added], trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.added])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=family.special[0])
    fast.chat_template = family.template
    return fast
