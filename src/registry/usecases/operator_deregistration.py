"""Deregistration by an operator: one endpoint or a whole service, and never too much by accident."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key
from registry.core.expiry_guard import GUARD_WINDOW, removals_allowed
from registry.errors import GuardedError, UnknownEndpointError, UnknownServiceError
from registry.store.database import Database
from registry.store.service_locks import StoredVersion
from registry.store.transaction import change_by_operator, change_endpoint_by_operator
from registry.usecases.audit import Audit
from wire.address import format_endpoint

_MAX_NAMED = 10
"""Endpoints that a refusal names."""


class Deregistered(Struct, frozen=True):
    """The endpoints that an operator has deregistered, and the service's version after it."""

    service: str
    version: int
    endpoints: list[str]


class OperatorDeregistration:
    """Deregisters on an operator's word, within the share that the guard lets lapse, or by force.

    Args:
        policy: decides who may deregister what is not theirs.
        database: where endpoints are stored.
        cache: what this process knows of them.
        change_feed: reads at once what was stored.
        audit: notes what was deregistered.
    """

    def __init__(
        self, policy: Policy, database: Database, cache: SnapshotCache, change_feed: ChangeFeed, audit: Audit
    ) -> None:
        self._audit = audit
        self._policy = policy
        self._database = database
        self._cache = cache
        self._change_feed = change_feed

    async def endpoint(self, principal: Principal, key: Key, reason: str, *, force: bool) -> Deregistered:
        """Deregister one endpoint, whoever owns it.

        Raises:
            NotFoundError: it is not registered, or has left already.
            GuardedError: too many endpoints of the service were deregistered lately.
            UnavailableError: it could not be stored.
        """
        name = format_endpoint(*key[1:])
        self._policy.allow(principal, Verb.OPERATE, key[0], name)

        def decide(changeset: Changeset, routable: int, recent: int) -> None:
            listed = changeset.listed(key)
            if listed is None:
                raise UnknownEndpointError(key[0], name)
            if not force:
                _guard(key[0], [listed], routable, recent)
            changeset.deregister_by_operator(key, reason, principal.name)

        with self._audit.noting(principal, "expelled", Verb.OPERATE, key[0], name, reason):
            quarantined = [row.id for row in self._cache.get(key[0]).quarantined.values()]
            numbers = await change_endpoint_by_operator(self._database, key, GUARD_WINDOW, decide, quarantined)
            return await self._deregistered(key[0], numbers, [name])

    async def service(self, principal: Principal, service: str, reason: str, *, force: bool) -> Deregistered:
        """Deregister every endpoint of a service; the service stays known, and its version goes on.

        Raises:
            UnknownServiceError: the service is not known.
            GuardedError: it has more routable endpoints than may leave at once.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.OPERATE, service)
        with self._audit.noting(principal, "expelled", Verb.OPERATE, service, reason=reason):
            if not self._cache.knows(service):
                raise UnknownServiceError(service)
            deregistered: list[str] = []

            def decide(changeset: Changeset, recent: int) -> None:
                staying = [endpoint for endpoint in changeset.all_listed() if endpoint.leaving_at is None]
                # The lost ones are missed by nobody then.
                said = f"an operator deregistered the service{reason and ': '}{reason}"
                changeset.acknowledge(None, principal.name, said)
                chosen = sorted(staying, key=lambda endpoint: endpoint.id)
                if not force:
                    _guard(service, chosen, sum(endpoint.routable for endpoint in changeset.all_listed()), recent)
                deregistered.extend(
                    changeset.deregister_by_operator(endpoint.key, reason, principal.name).name for endpoint in chosen
                )

            numbers = await change_by_operator(self._database, service, GUARD_WINDOW, decide)
            return await self._deregistered(service, numbers, deregistered)

    async def _deregistered(
        self, service: str, numbers: Mapping[str, StoredVersion], endpoints: list[str]
    ) -> Deregistered:
        if service not in numbers:
            raise UnknownServiceError(service)
        await self._change_feed.follow_own(service, numbers[service].change)
        return Deregistered(service, numbers[service].version, endpoints)


def _guard(service: str, chosen: Sequence[Endpoint], routable: int, recent: int) -> None:
    """Refuse to take too many endpoints out of rotation; those that are not routable do not count."""
    losing = [endpoint.name for endpoint in chosen if endpoint.routable]
    allowed = removals_allowed(routable, recent)
    if len(losing) <= allowed:
        return
    named = ", ".join(losing[:_MAX_NAMED]) + (f" and {len(losing) - _MAX_NAMED} more" * (len(losing) > _MAX_NAMED))
    raise GuardedError(
        f"nothing was changed: {len(losing)} of {routable} routable endpoints of {service} would be deregistered "
        f"({named}), and {allowed} may be now, because operators deregistered {recent} within {GUARD_WINDOW:g} s; "
        "add force=true to do it all the same, or drain them first"
    )
