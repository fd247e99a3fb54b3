"""Shares of traffic within a service: read them, set them, take them back."""

from collections.abc import Sequence

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.change_feed import ChangeFeed
from registry.background.subscriber_sync import SubscriberSync
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.shares import Share, check_shares, misleading_shares, released_groups
from registry.core.snapshot import Snapshot
from registry.core.subscriber_status import SubscriberFilter
from registry.core.v1_weights import v1_differences, v1_groups
from registry.errors import NotFoundError, UnknownServiceError
from registry.store.database import Database
from registry.store.service_values import set_shares
from registry.usecases.audit import Audit


class TrafficShares:
    """Reads and sets the shares of traffic of groups of a service's endpoints.

    Args:
        policy: decides who may read and set them.
        database: where they are kept.
        cache: what this process knows of them.
        change_feed: reads at once what was stored.
        subscribers: knows which clients cannot follow a share exactly.
        audit: notes what was set.
    """

    def __init__(  # the parts that a write needs
        self,
        policy: Policy,
        database: Database,
        cache: SnapshotCache,
        change_feed: ChangeFeed,
        subscribers: SubscriberSync,
        audit: Audit,
    ) -> None:
        self._policy = policy
        self._database = database
        self._cache = cache
        self._change_feed = change_feed
        self._subscribers = subscribers
        self._audit = audit

    async def set(
        self, principal: Principal, service: str, groups: Sequence[Share], reason: str
    ) -> tuple[Snapshot, list[str]]:
        """Set the shares of a service in place of those that it has; return it with warnings.

        Raises:
            InvalidError: the shares mean nothing, as when they add up to more than 100 %.
            UnknownServiceError: the service is not known.
            UnavailableError: they could not be stored, or this process cannot read the service: it does not know whom
                they concern.
        """
        check_shares(groups)
        self._policy.allow(principal, Verb.OPERATE, service)
        self._cache.check_sure(service)
        released = self._released(service, groups)
        snapshot = await self._store(principal, service, tuple(groups), reason)
        return snapshot, [*released, *await self.warnings(snapshot)]

    async def clear(self, principal: Principal, service: str, reason: str) -> tuple[Snapshot, list[str]]:
        """Take the shares of a service back, so that its endpoints have their own weights again; return it as ``set``.

        Raises:
            NotFoundError: it has none.
            UnknownServiceError: the service is not known.
            UnavailableError: it could not be stored, or this process cannot read the service.
        """
        self._policy.allow(principal, Verb.OPERATE, service)
        self._cache.check_sure(service)
        # PostgreSQL says whether it has any: this process may not have read yet what another one has stored.
        released = self._released(service, ())
        return await self._store(principal, service, (), reason), released

    async def warnings(self, snapshot: Snapshot) -> list[str]:
        """Return in words where the shares of a service do not do what they say; none without shares."""
        if snapshot.shares is None:
            return []
        subscribers = await self._subscribers.list_subscribers(SubscriberFilter(service=snapshot.service))
        v1 = sum(status.report.api == "v1" for status in subscribers.statuses)
        warnings = misleading_shares(snapshot.groups)
        if v1:
            polls = "subscriber polls" if v1 == 1 else "subscribers poll"
            differences = v1_differences(v1_groups(snapshot.census_of_shares(snapshot.shares)))
            warnings.append(
                f"{v1} {polls} by v1, whose weights are whole numbers from 1 to 100: a share is met to about one "
                f"hundredth of an endpoint there{differences and f'; {differences}'}"
            )
        return warnings

    def _released(self, service: str, wanted: Sequence[Share]) -> list[str]:
        """Return which groups other shares let back in, by what this process has read so far."""
        before = self._cache.get(service)
        return released_groups(before.shares, before.groups, wanted)

    async def _store(self, principal: Principal, service: str, groups: tuple[Share, ...], reason: str) -> Snapshot:
        with self._audit.noting(principal, "shares_set", Verb.OPERATE, service, reason=reason):
            stored = await set_shares(self._database, service, groups, actor=principal.name, reason=reason)
            if stored is None:
                raise self._nothing_stored(service, groups)
            await self._change_feed.follow_own(service, stored.change)
            return self._cache.get(service)

    def _nothing_stored(self, service: str, groups: Sequence[Share]) -> NotFoundError:
        if groups or not self._cache.knows(service):
            return UnknownServiceError(service)
        return NotFoundError(f"{service} has no shares of traffic; there is nothing to take back")
