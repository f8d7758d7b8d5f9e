from __future__ import annotations

import pytest

from guardreasoner_moderation import InputError
from guardreasoner_moderation.demo.settings import DemoSettings


def test_a_space_names_its_models_in_the_environment() -> None:
    assert DemoSettings.from_environment({"GUARDREASONER_DEMO_MODELS": "embedded, a/b"}).models == ("embedded", "a/b")


@pytest.mark.parametrize("environment", [{}, {"GUARDREASONER_DEMO_MODELS": " "}])
def test_without_names_there_is_the_embedded_model(environment: dict[str, str]) -> None:
    assert DemoSettings.from_environment(environment).models == ("embedded",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "at least one model"),
        ({"models": ("embedded", "embedded")}, "named twice"),
        ({"port": 70_000}, "from 1 to 65535"),
        ({"max_rows": 0}, "max_rows must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_errors(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DemoSettings(**changes)  # type: ignore[arg-type]
