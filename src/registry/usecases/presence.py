"""The strength of services: expected numbers beside present ones, and the lost endpoints, which people still see."""

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key
from registry.core.presence import Presence
from registry.core.snapshot import Snapshot
from registry.errors import NotFoundError, UnknownServiceError
from registry.store.database import Database
from registry.store.service_locks import StoredVersion
from registry.store.service_values import set_expected
from registry.store.transaction import change_service
from registry.usecases.audit import Audit
from wire.address import format_endpoint


class ServiceStrength:
    """Tells how many endpoints services have and should have; sets expected numbers, and acknowledges losses.

    Args:
        policy: decides who may set a number and acknowledge a loss.
        database: where numbers and lost endpoints are.
        cache: what this process knows of them.
        change_feed: reads at once what was stored.
        audit: notes what was set and acknowledged.
    """

    def __init__(
        self, policy: Policy, database: Database, cache: SnapshotCache, change_feed: ChangeFeed, audit: Audit
    ) -> None:
        self._policy = policy
        self._database = database
        self._cache = cache
        self._change_feed = change_feed
        self._audit = audit

    def of(self, snapshot: Snapshot) -> Presence:
        """Return the strength of a service that the caller may read."""
        return snapshot.presence(self._cache.clock.now(), self._cache.desired_counts)

    async def expect(self, principal: Principal, service: str, expected: int | None, reason: str) -> Snapshot:
        """Set how many endpoints a service should have; None takes an operator's number back.

        Raises:
            UnknownServiceError: the service is not known.
            UnavailableError: it could not be stored, or this process cannot read the service.
        """
        self._policy.allow(principal, Verb.OPERATE, service)
        self._cache.check_sure(service)
        with self._audit.noting(principal, "expected_set", Verb.OPERATE, service, reason=reason):
            stored = await set_expected(self._database, service, expected, actor=principal.name, reason=reason)
            return await self._known(service, stored)

    async def acknowledge(self, principal: Principal, service: str, key: Key | None, reason: str) -> list[Endpoint]:
        """Take a lost endpoint, or for None all of a service, off the list of those that are missed.

        Raises:
            UnknownServiceError: the service is not known.
            NotFoundError: the endpoint is not lost, or none is.
            UnavailableError: it could not be stored.
        """
        name = "" if key is None else format_endpoint(*key[1:])
        self._policy.allow(principal, Verb.OPERATE, service, name)
        acknowledged: list[Endpoint] = []

        def decide(changeset: Changeset, _expired: object) -> None:
            keys = None if key is None else {key}
            acknowledged.extend(changeset.acknowledge(keys, principal.name, reason))

        with self._audit.noting(principal, "lost_acknowledged", Verb.OPERATE, service, name, reason):
            stored = await change_service(self._database, service, decide)
            await self._known(service, stored.get(service))
            if not acknowledged:
                raise NotFoundError(f"{name} of {service} is not lost" if name else f"no endpoint of {service} is lost")
        return acknowledged

    async def _known(self, service: str, stored: StoredVersion | None) -> Snapshot:
        """Wait until this process knows what was stored, and return the service."""
        if stored is None:
            raise UnknownServiceError(service)
        await self._change_feed.follow_own(service, stored.change)
        return self._cache.get(service)
