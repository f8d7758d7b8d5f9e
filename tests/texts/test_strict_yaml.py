from __future__ import annotations

from pathlib import Path

import pytest

from guardreasoner_moderation.errors import InputError
from texts.strict_yaml import read_yaml


def write(folder: Path, content: bytes) -> Path:
    (folder / "file.yaml").write_bytes(content)
    return folder / "file.yaml"


def test_plain_yaml_is_read_and_a_byte_order_mark_passed_over(tmp_path: Path) -> None:
    file = write(tmp_path, b"\xef\xbb\xbfa: 1\nb: [x, 2]\nc: {d: null}\n")
    assert read_yaml(file) == {"a": 1, "b": ["x", 2], "c": {"d": None}}


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path, b"a: &a {x: 1}\nb: {<<: *a, x: 2}\n"))["b"] == {"x": 2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "the key 'a' stands there twice"),
        (b"a: {b: 1, b: 2}\n", "the key 'b' stands there twice"),
        (b"a: [", "is not valid YAML: .*line 1, column 5"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a: \0", "is not valid YAML"),
        (b"a: " + b"[" * 5000, "is nested too deeply"),
        (b"x" * 300_000, "is larger than 256 KiB"),
        (b"!!python/object/apply:os.system ['true']", "is not valid YAML: could not determine a constructor"),
        (b"2001-99-99", "holds a value that cannot be read"),
        (b"!!int ''", "holds a value that cannot be read"),
        (b"!!bool maybe", "holds a value that cannot be read"),
        (b"!!timestamp x", "holds a value that cannot be read"),
        (b"9" * 5000, "holds a value that cannot be read"),
        (b"? [a]\n: 1\n", "is not valid YAML: found unhashable key"),
    ],
)
def test_what_is_no_plain_yaml_is_one_error_that_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_yaml(write(tmp_path, content))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "nowhere.yaml")
