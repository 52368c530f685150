"""A tenant's name becomes a namespace that does not tell it."""

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.tenants import Namespaces

namespaces = Namespaces(b"secret", "production")


@pytest.mark.parametrize("name", ["a", "acme", "team-1.example@x:y_z", "x" * 128])
def test_a_name_has_a_namespace_of_its_own(name: str) -> None:
    namespace = namespaces.of(name)
    assert len(namespace) == 64
    assert namespace == namespaces.of(name)
    others = [Namespaces(b"other", "production").of(name), Namespaces(b"secret", "staging").of(name)]
    assert namespace not in {*others, namespaces.of("another"), namespaces.of("default")}


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 129, "é", "a\n", "a/b", "'; drop table", "\ud800"])
def test_a_name_that_is_none_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        namespaces.of(name)
    assert caught.value.param == "x-mygo-tenant"
    assert not name.strip() or name not in caught.value.message
