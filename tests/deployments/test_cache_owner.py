"""What the cache's owner offers by name."""

from cache.semantic import SemanticCache
from deployments.cache_owner import CALLABLE


def test_what_may_be_called_by_name_is_there_and_nothing_else_is_meant() -> None:
    assert all(callable(getattr(SemanticCache, name)) for name in CALLABLE)
    assert CALLABLE.isdisjoint({"close", "evict", "collect", "load", "apply", "reconcile", "flush_uses"})
