"""JSON that others wrote, read without surprises.

Python's own reader takes the last of two values of one key, where another reader of the same text may take the first;
and it reads nested texts that nothing can write again without running out of stack.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from guardreasoner_moderation.errors import shown

MAX_DEPTH = 100  # lists and objects in each other; a conversation has six


class UnreadableError(ValueError):
    """The text is JSON, but cannot be read safely."""


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        json.JSONDecodeError: it is no JSON.
        UnreadableError: an object has a key twice, it is nested too deeply, or a number has too many digits.
        UnicodeDecodeError: it is not in an encoding of JSON.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise UnreadableError("nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError, UnreadableError):
        raise
    except ValueError as exc:  # a number of more digits than Python reads
        raise UnreadableError(str(exc).partition(";")[0]) from exc
    opened = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if opened > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise UnreadableError("nested too deeply")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        (twin, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise UnreadableError(f"the key {shown(twin)} stands there twice")
    return content


def _depth(value: Any) -> int:
    """How many lists and objects are in each other; without recursion."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth
