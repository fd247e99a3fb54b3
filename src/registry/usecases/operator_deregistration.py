"""Operators who deregister what is not theirs: one endpoint, or a whole service, and never too much by accident."""

from collections.abc import Callable, Collection, Sequence

from msgspec import Struct

from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key
from registry.core.expiry_guard import GUARD_WINDOW, removals_allowed
from registry.errors import GuardedError, NotFoundError
from registry.store.database import Database
from registry.store.transaction import change_by_operator
from wire.address import format_endpoint

_LONGEST_WAIT = 1.0
"""Seconds that an answer waits for this process to know what it has stored; the write stands either way."""
_MOST_NAMED = 10
"""Endpoints that a refusal names."""


Choose = Callable[[Changeset], Sequence[Endpoint]]


class Expelled(Struct, frozen=True):
    """Whom an operator has deregistered, and the service's version after it."""

    service: str
    version: int
    endpoints: list[str]


class OperatorDeregistration:
    """Deregisters on an operator's word, within the share that the guard lets lapse, or by force."""

    def __init__(self, database: Database, cache: SnapshotCache, change_feed: ChangeFeed) -> None:
        self._database = database
        self._cache = cache
        self._change_feed = change_feed

    async def endpoint(self, key: Key, actor: str, reason: str, *, force: bool) -> Expelled:
        """Deregister one endpoint, whoever owns it.

        Raises:
            NotFoundError: it is not listed, or has left already.
            GuardedError: too many of the service were deregistered so lately.
            UnavailableError: it could not be stored.
        """

        def choose(changeset: Changeset) -> list[Endpoint]:
            listed = changeset.listed(key)
            if listed is None:
                raise NotFoundError(f"{format_endpoint(*key[1:])} is not registered for {key[0]}")
            return [listed]

        return await self._expel(key[0], choose, actor, reason, force=force)

    async def service(self, service: str, actor: str, reason: str, *, force: bool) -> Expelled:
        """Deregister every endpoint of a service; the service stays known, and its version goes on.

        Raises:
            NotFoundError: the service never had an endpoint.
            GuardedError: those are more than may leave at once.
            UnavailableError: it could not be stored.
        """
        if not self._cache.knows(service):
            raise NotFoundError(f"service {service} never had an endpoint, or is forgotten")
        return await self._expel(service, _staying, actor, reason, force=force)

    async def _expel(self, service: str, choose: Choose, actor: str, reason: str, *, force: bool) -> Expelled:
        gone: list[str] = []

        def decide(changeset: Changeset, lately: int) -> None:
            chosen = choose(changeset)
            if not force:
                _guard(service, chosen, changeset.all_listed(), lately)
            gone.extend(changeset.deregister_by_operator(one.key, reason, actor).name for one in chosen)

        numbers = (await change_by_operator(self._database, service, GUARD_WINDOW, decide)).get(service)
        if numbers is None:
            raise NotFoundError(f"service {service} never had an endpoint, or is forgotten")
        self._change_feed.nudge(service)
        await self._cache.wait_for_change(service, numbers.change, _LONGEST_WAIT)
        return Expelled(service, numbers.version, gone)


def _staying(changeset: Changeset) -> Sequence[Endpoint]:
    staying = (one for one in changeset.all_listed() if one.leaving_at is None)
    return sorted(staying, key=lambda one: one.id)


def _guard(service: str, chosen: Sequence[Endpoint], listed: Collection[Endpoint], lately: int) -> None:
    """Refuse what takes too many out of rotation; those that are out of it already cost nobody anything."""
    losing = [one.name for one in chosen if one.routable]
    routable = sum(one.routable for one in listed)
    allowed = removals_allowed(routable, lately)
    if len(losing) <= allowed:
        return
    named = ", ".join(losing[:_MOST_NAMED]) + (f" and {len(losing) - _MOST_NAMED} more" * (len(losing) > _MOST_NAMED))
    raise GuardedError(
        f"nothing was changed: {len(losing)} of {routable} routable endpoints of {service} would be deregistered "
        f"({named}), and {allowed} may be now, because operators deregistered {lately} within {GUARD_WINDOW:g} s; "
        "add force=true to do it all the same, or drain them first"
    )
