"""Whether an adapter and a base belong together, where peft and transformers would go on without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from guardreasoner_moderation.errors import IncompatibleModelError, InputError, brief, shown


def refuse_other_vocabulary(tokenizer: Any, folder: Path, source: str) -> None:
    """An adapter's own tokenizer may add tokens to its base's; it may not give the base's tokens other ids.

    Args:
        tokenizer: the adapter's.
        folder: of the adapter.
        source: the base's folder or repository id.

    Raises:
        IncompatibleModelError: it does.
    """
    import transformers

    try:
        base: Any = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError):  # the base has none to compare with
        return
    own = tokenizer.get_vocab()
    for token, number in base.get_vocab().items():
        if own.get(token) != number:
            raise IncompatibleModelError(
                f"the adapter {folder} was trained with another vocabulary than that of {source}: the token "
                f"{shown(token)} has the number {number} in the base and {own.get(token, 'none')} in the adapter"
            )


def refuse_unfit(adapted: Any, folder: Path) -> None:
    """Insists that every weight of an adapter found its place in the base: peft leaves out what does not.

    Args:
        adapted: the base with the adapter, not merged yet.
        folder: of the adapter.

    Raises:
        IncompatibleModelError: one did not, or one of the places got none.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        saved = {name for name in file.keys() if "lora_" in name}  # noqa: SIM118 - it is no mapping
    if not saved:
        return  # of another kind than LoRA, whose names peft alone knows
    places = {name for name in get_peft_model_state_dict(adapted, save_embedding_layers=False) if "lora_" in name}
    for names, problem in ((saved - places, "the base has no place for"), (places - saved, "it lacks")):
        if names:
            raise IncompatibleModelError(f"the adapter {folder} does not fit the base model: {problem} {min(names)}")


def refuse_unknown_device(torch: Any, device: str) -> None:
    """Insists on a device that is there.

    Raises:
        InputError: it is not.
    """
    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as exc:  # AssertionError: torch without CUDA
        raise InputError(f"there is no device {shown(device)} here: {brief(str(exc))}") from exc
