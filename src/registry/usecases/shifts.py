"""Shifts of traffic to a group of a service's endpoints: begin them, look at them, and give orders to them."""

from collections.abc import Callable, Collection, Mapping

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core import shift as rule
from registry.core.shares import Share
from registry.core.shift import Change, Shift, ShiftEventKind, ShiftPlan, Strength, strength_of
from registry.errors import NotFoundError, UnknownServiceError
from registry.store import shifts as store
from registry.store.database import Database
from registry.store.shifts import Decision
from registry.usecases.audit import Audit

Order = Callable[[Shift, float], Change]
"""Takes a shift and the database's time, and returns what an order makes of it."""


class TrafficShifts:
    """Reads, begins and steers the shifts of services.

    Args:
        policy: decides who may read and steer them.
        database: where they are kept.
        cache: the endpoints as this process knows them.
        change_feed: reads at once what was stored.
        audit: notes who ordered what and why.
    """

    def __init__(
        self, policy: Policy, database: Database, cache: SnapshotCache, change_feed: ChangeFeed, audit: Audit
    ) -> None:
        self._policy = policy
        self._database = database
        self._cache = cache
        self._change_feed = change_feed
        self._audit = audit

    async def get(self, principal: Principal, service: str) -> Shift:
        """Return the last shift of a service.

        Raises:
            NotFoundError: it had none.
            UnavailableError: PostgreSQL is away.
        """
        shift = await self.find(principal, service)
        if shift is None:
            raise self._none(service)
        return shift

    async def find(self, principal: Principal, service: str) -> Shift | None:
        """Return the last shift of a service; None: it had none, or its row cannot be read.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.READ, service)
        return (await self._read([service])).get(service)

    async def list_all(self, principal: Principal) -> list[Shift]:
        """Return the last shift of each service that the principal may read and that had any.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.READ, "")
        reach = self._policy.reach(principal, Verb.READ)
        return [shift for service, shift in (await self._read()).items() if shift and reach.covers(service)]

    async def start(self, principal: Principal, service: str, plan: ShiftPlan) -> Shift:
        """Begin a shift with its first step.

        Raises:
            InvalidError: the plan means nothing for the service.
            ShiftConflictError: the service has a shift, or nothing else is routable.
            UnknownServiceError: the service is not known.
            UnavailableError: it could not be stored.
        """

        def begin(before: Shift | None, in_force: tuple[Share, ...], now: float) -> Change:
            strength = self._strength(service, plan.selector, rule.without(plan.selector, in_force))
            return rule.start(service, plan, before, in_force, strength, now)

        return await self._change(principal, "shift_started", service, begin, f"{plan.selector}: {plan.reason}")

    async def pause(self, principal: Principal, service: str, reason: str) -> Shift:
        """Let a running shift go no further."""
        return await self._order(
            principal,
            "shift_paused",
            service,
            reason,
            lambda shift, now: rule.pause(shift, principal.name, reason, now),
        )

    async def resume(self, principal: Principal, service: str, reason: str) -> Shift:
        """Let a paused shift go on."""
        return await self._order(
            principal,
            "shift_resumed",
            service,
            reason,
            lambda shift, now: rule.resume(shift, principal.name, reason, now),
        )

    async def abort(self, principal: Principal, service: str, reason: str) -> Shift:
        """Take the group of a shift back to a share of 0."""
        return await self._order(
            principal,
            "shift_aborted",
            service,
            reason,
            lambda shift, now: rule.abort(shift, self._strength_of(shift), principal.name, reason, now),
        )

    async def promote(self, principal: Principal, service: str, reason: str) -> Shift:
        """Give the group of a shift all requests now."""
        return await self._order(
            principal,
            "shift_promoted",
            service,
            reason,
            lambda shift, now: rule.promote(shift, self._strength_of(shift), principal.name, reason, now),
        )

    async def _order(
        self, principal: Principal, kind: ShiftEventKind, service: str, reason: str, order: Order
    ) -> Shift:
        def carry_out(stored: Shift | None, _in_force: object, now: float) -> Change:
            if stored is None:
                raise self._none(service)
            return order(stored, now)

        return await self._change(principal, kind, service, carry_out, reason)

    async def _change(
        self, principal: Principal, kind: ShiftEventKind, service: str, decide: Decision, reason: str
    ) -> Shift:
        self._policy.allow(principal, Verb.OPERATE, service)
        with self._audit.noting(principal, kind, Verb.OPERATE, service, reason=reason):
            stored = await store.change_shift(self._database, service, decide)
            if stored is None:
                raise UnknownServiceError(service)
            await self._change_feed.follow_own(service, stored.numbers.change)
            return stored.shift

    async def _read(self, names: list[str] | None = None) -> Mapping[str, Shift | None]:
        async with self._database.session() as connection:
            return await store.read(connection, names)

    def _strength_of(self, shift: Shift) -> Strength:
        return self._strength(shift.service, shift.plan.selector, shift.plan.others)

    def _strength(self, service: str, selector: str, others: Collection[Share]) -> Strength:
        return strength_of(self._cache.get(service).endpoints.values(), selector, tuple(others))

    def _none(self, service: str) -> NotFoundError:
        if not self._cache.knows(service):
            return UnknownServiceError(service)
        return NotFoundError(
            f"{service} had no shift of traffic; begin one with registryctl shift {service} --to revision=... --steps "
            "5,25,50,100"
        )
