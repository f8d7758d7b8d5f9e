"""How the authors of arXiv 2501.18492 write an interaction in their data files, read back.

The rows of their benchmarks and of GuardReasonerTrain are ``instruction, input, output``. The input reads

    Human user:
    <prompt>

    AI assistant:
    <response, or None>

and the output is a label, or reasoning with an answer block.
"""

from __future__ import annotations

from guardreasoner_moderation.errors import InputError
from guardreasoner_moderation.interactions import Interaction, to_interaction


def split_input(text: str) -> Interaction:
    """Prompt and response of a row's input.

    The first ``AI assistant:`` line that follows a blank line divides them. A response of ``None`` is no response.

    Raises:
        InputError: there is no such line, or a text is empty.
    """
    prompt, divider, response = text.partition("\n\nAI assistant:\n")
    if not text.startswith("Human user:\n") or not divider:
        raise InputError("expected 'Human user:', a prompt, a blank line, 'AI assistant:' and a response or None")
    prompt, response = prompt.removeprefix("Human user:\n"), response.removesuffix("\n\n")
    return to_interaction(Interaction(prompt, None if response.strip() == "None" else response))
