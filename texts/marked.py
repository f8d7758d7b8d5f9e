"""The parts of a Markdown page that are made of results: what stands between two marks is made anew, the rest stays.

    <!-- KIND: NAME -->
    made
    <!-- end of KIND -->

A kind of which there is one only has no name: ``<!-- KIND -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable


def fill(text: str, kind: str, make: Callable[[str], str]) -> str:
    """The page with its parts of one kind made anew.

    Args:
        text: of the page.
        kind: a word, or several.
        make: from a name (empty where the mark has none) to Markdown.
    """
    return _marks(kind).sub(lambda match: f"{match[1]}{make(match['name'] or '')}\n{match[3]}", text)


def has_marks(text: str, kind: str) -> bool:
    """Whether a page has a part of that kind."""
    return _marks(kind).search(text) is not None


def _marks(kind: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {kind}(?:: (?P<name>[^>]+?))? -->\n).*?(<!-- end of {kind} -->)", re.DOTALL)
