"""Which collections a caller may use: its own, and those of its groups. Each lives in one namespace, its scope."""

from dataclasses import dataclass, field

from retrieval.errors import DocumentError
from retrieval.store import DocumentStore


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller may reach: the collections in its own namespace, and those in its groups' namespaces, which `groups` has by name."""

    namespace: str
    groups: dict[str, str] = field(default_factory=dict)


Caller = str | Access
"""A namespace alone is in no group."""


def namespace_of(caller: Caller) -> str:
    """The caller's own."""
    return caller if isinstance(caller, str) else caller.namespace


class Scopes:
    """Who is in which group is decided by whoever calls; a group need not be known here."""

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    def all_of(self, caller: Caller) -> list[str]:
        """The caller's namespace, then those of its groups."""
        return [caller] if isinstance(caller, str) else [caller.namespace, *caller.groups.values()]

    def of(self, caller: Caller, store_id: str) -> str:
        """Where that collection lives. Of a caller in no group it is not asked: whoever uses the collection next finds it missing.

        Raises `UnknownStoreError`, `StorageError`.
        """
        scopes = self.all_of(caller)
        return self._store.scope_of(scopes, store_id) if len(scopes) > 1 else scopes[0]

    def of_group(self, caller: Caller, name: str) -> str:
        """Raises `DocumentError` for a group that the caller is not in, as for one that does not exist."""
        groups = {} if isinstance(caller, str) else caller.groups
        if name not in groups:
            raise DocumentError("you are in no group of this name", "group")
        return groups[name]

    def group_name(self, caller: Caller, scope: str) -> str:
        """Empty for the caller's own namespace."""
        return "" if isinstance(caller, str) else next((name for name, each in caller.groups.items() if each == scope), "")
