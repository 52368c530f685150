"""One suite over the databases of kept contexts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import delete

from retrieval.documents import Page, new_id
from serve_app.contexts import store as store_module
from serve_app.contexts.schema import metadata
from serve_app.contexts.store import PREFIX, Context, ContextStore, open_contexts
from serve_app.errors import ContextStoreError, NotFoundError, QuotaError
from tests.cache.databases import MARIADB

NOW = 1_000_000.0
TOOLS = [{"type": "function", "function": {"parameters": {"type": "object", "properties": {"z": {}, "a": {}}}, "name": "f"}}]


@pytest.fixture(params=["sqlite", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContextStore]:
    opened = open_contexts(f"sqlite:///{tmp_path}/contexts.db") if request.param == "sqlite" else _empty_mariadb()
    yield opened
    opened.close()


def _empty_mariadb() -> ContextStore:
    """Skips the test when there is no server."""
    try:
        opened = open_contexts(MARIADB)
    except ContextStoreError as error:
        pytest.skip(f"MariaDB is not up (scripts/services up): {str(error)[:60]}")
    with opened._database.write() as connection:
        for table in metadata.sorted_tables:
            connection.execute(delete(table))
    return opened


def context(number: int = 0, namespace: str = "ada", **changes: object) -> Context:
    made = Context(
        new_id(PREFIX, NOW + number),
        namespace,
        "m",
        [{"role": "system", "content": "Ünï\U0001f600" * 100}],
        TOOLS,
        "name",
        "about it",
        {"k": "v"},
        100,
        NOW,
        NOW + 60,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_is_kept_is_given_back_as_it_was(store: ContextStore) -> None:
    made = context()
    store.create(made, (), None)
    found = store.get("ada", made.id, NOW)
    assert found == made
    assert str(found.tools) == str(TOOLS)  # in the same order: prompts are made of it
    plain = context(1, tools=None, metadata={})
    store.create(plain, (), None)
    assert store.get("ada", plain.id, NOW) == plain


def test_nobody_reaches_another_tenants(store: ContextStore) -> None:
    made = context()
    store.create(made, ("mine",), None)
    for call in (
        lambda: store.get("bob", made.id, NOW),
        lambda: store.change("bob", made.id, NOW + 90, None, NOW),
        lambda: store.delete("bob", made.id, NOW),
        lambda: store.set_tag("bob", "t", made.id, NOW),
        lambda: store.tag("bob", "mine"),
    ):
        with pytest.raises(NotFoundError):
            call()
    store.delete_tag("bob", "mine")
    assert store.tag("ada", "mine").context_id == made.id
    assert store.page("bob", Page(10, newest_first=True), NOW) == []
    assert store.tags("bob") == []
    assert store.get("ada", made.id, NOW) == made


def test_its_time_ends(store: ContextStore) -> None:
    made = context()
    store.create(made, (), None)
    assert store.live(NOW) == {made.id: NOW + 60}
    with pytest.raises(NotFoundError):
        store.get("ada", made.id, NOW + 60)
    assert store.live(NOW + 60) == {}
    assert store.page("ada", Page(10), NOW + 60) == []
    with pytest.raises(NotFoundError):  # what has ended does not begin again
        store.change("ada", made.id, NOW + 90, None, NOW + 60)
    assert store.purge(NOW + 59) == 0
    assert store.purge(NOW + 60) == 1
    assert store.read([made.id]) == []


def test_changes(store: ContextStore) -> None:
    made = context()
    store.create(made, (), None)
    assert store.change("ada", made.id, NOW + 90, None, NOW) == replace(made, expires_at=NOW + 90)
    assert store.change("ada", made.id, None, {"x": "y"}, NOW) == replace(made, expires_at=NOW + 90, metadata={"x": "y"})
    assert store.get("ada", made.id, NOW + 80).metadata == {"x": "y"}


def test_pages_begin_with_the_newest(store: ContextStore) -> None:
    made = [context(number) for number in range(4)]
    for each in made:
        store.create(each, (), None)
    newest = [each.id for each in reversed(made)]
    first = store.page("ada", Page(2, newest_first=True), NOW)
    assert [each.id for each in first] == newest[:2]
    assert [each.id for each in store.page("ada", Page(9, after=first[-1].id, newest_first=True), NOW)] == newest[2:]
    assert [each.id for each in store.page("ada", Page(9), NOW)] == newest[::-1]


def test_tags_follow_their_context_and_may_be_given_to_another(store: ContextStore) -> None:
    one, two = context(0), context(1)
    store.create(one, ("a", "b"), None)
    store.create(two, (), None)
    assert [(tag.tag, tag.context_id) for tag in store.tags("ada")] == [("a", one.id), ("b", one.id)]
    assert store.set_tag("ada", "a", two.id, NOW).context_id == two.id
    assert store.tag("ada", "a").context_id == two.id
    store.delete("ada", one.id, NOW)
    assert [tag.tag for tag in store.tags("ada")] == ["a"]
    store.delete_tag("ada", "a")
    store.delete_tag("ada", "a")
    with pytest.raises(NotFoundError):
        store.tag("ada", "a")
    with pytest.raises(NotFoundError):
        store.set_tag("ada", "c", one.id, NOW)


def test_an_end_is_put_off_while_it_lives(store: ContextStore) -> None:
    made = context()
    store.create(made, (), None)
    store.put_off("bob", made.id, NOW + 500, NOW)
    assert store.live(NOW) == {made.id: NOW + 60}
    store.put_off("ada", made.id, NOW + 500, NOW)
    assert store.live(NOW) == {made.id: NOW + 500}
    store.put_off("ada", made.id, NOW + 900, NOW + 600)
    assert store.live(NOW + 600) == {}


def test_how_many_tags_a_tenant_has_is_limited(store: ContextStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_TAGS", 2)
    made = context()
    store.create(made, ("a", "b"), None)
    store.set_tag("ada", "b", made.id, NOW)
    with pytest.raises(QuotaError, match="At most 2"):
        store.set_tag("ada", "c", made.id, NOW)


def test_what_a_tenant_has_kept_is_limited(store: ContextStore) -> None:
    store.create(context(0), (), 250)
    store.create(context(1, namespace="bob"), (), 250)
    store.create(context(2, expires_at=NOW + 1), (), 250)
    with pytest.raises(QuotaError):
        store.create(context(3), (), 250)
    store.create(context(4, created_at=NOW + 1), (), 250)  # the third has ended


def test_how_many_a_tenant_has_is_limited(store: ContextStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_CONTEXTS", 3)
    for number in range(3):
        store.create(context(number), (), None)
    with pytest.raises(QuotaError, match="At most 3"):
        store.create(context(3), (), None)
