from __future__ import annotations

from reliability.hostile_cases import cases, families


def test_there_are_at_least_300_different_texts() -> None:
    texts = [case.text for case in cases()]
    assert len(texts) >= 300
    assert len(set(texts)) == len(texts)


def test_at_least_100_pairs_of_a_plain_and_a_wrapped_request_in_every_kind_of_attack() -> None:
    assert len(families()) >= 20
    assert all(len(found) >= 10 for found in families().values())
    assert all(case.text != case.plain for case in cases())


def test_texts_hold_the_request_where_nothing_hides_it() -> None:
    for family in ("forged answers", "chat templates", "wrappers", "anywhere in a long text", "spelled control tokens"):
        assert all(case.plain in case.text for case in families()[family])
