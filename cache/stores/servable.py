"""The one predicate that says which rows may be served; every read shares it."""

from typing import Final

from sqlalchemy import ColumnElement, and_, bindparam, exists, literal, or_

from cache.stores.base import ALL, model_scope, tag_scope
from cache.stores.schema import DEAD, LIVE, PENDING, entries, epochs, tags


def invalidated() -> ColumnElement[bool]:
    """Whether a scope of the entry was invalidated after the work on it had begun. By keys, however many scopes there are."""
    whole, tagged = epochs.alias("whole"), epochs.alias("tagged")
    of_all = and_(
        whole.c.namespace == entries.c.namespace,
        whole.c.scope.in_([literal(ALL), literal(model_scope("")).concat(entries.c.model)]),
        whole.c.epoch > entries.c.epoch,
    )
    of_tag = and_(
        tags.c.entry_id == entries.c.id,
        tagged.c.namespace == entries.c.namespace,
        tagged.c.scope == literal(tag_scope("")).concat(tags.c.tag),
        tagged.c.epoch > entries.c.epoch,
    )
    return or_(exists().where(of_all).correlate(entries), exists().where(of_tag).correlate(entries))


UNEXPIRED: Final = and_(entries.c.state.in_((PENDING, LIVE)), entries.c.expires_at > bindparam("now"))
"""For sums, where what was invalidated has been swept: by the states' names, which an index is searched for."""
SERVABLE: Final = and_(entries.c.state != DEAD, entries.c.expires_at > bindparam("now"), ~invalidated())
"""Made once, with the time as parameter `now`: making it takes longer than the database does."""
