"""The hot path of writes: most heartbeats change nothing and only renew a lease, many in one statement."""

import time
from collections.abc import Sequence

from msgspec import Struct

from registry.commit import GroupCommit
from registry.endpoint import Endpoint
from registry.errors import RegistryError, UnavailableError
from registry.metrics import COMMIT_SECONDS, COMMIT_SIZE
from registry.store import leases
from registry.store.database import Database
from wire.model import Registration


class Renewal(Struct, frozen=True, gc=False):
    """Which lease to renew, by which incarnation, and of the endpoint at which change."""

    endpoint_id: int
    incarnation: int
    change: int


class Heartbeats:
    """Renews leases in batches: the next one starts when the last one is stored."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._commit: GroupCommit[Renewal, bool] = GroupCommit(self._store, largest=1000, most_waiting=20_000)

    async def renew(self, endpoint: Endpoint) -> bool:
        """Renew the lease of an endpoint; False when it holds none any more, or is not what this process takes it for.

        Raises:
            UnavailableError: it could not be stored.
        """
        return await self._commit.submit(Renewal(endpoint.id, endpoint.registration.incarnation, endpoint.change))

    async def _store(self, renewals: Sequence[Renewal]) -> Sequence[bool | RegistryError]:
        started = time.perf_counter()
        told = {(one.endpoint_id, one.incarnation, one.change) for one in renewals}
        async with self._database.session() as connection:
            stored = await leases.renew(connection, told)
        COMMIT_SIZE.labels("renewal").observe(len(renewals))
        COMMIT_SECONDS.labels("renewal").observe(time.perf_counter() - started)
        held = UnavailableError("somebody holds the lease locked")
        return [held if one.endpoint_id in stored.locked else one.endpoint_id in stored.renewed for one in renewals]


def only_renews(known: Endpoint | None, told: Registration) -> bool:
    """Tell whether a heartbeat says nothing that is not known, so that its lease is all there is to store."""
    if known is None or known.lapsed_at is not None or known.leaving_at is not None:
        return False
    if known.suspect_since is not None:
        return False
    return known.registration == told
