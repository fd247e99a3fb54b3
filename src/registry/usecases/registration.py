"""Every write to endpoints, for all contracts: register and renew, drain, deregister, override."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import structlog
from msgspec import Struct
from msgspec.structs import replace

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.client_deadline import in_time_for_client
from registry.core.abilities import Abilities
from registry.core.admission import Admission
from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key, Override
from registry.core.event import Event
from registry.core.lease import Lease
from registry.core.peer_limit import ReachedLimits
from registry.core.quotas import Quotas
from registry.core.token_bucket import TokenBucket
from registry.errors import (
    InadmissibleError,
    LimitError,
    RefusedError,
    RegistryError,
    UnavailableError,
    UnknownEndpointError,
)
from registry.metrics import COMMIT_SECONDS, COMMIT_SIZE, HEARTBEATS, NOT_ADMITTED
from registry.store.database import Database
from registry.store.failures import retry_if_stale
from registry.store.service_locks import StoredVersion
from registry.store.transaction import change_at_addresses
from registry.usecases.audit import Audit
from registry.usecases.group_commit import Lanes, rolled_back
from registry.usecases.lease_renewal import LeaseRenewals, only_renews
from wire.address import format_endpoint
from wire.model import Registration

log = structlog.get_logger()

_MAX_BATCHES = 4
"""Batches of changes that are stored at a time; heartbeats, the feed and the sweeper need connections too."""

_MAX_ADOPTIONS = 100
"""Endpoints a second that are given to an identity although their heartbeats say nothing new."""


ChangeOverride = Callable[[Override | None, float], Override | None]
"""Gets the override in force and the database's time, and returns the one that is to be; None for none."""
Derive = Callable[[Endpoint | None], Registration]
"""Gets the endpoint as it is, and returns the full state that is to be."""
Act = Callable[[Changeset], object]


_HEARTBEAT_EVENTS = frozenset({"health", "changed"})
"""Events that heartbeats make by themselves; the audit has them only where they change an owner."""


class Intent(Struct, frozen=True):
    """A change of one endpoint, which a changeset takes or refuses."""

    key: Key
    act: Act
    creates_service: bool = False


class Stored(Struct, frozen=True):
    """An endpoint as it was stored, its service's version, and its lease as of the last reading of the leases."""

    endpoint: Endpoint
    version: int
    lease: Lease | None


class _Outcome(Struct, frozen=True):
    """The result of an intent: the endpoint, if it is listed, its service's version, and the events."""

    endpoint: Endpoint | None
    numbers: StoredVersion
    events: Sequence[Event]


_Applied = tuple[Key, Sequence[Event]] | RegistryError
"""The result of an intent in a changeset: the endpoint and its events, or why it was refused."""


class Registrations:
    """Stores what instances and operators say of endpoints; a method that returns has committed it.

    Args:
        policy: decides who may write.
        database: where endpoints are stored.
        cache: what this process knows of them.
        change_feed: reads at once what was stored.
        abilities: note whether changes and renewals can be stored.
        admission: judges new endpoints by the limits of this registry.
        audit: notes what was written, but not what heartbeats say of health and state.
        quotas: judge what one instance and one identity register; None while access is not closed.
        reached: where it is noted when a limit refused a registration.
    """

    def __init__(  # noqa: PLR0913  # the parts that decide and store a registration
        self,
        policy: Policy,
        database: Database,
        cache: SnapshotCache,
        change_feed: ChangeFeed,
        abilities: Abilities,
        admission: Admission,
        audit: Audit,
        quotas: Quotas | None = None,
        reached: ReachedLimits | None = None,
    ) -> None:
        self._quotas = quotas
        self._reached = reached or ReachedLimits()
        self._policy = policy
        self._audit = audit
        self._database = database
        self._admission = admission
        self._cache = cache
        self._change_feed = change_feed
        self._abilities = abilities
        self._renewals = LeaseRenewals(database, abilities.renew)
        self._adoptions = TokenBucket(_MAX_ADOPTIONS, _MAX_ADOPTIONS, time.monotonic())
        """Endpoints without an owner that may be given to the identities of their registrars now."""
        # A lane for each service: a session of psql that holds the lock of one service holds up no other.
        self._commit: Lanes[Intent, _Outcome] = Lanes(
            self._store, max_batch=500, max_waiting=20_000, max_batches=_MAX_BATCHES
        )

    async def register(
        self, principal: Principal, key: Key, registration: Registration, *, fenced: bool = True
    ) -> Stored:
        """Register an endpoint, or renew its lease.

        Args:
            principal: the sender of the request.
            key: service, address and port.
            registration: the full state, its ttl filled in.
            fenced: False for clients that know no incarnations.

        Raises:
            NotAllowedError: the principal may not register it.
            FencedError: the instance does not own the endpoint, or not any more.
            InadmissibleError: the limits of this registry do not allow it.
            LimitError: there are too many endpoints or services.
            UnavailableError: it could not be stored.
        """
        return await self.merge(principal, key, lambda _listed: registration, fenced=fenced)

    async def merge(self, principal: Principal, key: Key, derive: Derive, *, fenced: bool = True) -> Stored:
        """Register an endpoint by a state that is derived from the endpoint as it is, or renew its lease.

        Raises:
            RegistryError: as ``register``, and whatever ``derive`` raises of it.
        """
        try:
            # By what is asked for, and not by what is listed: a refusal must not depend on whether anything is.
            instance_id = derive(None).instance_id
            self._policy.allow(principal, Verb.REGISTER, key[0], format_endpoint(*key[1:]), instance_id)
        except RegistryError:
            HEARTBEATS.labels("refused").inc()
            raise

        def act(changeset: Changeset) -> None:
            changeset.register(
                key,
                derive(changeset.listed(key)),
                principal.name,
                fenced=fenced,
                admission=self._admission,
                owner=principal.subject.owner,
                check_owner=partial(self._check_owner, principal, key[0], instance_id),
            )

        unchanged = self.unchanged(key, derive(self._cache.find(key)), fenced=fenced)
        if (
            unchanged is not None
            and self.has_owner(principal, unchanged, adopt=True)
            and (await self.renew([unchanged]))[0]
        ):
            return self.stored(unchanged)
        try:
            with self._within_quotas(principal, key, instance_id):
                stored = await self._submit(Intent(key, act, creates_service=True), principal, "registered")
        except RegistryError as error:
            HEARTBEATS.labels("failed" if isinstance(error, UnavailableError) else "refused").inc()
            if isinstance(error, InadmissibleError | LimitError):
                NOT_ADMITTED.labels(error.limit).inc()
                self._reached.note(error.limit, time.monotonic())
            raise
        HEARTBEATS.labels("changed").inc()
        return stored

    def unchanged(self, key: Key, registration: Registration, *, fenced: bool = True) -> Endpoint | None:
        """Return the endpoint, if a heartbeat says nothing new of it, so that only its lease is to be stored."""
        endpoint = self._cache.find(key)
        registration = _as_known(endpoint, registration, fenced=fenced)
        return endpoint if endpoint is not None and only_renews(endpoint, registration) else None

    def has_owner(self, principal: Principal, endpoint: Endpoint, *, adopt: bool = False) -> bool:
        """Return whether an endpoint's owner is as it is to be, so that a heartbeat of the principal only renews.

        An endpoint without an owner is registered anew for the principal's identity, but only so many of them in a
        second: when access is introduced, all endpoints are without.

        Args:
            principal: the sender of the heartbeat.
            endpoint: what it is about.
            adopt: whether the endpoint is registered anew if it may be.

        Raises:
            NotOwnerError: it belongs to another identity, and the principal has none.
        """
        owner = principal.subject.owner
        if endpoint.owner == owner:
            return True
        if not owner:
            if not adopt and self._policy.enforces(Verb.REGISTER):
                # The registration that follows refuses it, so that it is counted once.
                return False
            self._check_owner(principal, endpoint.service, endpoint.registration.instance_id, endpoint)
            return True
        if endpoint.owner:
            return False
        now = time.monotonic()
        return not (self._adoptions.take(now) if adopt else self._adoptions.has(now))

    def check_owners(self, principal: Principal, keys: Iterable[Key]) -> None:
        """Refuse changes of several endpoints of which one may not be changed, before the first one is.

        Each change asks again when it is stored. Where refusals are only noted, it alone notes them.

        Raises:
            NotOwnerError: one of them belongs to another identity.
        """
        if not self._policy.enforces(Verb.REGISTER):
            return
        for key in keys:
            endpoint = self._cache.find(key)
            if endpoint is not None:
                self._check_owner(principal, key[0], None, endpoint)

    def renew(self, endpoints: Sequence[Endpoint]) -> asyncio.Future[list[bool]]:
        """Renew leases as ``LeaseRenewals.renew``; an endpoint that was not renewed has to be registered."""
        return self._renewals.renew(endpoints)

    async def probe(self) -> None:
        """Find out whether renewals, which have failed, work again."""
        if self._abilities.renew.failure(time.monotonic()) is not None:
            await self._renewals.probe()

    def stored(self, endpoint: Endpoint) -> Stored:
        """Return an endpoint that was renewed, with its service's version."""
        return self._stored(endpoint, self._cache.get(endpoint.service).version)

    async def close(self) -> None:
        """Give the connection back that renewals keep."""
        await self._renewals.aclose()

    async def drain(self, principal: Principal, key: Key, instance_id: str | None, incarnation: int | None) -> Stored:
        """Take an endpoint out of rotation until its next incarnation; it goes on serving.

        A principal that names neither the instance nor its incarnation drains whoever has the endpoint, as an operator.

        Raises:
            NotAllowedError: the principal may not drain it.
            NotFoundError: it is not listed.
            FencedError: another instance or incarnation owns it.
            UnavailableError: it could not be stored.
        """
        verb = Verb.OPERATE if instance_id is None and incarnation is None else Verb.REGISTER
        self._policy.allow(principal, verb, key[0], format_endpoint(*key[1:]), instance_id)
        actor = principal.name
        check_owner = None if verb is Verb.OPERATE else partial(self._check_owner, principal, key[0], instance_id)
        intent = Intent(key, lambda changeset: changeset.drain(key, instance_id, incarnation, actor, check_owner))
        return await self._submit(intent, principal, "drained", verb)

    async def deregister(
        self,
        principal: Principal,
        key: Key,
        instance_id: str | None,
        incarnation: int | None,
        *,
        lapsed_too: bool = True,
    ) -> Stored:
        """Give an endpoint's lease back now; it stays listed as not routable for the removal delay.

        Raises:
            NotFoundError: it is not listed, or has left already.
            FencedError: another instance or incarnation owns it.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.REGISTER, key[0], format_endpoint(*key[1:]), instance_id)
        actor, check_owner = principal.name, partial(self._check_owner, principal, key[0], instance_id)
        return await self._submit(
            Intent(
                key,
                lambda changeset: changeset.deregister(
                    key, instance_id, incarnation, actor, lapsed_too=lapsed_too, check_owner=check_owner
                ),
            ),
            principal,
            "deregistered",
        )

    async def override(self, principal: Principal, key: Key, change: ChangeOverride, reason: str = "") -> Stored:
        """Set, change or take back an operator's override, starting from the one in force when it is stored.

        ``reason`` is for the history of an override of which no part is left.

        Raises:
            NotFoundError: the endpoint is not listed, or there is nothing to take back.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.OPERATE, key[0], format_endpoint(*key[1:]))
        actor = principal.name
        intent = Intent(key, lambda changeset: changeset.change_override(key, change, actor, reason))
        return await self._submit(intent, principal, "overridden", Verb.OPERATE)

    async def clear_override(self, principal: Principal, key: Key, reason: str = "") -> None:
        """Take an operator's override back, also of an endpoint that is not listed any more.

        Raises:
            NotFoundError: nothing is set.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.OPERATE, key[0], format_endpoint(*key[1:]))
        intent = Intent(key, lambda changeset: changeset.clear_override(key, principal.name, reason))
        await self._settle(intent, principal, "override_cleared", Verb.OPERATE)

    @contextmanager
    def _within_quotas(self, principal: Principal, key: Key, instance_id: str) -> Iterator[None]:
        """Hold a registration against the quotas while it is stored, and from then on if it is."""
        if self._quotas is None:
            yield
            return
        reserved = self._quotas.reserve(principal, key, instance_id, self._cache.find(key), time.monotonic())
        with ExitStack() as stack:
            try:
                stack.enter_context(reserved)
            except LimitError as error:
                endpoint = format_endpoint(*key[1:])
                self._audit.note_failure(principal, "registered", error, Verb.REGISTER, key[0], endpoint)
                raise
            yield

    def _check_owner(self, principal: Principal, service: str, instance_id: str | None, endpoint: Endpoint) -> None:
        self._policy.check_owner(principal, endpoint.held, service, instance_id)

    async def _submit(self, intent: Intent, principal: Principal, action: str, verb: Verb = Verb.REGISTER) -> Stored:
        outcome = await self._settle(intent, principal, action, verb)
        if outcome.endpoint is None:
            raise UnknownEndpointError(intent.key[0], format_endpoint(*intent.key[1:]))
        return self._stored(outcome.endpoint, outcome.numbers.version)

    def _stored(self, endpoint: Endpoint, version: int) -> Stored:
        return Stored(endpoint, version, self._cache.leases.get(endpoint.id))

    async def _settle(self, intent: Intent, principal: Principal, action: str, verb: Verb) -> _Outcome:
        service = intent.key[0]
        try:
            async with in_time_for_client(stores=True):
                outcome = await self._commit.submit(service, intent)
        except RegistryError as error:
            # Each heartbeat of an outage would be noted, and none of them changes anything.
            if verb is not Verb.REGISTER or not isinstance(error, UnavailableError):
                self._audit.note_failure(principal, action, error, verb, service, format_endpoint(*intent.key[1:]))
            raise
        # Here rather than where the batch is stored: this is the request's own task, and the log knows its id.
        for event in outcome.events:
            _log(event, outcome.numbers.version)
            if event.changes_owner or event.kind not in _HEARTBEAT_EVENTS:
                endpoint = format_endpoint(event.address, event.port)
                self._audit.note(
                    principal, event.kind, verb=verb, service=event.service, endpoint=endpoint, reason=event.reason
                )
        await self._change_feed.follow_own(service, outcome.numbers.change)
        return outcome

    async def _store(self, intents: Sequence[Intent]) -> Sequence[_Outcome | RegistryError]:
        started = time.perf_counter()
        try:
            with rolled_back():
                results, changeset, committed = await retry_if_stale(partial(self._change, intents))
        except RefusedError as error:
            self._abilities.change.failed(error.cause, time.monotonic())
            raise
        self._abilities.change.worked(time.monotonic())
        COMMIT_SIZE.labels("change").observe(len(intents))
        COMMIT_SECONDS.labels("change").observe(time.perf_counter() - started)
        return [_outcome(changeset, result, committed) for result in results]

    async def _change(self, intents: Sequence[Intent]) -> tuple[list[_Applied], Changeset, dict[str, StoredVersion]]:
        """Let a changeset take or refuse the intents, and commit it."""
        results: list[_Applied] = []
        changesets: list[Changeset] = []

        def decide(changeset: Changeset) -> None:
            changesets.append(changeset)
            results.extend(_apply(changeset, intent) for intent in intents)

        services = {intent.key[0] for intent in intents}
        creates_services = {intent.key[0] for intent in intents if intent.creates_service}
        address_ports = {intent.key[1:] for intent in intents}
        max_new_services = self._admission.services_allowed()
        committed = await change_at_addresses(
            self._database,
            services,
            address_ports,
            decide,
            creates_services=creates_services,
            max_new_services=max_new_services,
        )
        return results, changesets[0], committed


def _apply(changeset: Changeset, intent: Intent) -> _Applied:
    before = len(changeset.events)
    try:
        intent.act(changeset)
    except RegistryError as error:
        return error
    return intent.key, changeset.events[before:]


def _outcome(changeset: Changeset, result: _Applied, committed: dict[str, StoredVersion]) -> _Outcome | RegistryError:
    if isinstance(result, RegistryError):
        return result
    key, events = result
    return _Outcome(changeset.listed(key), committed.get(key[0], StoredVersion(0, 0)), events)


def _log(event: Event, version: int) -> None:
    log.info(
        event.kind,
        service=event.service,
        endpoint=format_endpoint(event.address, event.port),
        instance_id=event.instance_id,
        status=event.status,
        reason=event.reason,
        actor=event.actor,
        version=version,
    )


def _as_known(endpoint: Endpoint | None, registration: Registration, *, fenced: bool) -> Registration:
    """Return a heartbeat in the form that it would be stored in, so that it can be compared."""
    if endpoint is None or endpoint.registration.instance_id != registration.instance_id:
        return registration
    stored = endpoint.registration
    if not fenced:
        registration = replace(registration, incarnation=stored.incarnation)
    staying = endpoint.leaving_at is None and stored.incarnation == registration.incarnation
    if staying and stored.draining:
        # A drain is final for an incarnation, whatever its later heartbeats say.
        return replace(registration, draining=True)
    return registration
