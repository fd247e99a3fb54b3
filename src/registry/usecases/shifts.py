"""Shifts of traffic to a group of a service's endpoints: begin them, look at them, and give orders to them."""

from collections.abc import Collection, Mapping
from typing import Literal

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core import shift as rule
from registry.core.shares import Share, Shares
from registry.core.shift import Change, Shift, ShiftEventKind, Strength, strength_of
from registry.core.shift_plan import ShiftPlan, without
from registry.errors import NotFoundError, UnknownServiceError
from registry.store import shifts as store
from registry.store.database import Database
from registry.store.shifts import Decision
from registry.usecases.audit import Audit

Order = Literal["pause", "resume", "abort", "promote"]
_KINDS: Mapping[Order, ShiftEventKind] = {
    "pause": "shift_paused",
    "resume": "shift_resumed",
    "abort": "shift_aborted",
    "promote": "shift_promoted",
}
"""The audit kind of each order."""


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

    def in_force(self, service: str) -> Shares | None:
        """Return the shares of a service as this process serves them: another hand may have set them since."""
        return self._cache.get(service).shares

    async def start(self, principal: Principal, service: str, plan: ShiftPlan) -> Shift:
        """Begin a shift with its first step.

        Raises:
            InvalidError: the plan means nothing for the service.
            ShiftConflictError: the service has a shift, or nothing else is routable.
            UnknownServiceError: the service is not known.
            UnavailableError: it could not be stored, or this process cannot read the service.
        """

        def begin(before: Shift | None, in_force: tuple[Share, ...], now: float) -> Change:
            strength = self._strength(service, plan.selector, without(plan.selector, in_force))
            return rule.start(service, plan, before, in_force, strength, now)

        return await self._change(principal, "shift_started", service, begin, f"{plan.selector}: {plan.reason}")

    async def order(self, principal: Principal, service: str, order: Order, reason: str) -> Shift:
        """Pause, resume, abort or promote the shift of a service.

        Raises:
            NotFoundError: it had no shift.
            ShiftConflictError: the state of the shift, or of the endpoints, does not allow the order.
            UnavailableError: it could not be stored; or this process cannot read the service, of which an abort and a
                promotion ask what is routable.
        """

        def carry_out(stored: Shift | None, _in_force: object, now: float) -> Change:
            if stored is None:
                raise self._none(service)
            match order:
                case "pause":
                    return rule.pause(stored, principal.name, reason, now)
                case "resume":
                    return rule.resume(stored, principal.name, reason, now)
                case "abort":
                    return rule.abort(stored, self._strength_of(stored), principal.name, reason, now)
                case "promote":
                    return rule.promote(stored, self._strength_of(stored), principal.name, reason, now)

        return await self._change(principal, _KINDS[order], service, carry_out, reason)

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
        async with self._database.reading() as connection:
            return await store.read(connection, names)

    def _strength_of(self, shift: Shift) -> Strength:
        return self._strength(shift.service, shift.plan.selector, shift.plan.others)

    def _strength(self, service: str, selector: str, others: Collection[Share]) -> Strength:
        # Read as empty, it would have no group to begin with, and nothing that an abort spares.
        self._cache.check_sure(service)
        return strength_of(self._cache.get(service).endpoints.values(), selector, tuple(others))

    def _none(self, service: str) -> NotFoundError:
        if not self._cache.knows(service):
            return UnknownServiceError(service)
        return NotFoundError(
            f"{service} had no shift of traffic; begin one with registryctl shift {service} --to revision=... --steps "
            "5,25,50,100"
        )
