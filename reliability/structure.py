"""Whether any text changes what stands around it: messages, turns, answer slots. Checked on the ids that a model reads.

    python -m reliability.structure --out reliability/results/structure.json

Each case stands in for the request, the response, the system message and an earlier turn, as it is and as it is
normalised, in both modes, and for the model's own reasoning. The tokens outside of it must be those of any other text,
and none inside of it a control token. No model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from guardreasoner_moderation import Moderator
from guardreasoner_moderation.decoding import decoded
from guardreasoner_moderation.engines.ctranslate2 import CTranslate2Engine
from guardreasoner_moderation.engines.encoding import SpanEncoder, apply_chat_template
from guardreasoner_moderation.interactions import Interaction, Turn
from guardreasoner_moderation.normalization import normalized
from guardreasoner_moderation.prompts import ChatTemplate, Prompt, PromptFormat, ask_for_answers, build_prompt
from guardreasoner_moderation.results import Mode
from reliability.chat_tokenizers import FAMILIES, train
from reliability.hostile_cases import cases
from reliability.record import Record, Trial

PLACES: Mapping[str, Callable[[str], Interaction]] = {
    "request": Interaction,
    "request and response": lambda text: Interaction(text, text),
    "system message and earlier turn": lambda text: Interaction("How?", None, (Turn("assistant", text),), text),
}
"""Where a text may stand."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How one engine reads prompts.

    Attributes:
        name: of the engine, with what it runs.
        encode: all token ids of a prompt, as the model gets them, without filler.
        encode_text: those of one piece of it.
        control_ids: tokens that no text may become.
        prompt_format, chat_template: how prompts are made.
    """

    name: str
    encode: Callable[[Prompt], list[int]]
    encode_text: Callable[..., list[int]]
    control_ids: frozenset[int]
    prompt_format: PromptFormat = PromptFormat.GUARDREASONER
    chat_template: ChatTemplate | None = None

    def prompts(self, interaction: Interaction) -> Iterator[Prompt]:
        """What the model reads of an interaction: for a verdict, and when answers are forced after its reasoning."""
        yield build_prompt(interaction, self.prompt_format, Mode.VERDICT, chat_template=self.chat_template)
        thought = build_prompt(interaction, self.prompt_format, Mode.THINK, chat_template=self.chat_template)
        yield ask_for_answers(thought, self.prompt_format, interaction.prompt)  # a model that repeats what it reads

    def changed(self, text: str) -> list[str]:
        """The places where a text changes what stands around it; none, or the structure can be attacked."""
        ids = self.encode_text(text, trusted=False)
        if not self.control_ids.isdisjoint(ids):
            return list(PLACES)
        return [
            place
            for place, put in PLACES.items()
            if any(
                self._broken(prompt, frame, text, ids)
                for prompt, frame in zip(self.prompts(put(text)), _frames(self, place), strict=True)
            )
        ]

    def _broken(self, prompt: Prompt, frame: Sequence[list[int] | None], text: str, ids: list[int]) -> bool:
        """Whether the ids of a prompt are not those of its frame with those of the text in between."""
        expected: list[int] = []
        untrusted = [span.text for span in prompt.needed if not span.trusted]
        for part in frame:
            if part is not None:
                expected += part
            elif not untrusted:
                return True
            else:
                written = untrusted.pop(0)
                expected += ids if written == text else self.encode_text(written, trusted=False)
        return bool(untrusted) or self.encode(prompt) != expected


@cache
def _frames(reader: Reader, place: str) -> list[list[list[int] | None]]:
    """The ids of each piece of the frame, for each prompt of a place; None where a text stands."""
    frames = []
    for prompt in reader.prompts(PLACES[place]("x")):
        start = reader.encode(Prompt((), add_bos=True)) if prompt.add_bos else []
        pieces = [reader.encode_text(span.text, trusted=True) if span.trusted else None for span in prompt.needed]
        frames.append([start, *pieces])
    return frames


def of_encoder(name: str, encoder: SpanEncoder, template: ChatTemplate | None) -> Reader:
    """The reader of an engine that encodes with a :class:`SpanEncoder` alone."""
    return Reader(name, encoder.encode, encoder.encode_text, encoder.control_ids, chat_template=template)


def embedded_reader(engine: CTranslate2Engine) -> Reader:
    """The reader of the embedded model; what CTranslate2 is given, without the filler."""
    encoder = engine._encoder

    def encode(prompt: Prompt) -> list[int]:
        head, rest = engine._encode_for_call(Prompt(prompt.needed), 0)
        return [*head, *rest]

    return Reader("ctranslate2, embedded", encode, encoder.encode_text, encoder.control_ids, PromptFormat.COMPACT)


def chat_readers() -> Iterator[Reader]:
    """Tokenizers of transformers for four families of models, each in its chat template and, for one, without."""
    for name, family in FAMILIES.items():
        tokenizer = train(family)
        encoder = SpanEncoder.of(tokenizer)

        def template(messages: list[dict[str, str]], tokenizer: object = tokenizer) -> str:
            return apply_chat_template(tokenizer, messages)

        yield of_encoder(f"transformers, {name} template", encoder, template)
        if name == "Llama 3":
            yield of_encoder("transformers, raw prompt", encoder, None)


def as_read(text: str) -> list[str]:
    """What the model may be given of a text: itself, normalised, and what it says in code."""
    hidden = decoded(text)
    return list(dict.fromkeys((text, normalized(text).text, *([hidden.text] if hidden else []))))


def attack(reader: Reader, texts: Sequence[str]) -> Trial:
    """The trial of one engine."""
    tried = failed = 0
    for text in texts:
        for read in as_read(text):
            tried += len(PLACES)
            failed += len(reader.changed(read))
    return Trial(reader.name, tried, failed, {"texts": len(texts)})


def main(
    out: Annotated[Path, typer.Option(help="File for the record.")] = Path("reliability/results/structure.json"),
) -> None:
    """Attack the structure of prompts."""
    texts = [case.text for case in cases()]
    with Moderator() as guard:
        engine = guard.model.engine
        if not isinstance(engine, CTranslate2Engine):
            raise typer.BadParameter("the embedded model does not run on CTranslate2 here")
        trials = [attack(reader, texts) for reader in (embedded_reader(engine), *chat_readers())]
    record = Record(
        "Hostile texts: structure",
        "No text changes the number of messages, ends a turn or supplies an answer: the tokens around it are the same "
        "for every text, and none within it is a control token. Tried: texts, as they are and as they are normalised, "
        "by places where they stand.",
        "python -m reliability.structure --out reliability/results/structure.json",
        trials,
        ["The tokenizers of the transformers engine have the models' control tokens and templates, not their words."],
    )
    record.save(out)
    for trial in trials:
        typer.echo(f"{trial.name}: {trial.failed} of {trial.tried} failed")


if __name__ == "__main__":
    typer.run(main)
