"""The request router that Ray calls in the ingress process: it tells the directory which replicas there are.

Requests go to replicas directly (`replica_client.py`). Those few that take Ray's handle go by the same ranking, as far as they bring one,
and are spread at random otherwise.
"""

import random

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from deployments.replica_client import RANKING_HEADER
from deployments.replicas import Replica, directory_of


class DirectoryRouter(RequestRouter):  # type: ignore[misc]  # Ray is not typed here
    """Mirrors the running replicas and their metadata into `deployments.replicas`."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        announced = [replica for replica in replicas if replica.replica_metadata]
        directory_of(self._deployment_id.name).replace(
            Replica.from_metadata(replica.replica_id.unique_id, replica.replica_metadata) for replica in announced
        )

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        super().on_replica_actor_died(replica_id)
        directory_of(self._deployment_id.name).discard(replica_id.unique_id)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        directory = directory_of(self._deployment_id.name)
        ranked = [replica for replica in candidate_replicas if not directory.is_other(replica.replica_id.unique_id)]
        if pending_request:  # else Ray asks again at once, for ever, and nothing else runs meanwhile
            pending_request.routing_context.should_backoff = True
        random.shuffle(ranked)
        place = _ranking(pending_request)
        ranked.sort(key=lambda replica: place.get(replica.replica_id.unique_id, len(place)))
        return [[replica] for replica in ranked]


def _ranking(request: PendingRequest | None) -> dict[str, int]:
    """Places by replica id, from the headers that `LlmReplica.relay` is called with."""
    headers = next((each for each in (request.args if request else ()) if isinstance(each, dict)), {})
    return {name: place for place, name in enumerate(headers.get(RANKING_HEADER, "").split(","))}
