"""Texts of keys: told from anything else without a database."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.keyring.secret import digest, id_of, new_id, new_key


def test_a_key_names_its_id_and_no_two_are_equal() -> None:
    key_id = new_id()
    texts = {new_key(key_id) for _ in range(100)}
    assert len(texts) == 100
    assert {id_of(text) for text in texts} == {key_id}
    assert len({digest(text) for text in texts}) == 100
    assert not any(text in digest(text) for text in texts)


@given(st.integers(min_value=0, max_value=55), st.characters())
def test_a_mistyped_key_is_none(place: int, character: str) -> None:
    text = new_key("0123456789ab")
    mistyped = text[:place] + character + text[place + 1 :]
    assert id_of(mistyped) == ("0123456789ab" if mistyped == text else None)


@pytest.mark.parametrize("change", [lambda text: text + "\n", lambda text: " " + text, lambda text: text[:-1], lambda text: "", str.upper])
def test_what_is_near_a_key_is_none(change: "object") -> None:
    assert callable(change)
    assert id_of(change(new_key(new_id()))) is None
