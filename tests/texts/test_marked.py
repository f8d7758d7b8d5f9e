import pytest

from texts.marked import fill, has_marks

PAGE = """Before.
<!-- figures: one -->
old

| table |
<!-- end of figures -->
Between.
<!-- figures: two words -->
<!-- end of figures -->
<!-- claims -->
old
<!-- end of claims -->
"""


def test_every_part_of_a_kind_is_made_anew_by_its_name_and_the_rest_stays() -> None:
    made = fill(PAGE, "figures", lambda name: f"({name})")
    assert made == (
        "Before.\n<!-- figures: one -->\n(one)\n<!-- end of figures -->\nBetween.\n"
        "<!-- figures: two words -->\n(two words)\n<!-- end of figures -->\n"
        "<!-- claims -->\nold\n<!-- end of claims -->\n"
    )
    assert fill(made, "figures", lambda name: f"({name})") == made


def test_a_kind_without_names() -> None:
    assert "<!-- claims -->\nnew\n<!-- end of claims -->" in fill(PAGE, "claims", lambda name: f"new{name}")


@pytest.mark.parametrize(("kind", "there"), [("figures", True), ("claims", True), ("fig", False), ("tables", False)])
def test_whether_a_page_has_parts_of_a_kind(kind: str, there: bool) -> None:
    assert has_marks(PAGE, kind) is there


def test_backslashes_and_group_references_of_what_is_made_are_kept() -> None:
    assert r"\1 \g<name>" in fill(PAGE, "claims", lambda _: r"\1 \g<name>")
