"""The one predicate that says which rows may be served; every read and the collection of garbage share it."""

from typing import Final

from sqlalchemy import ColumnElement, and_, bindparam, exists, literal, or_, select

from cache.stores.base import ALL, model_scope, tag_scope
from cache.stores.schema import DEAD, entries, epochs, tags


def invalidated() -> ColumnElement[bool]:
    """Whether a scope of the entry was invalidated after the work on it had begun."""
    own_tags = select(literal(tag_scope("")).concat(tags.c.tag)).where(tags.c.entry_id == entries.c.id).correlate(entries)
    in_scope = or_(
        epochs.c.scope == ALL,
        epochs.c.scope == literal(model_scope("")).concat(entries.c.model),
        epochs.c.scope.in_(own_tags),
    )
    since = and_(epochs.c.namespace == entries.c.namespace, epochs.c.epoch > entries.c.epoch)
    return exists().where(since, in_scope)


SERVABLE: Final = and_(entries.c.state != DEAD, entries.c.expires_at > bindparam("now"), ~invalidated())
"""Made once, with the time as parameter `now`: making it takes longer than the database does."""
