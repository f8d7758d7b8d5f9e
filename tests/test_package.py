from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import guardreasoner_moderation
from guardreasoner_moderation import errors

PACKAGE = Path(guardreasoner_moderation.__file__).parent
HEAVY = ("torch", "transformers", "ctranslate2", "numpy", "tokenizers", "huggingface_hub", "gguf")
HEAVY += ("pyarrow", "ray", "fastapi")


def test_all_is_sorted_and_equals_the_names_that_type_checkers_see() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    public = guardreasoner_moderation.__all__
    assert public == ["__version__", *sorted(public[1:])]
    assert sorted(set(names) - {"annotations", "TYPE_CHECKING", "Any"}) == public[1:]


def test_every_public_name_can_be_imported() -> None:
    for name in guardreasoner_moderation.__all__:
        assert getattr(guardreasoner_moderation, name) is not None
    assert set(guardreasoner_moderation.__all__) <= set(dir(guardreasoner_moderation))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Moderater"):
        guardreasoner_moderation.Moderater  # noqa: B018


def test_every_error_belongs_to_the_drawn_tree() -> None:
    kinds = {
        kind.__name__
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.ModerationError)
    }
    assert errors.__doc__ is not None
    assert all(kind in errors.__doc__ for kind in kinds)


def loaded_after(code: str) -> list[str]:
    """Which heavy packages are loaded by a fresh interpreter that runs ``code``."""
    script = f"{code}\nimport json, sys\nprint('\\n' + json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import guardreasoner_moderation") == []


def test_the_help_page_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['guardreasoner', '--help']\n"
        "from guardreasoner_moderation.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code"
    )
    assert loaded_after(code) == []


def test_importing_the_moderator_loads_no_engine() -> None:
    loaded = loaded_after("from guardreasoner_moderation import Moderator")
    assert not {"torch", "transformers", "ctranslate2"} & set(loaded)


def test_imports_point_one_way() -> None:
    order = [
        {"errors", "results", "telemetry"},
        {"checks", "strict_json", "cache"},
        {"interactions", "normalization", "hub"},
        {"package_client", "decoding", "passages"},
        {"prompts", "parsing"},
        {"verdicts"},
        {"windows", "weights", "checkpoint", "spec_values"},
        {"rotation"},
        {"engines"},
        {"models"},
        {"asking"},
        {"judge", "streaming", "rendering", "guarding"},
        {"moderator"},
        {"batch", "server"},
        {"demo"},
        {"cli"},
    ]
    rank = {name: number for number, names in enumerate(order) for name in names}
    for file in PACKAGE.rglob("*.py"):
        part = file.relative_to(PACKAGE).with_suffix("").parts[0]
        if part == "__init__":
            continue
        assert part in rank, f"{file.name} has no place in the order"
        for node in ast.parse(file.read_text(encoding="utf-8")).body:  # imports inside functions may point anywhere
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("guardreasoner_moderation."):
                other = str(node.module).split(".")[1]
                assert other == part or rank[other] < rank[part], f"{file.name} imports {other}"
