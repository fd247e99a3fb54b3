"""Expiry of leases: the guard's suspects, and pauses by operators."""

import asyncio
from operator import attrgetter

from msgspec import Struct

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.client_deadline import in_time_for_client
from registry.core.endpoint import Endpoint
from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.core.silence import Silence
from registry.store import pauses as store
from registry.store.database import Database
from registry.usecases.audit import Audit
from registry.usecases.silence import Silences


class Suspect(Struct, frozen=True):
    """An endpoint that is served although its lease expired."""

    endpoint: Endpoint
    silence: Silence


class Held(Struct, frozen=True):
    """The silent endpoints that the guard or a pause keeps in the answers, in numbers.

    Attributes:
        endpoints: how many they are.
        services: their services.
        since: since when the one that has been kept the longest is kept.
    """

    endpoints: int
    services: list[str]
    since: float


class ExpiryControl:
    """Pauses the expiry of leases, and tells what keeps leases from lapsing.

    Args:
        policy: decides who may read and who may pause.
        database: where the pauses are.
        cache: where the endpoints are.
        reads: held while the pauses are read, as in ``History``.
        audit: notes pauses.
        silences: tells which endpoints are silent.
    """

    def __init__(
        self,
        policy: Policy,
        database: Database,
        cache: SnapshotCache,
        reads: asyncio.Semaphore,
        audit: Audit,
        silences: Silences,
    ) -> None:
        self._silences = silences
        self._audit = audit
        self._policy = policy
        self._database = database
        self._cache = cache
        self._reads = reads

    async def pauses(self, principal: Principal, service: str | None = None) -> list[Pause]:
        """Return the pauses in force: all, or those that keep the leases of one service from lapsing.

        Raises:
            UnavailableError: PostgreSQL, which keeps them, is away.
        """
        self._policy.allow(principal, Verb.READ, service or "")
        async with in_time_for_client(), self._reads, self._database.reading() as connection:
            in_force = await store.in_force(connection)
        readable = {EVERYWHERE, *self._policy.readable(principal, in_force)}
        return [
            pause
            for scope, pause in in_force.items()
            if scope in readable and (service is None or scope in (service, EVERYWHERE))
        ]

    def suspects(self, principal: Principal) -> list[Suspect]:
        """Return the endpoints that are served although their lease expired, of services that may be read."""
        self._policy.allow(principal, Verb.READ)
        return [
            Suspect(endpoint, silence)
            for name in self._policy.readable(principal, self._cache.services())
            for endpoint in sorted(self._cache.get(name).silent, key=attrgetter("id"))
            if (silence := self._silences.of(endpoint)) is not None
        ]

    def held(self, principal: Principal) -> Held | None:
        """Return the silent endpoints of the services that the principal may read in numbers; None: there are none."""
        readable = self._policy.readable(principal, self._cache.services())
        silent = {name: endpoints for name in readable if (endpoints := self._cache.get(name).silent)}
        silences = [
            silence for endpoints in silent.values() for silence in map(self._silences.of, endpoints) if silence
        ]
        if not silences:
            return None
        return Held(len(silences), sorted(silent), min(silence.since for silence in silences))

    async def pause(self, principal: Principal, service: str | None, *, reason: str, seconds: float) -> Pause:
        """Let no lease lapse for so many seconds, in a service or, for None, everywhere; return the pause.

        Raises:
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.OPERATE, service or "")
        scope = service or EVERYWHERE
        with self._audit.noting(principal, "paused", Verb.OPERATE, service or "", reason=reason):
            return await store.pause(self._database, scope, actor=principal.name, reason=reason, seconds=seconds)

    async def resume(self, principal: Principal, service: str | None) -> None:
        """Let leases lapse again in a service or, for None, everywhere; what expired lapses by the guard's rules.

        Raises:
            NotFoundError: no pause of that scope is in force.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.OPERATE, service or "")
        with self._audit.noting(principal, "resumed", Verb.OPERATE, service or ""):
            await store.resume(self._database, service or EVERYWHERE, actor=principal.name)
