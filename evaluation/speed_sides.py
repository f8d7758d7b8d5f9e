"""One side of the speed comparison, in a process of its own: reads commands from stdin, answers on stdout.

    python -m evaluation.speed_sides ours

Every command and every answer is one line of JSON. Only one side works at a time; the others wait for their turn, which
comes when the one before is at rest. A turn begins with a short text that is not timed: after a pause, however it came
about, weights are no longer in the processor's caches.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from guardreasoner_moderation.results import Mode

_WARM_UP = "How do I bake bread?"
_LOOK_SECONDS = 0.05  # a process that computes less than a tenth of it is at rest


class Side(Protocol):
    """How one of the compared ways judges texts."""

    def judge(self, texts: Sequence[str], mode: Mode, tokens: int) -> list[int]:
        """Judges texts, several at once, and returns how many tokens were written for each.

        ``tokens`` is how many a side writes that does not stop by itself.
        """


class Ours:
    """A moderator as users call it, on any of its engines, but for long texts, which it reads in windows alone.

    Paragraphs are a second reading that the others do not do.
    """

    def __init__(self, model: str = "embedded", **options: Any) -> None:
        from guardreasoner_moderation import Moderator

        self._guard = Moderator.from_pretrained(model, passage_tokens=0, **options)

    def judge(self, texts: Sequence[str], mode: Mode, tokens: int) -> list[int]:
        """See :meth:`Side.judge`; this side ends by itself, and ``tokens`` is its budget."""
        settings: dict[str, Any] = {"max_reasoning_tokens": tokens} if mode is Mode.THINK else {}
        if len(texts) == 1:
            results = [self._guard.classify(texts[0], mode=mode.value, **settings)]
        else:
            results = self._guard.classify_batch(texts, mode=mode.value, on_error="raise", **settings)
        return [result.usage.completion_tokens for result in results]


class PlainTransformers:
    """What one would write from a model card: float32, the adapter unmerged, ``generate`` with its defaults."""

    def __init__(self) -> None:
        import torch
        from peft import PeftModel
        from transformers import PreTrainedTokenizerFast

        from guardreasoner_moderation import weights
        from guardreasoner_moderation.checkpoint import read_gguf
        from guardreasoner_moderation.engines.transformers import llama_from_checkpoint
        from guardreasoner_moderation.models import find_folder

        checkpoint = read_gguf(weights.base_file("smollm2-135m"))
        self._torch = torch
        self._model: Any = PeftModel.from_pretrained(llama_from_checkpoint(checkpoint), str(find_folder("embedded")))
        self._model.eval()
        self._tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=checkpoint.tokenizer,
            eos_token=checkpoint.eos_token,
            pad_token=checkpoint.eos_token,
            padding_side="left",
        )
        words = (" harmful", " unharmful")
        self._labels = [self._tokenizer(word, add_special_tokens=False).input_ids[0] for word in words]

    def judge(self, texts: Sequence[str], mode: Mode, tokens: int) -> list[int]:
        """See :meth:`Side.judge`: a verdict is one forward pass, and thinking writes exactly ``tokens``."""
        from guardreasoner_moderation.interactions import Interaction
        from guardreasoner_moderation.prompts import PromptFormat, build_prompt

        prompts = [build_prompt(Interaction(text), PromptFormat.COMPACT, mode).text for text in texts]
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        with self._torch.inference_mode():
            if mode is Mode.VERDICT:
                logits = self._model(**inputs, logits_to_keep=1).logits[:, -1]
                logits[:, self._labels].softmax(-1).tolist()
                return [1] * len(texts)
            written = self._model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
        return [int(written.shape[1] - inputs["input_ids"].shape[1])] * len(texts)


def make_llamacpp(file: str) -> Side:
    """The package's llama.cpp engine on a GGUF file."""
    return Ours(file, engine="llamacpp")


SIDES: Mapping[str, Callable[..., Side]] = {
    "ours": Ours,
    "transformers": PlainTransformers,
    "llamacpp": make_llamacpp,
}


def come_to_rest(most: float = 10.0) -> None:
    """Waits until no thread of this process computes, at most so many seconds.

    llama.cpp's threads go on polling for 0.3 to 1.2 seconds after each call, and would slow down whose turn is next.
    """
    deadline = time.monotonic() + most
    while time.monotonic() < deadline:
        before = time.process_time()
        time.sleep(_LOOK_SECONDS)
        if time.process_time() - before < _LOOK_SECONDS / 10:
            return


def main() -> None:
    """Serve one side until stdin ends."""
    import resource

    name, *arguments = sys.argv[1:]
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not stand between the answers
    side = SIDES[name](*arguments)
    for line in sys.stdin:
        command = json.loads(line)
        side.judge([_WARM_UP], Mode.VERDICT, 1)
        started = time.perf_counter()
        tokens = side.judge(command["texts"], Mode(command["mode"]), command["tokens"])
        seconds = time.perf_counter() - started
        come_to_rest()
        answer = {
            "seconds": seconds,
            "tokens": tokens,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
