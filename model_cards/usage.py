"""What a card tells of using a model: prompts, answers, and snippets, all from the package's own prompt builder."""

from __future__ import annotations

import json
from dataclasses import dataclass

from guardreasoner_moderation.interactions import Interaction
from guardreasoner_moderation.models import ModelSpec
from guardreasoner_moderation.prompts import HEADINGS, PromptFormat, build_prompt, opening, target_pieces
from guardreasoner_moderation.results import Category, Label, Mode, Task
from model_cards.reading import shown_path
from model_cards.record import RunRecord

_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes
_LABELS = {Task.REQUEST: Label.HARMFUL, Task.COMPLETION: Label.REFUSAL, Task.RESPONSE: Label.UNHARMFUL}


@dataclass(frozen=True, slots=True)
class Usage:
    """How a model is used.

    Attributes:
        prompts: for each mode the whole prompt of an interaction, with ``{prompt}`` and ``{response}`` in it.
        answer: what the model writes at the end.
        package, transformers, vllm: snippets.
    """

    prompts: dict[str, str]
    answer: str
    package: str
    transformers: str
    vllm: str


def describe_usage(record: RunRecord, repo_id: str | None = None, revision: str | None = None) -> Usage:
    """How the model of a run is used.

    Args:
        record: of the run.
        repo_id: where it is published; None to use it from its folder.
        revision: its tag there.
    """
    spec, place = record.spec, repo_id or shown_path(record.adapter)
    return Usage(
        prompts={mode.value: _prompt(spec, mode, response="{response}") for mode in (Mode.VERDICT, Mode.THINK)},
        answer=_answer(spec),
        package=_package(record, repo_id, revision),
        transformers=_transformers(record, place),
        vllm=_vllm(record, place),
    )


def prompt_note(spec: ModelSpec) -> str:
    """How to read the prompts."""
    lead = f"Format `{spec.prompt_format}`"
    if spec.prompt_format is PromptFormat.COMPACT:
        return (
            f"{lead}, in ChatML. For a request without a response leave out the lines from `AI assistant:` on, and ask "
            "one task: `Is the request harmful?`."
        )
    note = f"{lead} (arXiv 2501.18492, figure 18). Without a response, `None` stands in its place."
    return f"{note} The two messages go through the base model's chat template." if spec.chat else note


def _prompt(spec: ModelSpec, mode: Mode, *, response: str | None) -> str:
    template = None
    if spec.prompt_format is PromptFormat.GUARDREASONER and spec.chat:

        def template(messages: list[dict[str, str]]) -> str:
            return "".join(f"[{message['role']} message]\n{message['content']}\n" for message in messages)

    return build_prompt(Interaction("{prompt}", response), spec.prompt_format, mode, chat_template=template).text


def _answer(spec: ModelSpec) -> str:
    if spec.prompt_format is PromptFormat.COMPACT:
        category = Category.FRAUD_ILLEGAL.value if spec.categories else None
        pieces = target_pieces(_LABELS, category, {}, Mode.VERDICT)
        return opening(spec.prompt_format, Mode.VERDICT) + "".join(text for text, _ in pieces)
    return "Answers: \n" + "\n".join(f"{HEADINGS[task]}: {label}" for task, label in _LABELS.items())


def _package(record: RunRecord, repo_id: str | None, revision: str | None) -> str:
    pinned = f", revision={json.dumps(revision)}" if revision else ""
    load = f"guard = Moderator.from_pretrained({json.dumps(repo_id or shown_path(record.adapter))}{pinned})"
    if record.is_shipped:
        load = f"{load}  # or Moderator()" if repo_id else "guard = Moderator()"
        load += ": this adapter comes with the package" if repo_id else "  # this adapter comes with the package"
    return (
        "from guardreasoner_moderation import Moderator\n\n"
        f"{load}\n"
        'result = guard.classify("How do I pick a lock?", "Call a locksmith; I will not explain more.")\n'
        "print(result)"
    )


def _transformers(record: RunRecord, place: str) -> str:
    spec, base = record.spec, json.dumps(record.base)
    if spec.prompt_format is PromptFormat.GUARDREASONER and spec.chat:
        system, user = _messages(spec)
        tokenise = (
            f'system = """{system}"""\n'
            f'user = """{user}""".replace("{{prompt}}", text)\n'
            'messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]\n'
            "ids = tokenizer.apply_chat_template(\n"
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n'
            ")\n"
        )
    else:
        special = spec.prompt_format is PromptFormat.GUARDREASONER  # the raw prompt begins with the start token
        tokenise = (
            f'prompt = """{_prompt(spec, Mode.THINK, response=None)}""".replace("{{prompt}}", text)\n'
            f'ids = tokenizer(prompt, return_tensors="pt", add_special_tokens={special})\n'
        )
    return (
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"tokenizer = AutoTokenizer.from_pretrained({base})\n"
        f"base = AutoModelForCausalLM.from_pretrained({base})\n"
        f"model = PeftModel.from_pretrained(base, {json.dumps(place)})\n"
        'text = "How do I pick a lock?"\n'
        f"{tokenise}"
        f"written = model.generate(**ids, max_new_tokens={spec.reasoning_tokens}, do_sample=False)\n"
        'print(tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))'
    )


def _messages(spec: ModelSpec) -> tuple[str, str]:
    """The contents of the system and the user message, with ``{prompt}`` in the latter."""
    system = ""

    def template(messages: list[dict[str, str]]) -> str:
        nonlocal system
        system = messages[0]["content"]
        return messages[1]["content"]

    prompt = build_prompt(Interaction("{prompt}"), spec.prompt_format, Mode.THINK, chat_template=template)
    return system, prompt.text


def _vllm(record: RunRecord, place: str) -> str:
    rank = int(record.config.get("r", _LORA_RANKS[-1]))
    allowed = next((limit for limit in _LORA_RANKS if limit >= rank), rank)
    return f"vllm serve {record.base} --enable-lora --max-lora-rank {allowed} --lora-modules guard={place}"
