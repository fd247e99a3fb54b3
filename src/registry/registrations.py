"""Every write to endpoints, whichever contract it came by: register and renew, drain, deregister, override."""

import time
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from registry.changes import Changes
from registry.commit import GroupCommit
from registry.directory import Directory
from registry.endpoint import Endpoint, Key, Override
from registry.errors import RegistryError
from registry.heartbeats import Heartbeats, only_renews
from registry.ledger import Ledger
from registry.metrics import COMMIT_SECONDS, COMMIT_SIZE, HEARTBEATS
from registry.store.database import Database
from registry.store.transaction import Committed, change_places
from wire.model import Registration

_LONGEST_WAIT = 1.0
"""Seconds that an answer waits for this process to know what it has stored; the write stands either way."""

Judge = Callable[[Override | None, float], Override | None]
Act = Callable[[Ledger], Endpoint]


class Intent(Struct, frozen=True):
    """A change of one endpoint, to be judged by a ledger."""

    key: Key
    act: Act


class Stored(Struct, frozen=True):
    """An endpoint as it was stored, and its service's numbers."""

    endpoint: Endpoint
    version: int
    change: int


class Registrations:
    """Stores what instances and operators say of endpoints; what returned is committed."""

    def __init__(self, database: Database, directory: Directory, changes: Changes) -> None:
        self._database = database
        self._directory = directory
        self._changes = changes
        self._heartbeats = Heartbeats(database)
        self._commit: GroupCommit[Intent, Stored] = GroupCommit(self._store, largest=500, most_waiting=20_000)

    async def register(self, key: Key, told: Registration, actor: str, *, fenced: bool = True) -> Stored:
        """Register an endpoint, or renew its lease.

        Args:
            key: service, address and port.
            told: the full state, its ttl filled in.
            actor: who asks.
            fenced: False for clients that know no incarnations.

        Raises:
            FencedError: the instance does not own the endpoint, or not any more.
            UnavailableError: it could not be stored.
        """
        known = self._directory.find(key)
        told = _as_known(known, told, fenced=fenced)
        try:
            if known is not None and only_renews(known, told) and await self._heartbeats.renew(known):
                HEARTBEATS.labels("renewed").inc()
                snapshot = self._directory.get(key[0])
                return Stored(known, snapshot.version, snapshot.change)
            stored = await self._submit(key, lambda ledger: ledger.register(key, told, actor, fenced=fenced))
        except RegistryError as error:
            HEARTBEATS.labels("refused" if hasattr(error, "owner") else "failed").inc()
            raise
        HEARTBEATS.labels("changed").inc()
        return stored

    async def drain(self, key: Key, instance_id: str | None, incarnation: int | None, actor: str) -> Stored:
        """Take an endpoint out of rotation until its next incarnation; it goes on serving.

        Raises:
            NotFoundError: it is not listed.
            FencedError: another instance or incarnation owns it.
            UnavailableError: it could not be stored.
        """
        return await self._submit(key, lambda ledger: ledger.drain(key, instance_id, incarnation, actor))

    async def deregister(
        self,
        key: Key,
        instance_id: str | None,
        incarnation: int | None,
        actor: str,
        *,
        lapsed_too: bool = True,
    ) -> Stored:
        """Give an endpoint's lease back now; it stays listed as not routable for the removal delay.

        Raises:
            NotFoundError: it is not listed, or has left already.
            FencedError: another instance or incarnation owns it.
            UnavailableError: it could not be stored.
        """
        return await self._submit(
            key,
            lambda ledger: ledger.deregister(key, instance_id, incarnation, actor, lapsed_too=lapsed_too),
        )

    async def override(self, key: Key, judge: Judge, actor: str) -> Stored:
        """Set or clear an operator's override.

        Args:
            key: service, address and port.
            judge: gets the override in force and the database's time, and returns the one that is to be.
            actor: who asks.

        Raises:
            NotFoundError: it is not listed.
            UnavailableError: it could not be stored.
        """

        def act(ledger: Ledger) -> Endpoint:
            listed = ledger.listed(key)
            return ledger.override(key, judge(listed.override if listed else None, ledger.now), actor)

        return await self._submit(key, act)

    async def _submit(self, key: Key, act: Act) -> Stored:
        stored = await self._commit.submit(Intent(key, act))
        self._changes.nudge(key[0])
        await self._directory.reached(key[0], stored.change, _LONGEST_WAIT)
        return stored

    async def _store(self, intents: Sequence[Intent]) -> Sequence[Stored | RegistryError]:
        started = time.perf_counter()
        outcomes: list[Key | RegistryError] = []
        ledgers: list[Ledger] = []

        def decide(ledger: Ledger) -> None:
            ledgers.append(ledger)
            outcomes.extend(_judge(ledger, intent) for intent in intents)

        services = {intent.key[0] for intent in intents}
        committed = await change_places(self._database, services, {intent.key[1:] for intent in intents}, decide)
        COMMIT_SIZE.labels("change").observe(len(intents))
        COMMIT_SECONDS.labels("change").observe(time.perf_counter() - started)
        return [_outcome(ledgers[0], outcome, committed) for outcome in outcomes]


def _judge(ledger: Ledger, intent: Intent) -> Key | RegistryError:
    try:
        intent.act(ledger)
    except RegistryError as error:
        return error
    return intent.key


def _outcome(ledger: Ledger, outcome: Key | RegistryError, committed: dict[str, Committed]) -> Stored | RegistryError:
    if isinstance(outcome, RegistryError):
        return outcome
    endpoint = ledger.listed(outcome)
    if endpoint is None:
        raise AssertionError("what was just changed is in the ledger")
    numbers = committed[outcome[0]]
    return Stored(endpoint, numbers.version, numbers.change)


def _as_known(known: Endpoint | None, told: Registration, *, fenced: bool) -> Registration:
    """Bring a heartbeat into the form that it would be stored in, so that it can be compared."""
    if known is None or known.registration.instance_id != told.instance_id:
        return told
    if not fenced:
        told = replace(told, incarnation=known.registration.incarnation)
    staying = known.leaving_at is None and known.registration.incarnation == told.incarnation
    if staying and known.registration.draining:
        # A drain is final for an incarnation, whatever its later heartbeats say.
        return replace(told, draining=True)
    return told
