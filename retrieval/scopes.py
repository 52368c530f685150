"""Which collections a tenant may use: its own, and those of the groups that it is in. Each lives in one namespace, its scope."""

from collections.abc import Mapping
from dataclasses import dataclass

from retrieval.errors import DocumentError
from retrieval.store import DocumentStore


@dataclass(frozen=True, slots=True)
class Group:
    """Tenants that share collections. `namespace` is where those live, `members` are the tenants' own namespaces."""

    namespace: str
    members: frozenset[str]


class Scopes:
    def __init__(self, store: DocumentStore, groups: Mapping[str, Group]) -> None:
        """`groups`: by name."""
        self._store = store
        self._groups = dict(groups)
        self._names = {group.namespace: name for name, group in groups.items()}

    def all_of(self, namespace: str) -> list[str]:
        """The tenant's namespace, then those of its groups."""
        return [namespace, *(group.namespace for group in self._groups.values() if namespace in group.members)]

    def of(self, namespace: str, store_id: str) -> str:
        """Where that collection lives. Of a tenant in no group it is not asked: whoever uses the collection next finds it missing.

        Raises `UnknownStoreError`, `StorageError`.
        """
        scopes = self.all_of(namespace)
        return self._store.scope_of(scopes, store_id) if len(scopes) > 1 else namespace

    def of_group(self, namespace: str, name: str) -> str:
        """Raises `DocumentError` for a group that the tenant is not in, as for one that does not exist."""
        group = self._groups.get(name)
        if group is None or namespace not in group.members:
            raise DocumentError("you are in no group of this name", "group")
        return group.namespace

    def group_name(self, scope: str) -> str:
        """Empty for a tenant's own namespace."""
        return self._names.get(scope, "")
