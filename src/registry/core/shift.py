"""Shifts: the share of one group of endpoints grows in steps, and is taken back when it fails.

This is the rule alone. It takes what was counted since the step began, and returns what the shift is now: it goes on,
advances, is aborted, or holds because too little is known. `registry.background.shifts` looks; `registry.store.shifts`
stores the new state and the shares in one transaction.

The group is judged by `registry.core.shift_statistics`. Time is counted by looks, and not by a wall clock, so setting
one has no effect.
"""

from collections.abc import Collection, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from registry.core.endpoint import Endpoint
from registry.core.shares import Share, ShiftMark, groups_in
from registry.core.shift_curve import MAX_POINTS, Point, extended
from registry.core.shift_plan import ShiftPlan, check_plan, shares_during, without
from registry.core.shift_statistics import MIN_ERRORS, Counts, excess_percent, rest_counts, sure_percent
from registry.errors import InvalidError, ShiftConflictError
from wire.duration import format_duration

ShiftState = Literal["running", "paused", "aborted", "done"]
"""Aborted and done are final; the row stays until the next shift of the service begins."""
HoldKind = Literal["", "no_traffic", "few_reports", "few_requests", "group_gone", "group_unroutable", "rest_unroutable"]
"""Why a shift holds; empty: it does not."""
ShiftEventKind = Literal[
    "shift_started",
    "shift_step",
    "shift_held",
    "shift_paused",
    "shift_resumed",
    "shift_aborted",
    "shift_promoted",
    "shift_done",
]

MAX_LOOK_GAP = 5.0
"""Seconds that one look counts for at most: of a longer time nobody knows what happened in it."""
HOLD_GRACE = 20.0
"""Seconds for which a shift holds before that is an event: the first figures come with the next digest but one."""
GONE_AFTER = 600.0
"""Seconds without any endpoint of the group after which a shift is aborted: nobody waits for it for ever."""
_FULL = 100.0
_REGISTRY = "registry"
"""The author of what the leader does by the rule."""


class Shift(Struct, frozen=True):
    """A shift as it is stored; every process can go on from it.

    Attributes:
        service: the service.
        plan: what is wanted.
        state: whether it goes on.
        step: the number of the step, from 0.
        serial: grows with each change of the state or the step; what was counted changes without it.
        started_at: when it began, by the database's clock, for people.
        changed_at: when the state or the step last changed, by the database's clock, for people.
        changed_by: the operator, or ``registry``.
        reason: why the state or the step is this one.
        age: seconds since it began in which the leader looked at it, pauses left out.
        step_age: seconds since the step began or was resumed.
        waited: those of them in which enough was known.
        held: why it neither advances nor is aborted; empty: it does not hold.
        held_for: seconds since it holds, or since that was an event last.
        holding: seconds for which it has held without a break.
        hold_noted: the kind of holding of which an event was written last in this step.
        group: what the group had since the step began, as far as it is known; less when a process that knew is gone.
        rest: what the others had since the step began.
        rest_before: what the others had in the step before; in earlier ones too where that was little.
        curve: what both had over time.
        absent: seconds for which the group has had no endpoint.
        released: whether it ended because the whole service was gone: the group has no share then, not even 0.
    """

    service: str
    plan: ShiftPlan
    state: ShiftState
    step: int
    serial: int
    started_at: float
    changed_at: float
    changed_by: str
    reason: str
    age: float = 0.0
    step_age: float = 0.0
    waited: float = 0.0
    held: str = ""
    held_for: float = 0.0
    hold_noted: HoldKind = ""
    group: Counts = Counts()
    rest: Counts = Counts()
    rest_before: Counts = Counts()
    curve: tuple[Point, ...] = ()
    holding: float = 0.0
    absent: float = 0.0
    released: bool = False

    @property
    def active(self) -> bool:
        """Whether it is running or paused, so that the service's shares are its own."""
        return self.state in ("running", "paused")

    @property
    def percent(self) -> float:
        """The share that the group has."""
        return 0.0 if self.state == "aborted" else self.plan.steps[self.step]

    @property
    def shares(self) -> tuple[Share, ...]:
        """The shares of the service's groups while the shift is in this step."""
        # A service that comes back, perhaps with the group alone, is not drained by a share of 0.
        return self.plan.others if self.released else shares_during(self.plan, self.percent)

    @property
    def mark(self) -> ShiftMark | None:
        """The mark that the shares of the service have of the shift; None when it is over."""
        return ShiftMark(self.plan.selector, self.state) if self.active else None

    @property
    def compared(self) -> Counts:
        """The attempts at the others with which the group is compared, of the step before too where they are few."""
        return rest_counts(self.rest, self.rest_before, self.percent)

    @property
    def surely(self) -> float:
        """The percentage of its attempts that the group surely fails, in the comparison with the others."""
        return sure_percent(self.group, self.compared)

    @property
    def excess(self) -> float:
        """The percentage points by which the group surely fails more often than the others; below 0: it does not."""
        return excess_percent(self.group, self.compared)

    @property
    def failing(self) -> bool:
        """Whether the group is to be taken back."""
        return self.group.errors >= MIN_ERRORS and self.excess > self.plan.abort_above


class Strength(Struct, frozen=True):
    """The routable endpoints of a service, apart from its shares.

    Attributes:
        group_endpoints: the endpoints of the group.
        group: its routable endpoints.
        rest: the routable endpoints among the others that have a share without the group.
        rest_endpoints: all other endpoints.
    """

    group_endpoints: int
    group: int
    rest: int
    rest_endpoints: int


class Look(Struct, frozen=True):
    """The facts that are known at one look at a running shift.

    Attributes:
        elapsed: monotonic seconds since the last look of this leader; 0 at its first one.
        group: what the group had since the step began.
        rest: what the others had since then.
        callers: the Envoys that have traffic to the service.
        reporting: those of them that report what each endpoint had.
        strength: what is routable.
        shares: the shares of the service that are in force.
    """

    elapsed: float
    group: Counts
    rest: Counts
    callers: int
    reporting: int
    strength: Strength
    shares: tuple[Share, ...]


class Hold(Struct, frozen=True):
    """Why a shift neither advances nor is aborted."""

    kind: HoldKind
    words: str


class ShiftEvent(Struct, frozen=True):
    """An event of a shift in the history of its service."""

    kind: ShiftEventKind
    reason: str
    actor: str


class Change(Struct, frozen=True):
    """A change of a shift that follows from a look or from an operator's order.

    Attributes:
        shift: the shift as it is now.
        event: what happened; None: nothing that people need to know.
        publishes: whether the shares of the service are to be stored, because they or their mark are others.
    """

    shift: Shift
    event: ShiftEvent | None = None
    publishes: bool = False


def strength_of(endpoints: Collection[Endpoint], selector: str, others: Sequence[Share]) -> Strength:
    """Return what is routable in a service, for the group of a shift and for the rest."""
    # The group's share is only there to tell it from the rest; what it leaves is what the others have.
    group, *rest = groups_in(endpoints, [Share(selector, 0.0), *others])
    routable = sum(each.routable for each in rest if each.percent)
    return Strength(group.endpoints, group.routable, routable, sum(each.endpoints for each in rest))


def start(
    service: str, plan: ShiftPlan, before: Shift | None, in_force: Sequence[Share], strength: Strength, now: float
) -> Change:
    """Begin a shift with its first step.

    Args:
        service: the service.
        plan: what is wanted, without the shares of other groups.
        before: the last shift of the service.
        in_force: the shares of the service.
        strength: what is routable in it.
        now: the database's time.

    Raises:
        InvalidError: the plan means nothing for this service.
        ShiftConflictError: the service has a shift, or nothing but the group is routable.
    """
    if before is not None and before.active:
        raise ShiftConflictError(
            f"{service} has a shift to {before.plan.selector} already, {before.state} at {before.percent:g} %: "
            f"abort or promote it first (registryctl shift {service} --abort)"
        )
    plan = replace(plan, others=without(plan.selector, in_force))
    check_plan(plan)
    if not strength.group_endpoints:
        raise InvalidError(
            f"{plan.selector} fits no endpoint of {service}: register one first, or correct the selector", "$.selector"
        )
    if not strength.rest:
        raise ShiftConflictError(
            f"nothing but {plan.selector} is routable in {service}: a shift needs others to go back to"
        )
    # Of milliseconds, while a change adds one: after a backup was restored, a new shift has the serial of none before.
    serial = max(int(now * 1000), 0 if before is None else before.serial + 1)
    shift = Shift(service, plan, "running", 0, serial, now, now, plan.actor, "")
    words = f"{plan.selector} gets {_of_steps(shift)}, each for {format_duration(plan.every)}{_because(plan.reason)}"
    shift = replace(shift, reason=words)
    return Change(shift, ShiftEvent("shift_started", words, plan.actor), publishes=True)


def look(shift: Shift, seen: Look, now: float) -> Change:
    """Return what a running shift is after a look at it.

    Args:
        shift: the shift as it was.
        seen: what is known.
        now: the database's time, for people.
    """
    if not _same(seen.shares, shift.shares):
        reason = "its shares were set by another hand, so it goes no further; --resume sets them as the shift wants"
        return _changed(shift, "paused", "shift_paused", reason, _REGISTRY, now)
    elapsed = min(max(0.0, seen.elapsed), MAX_LOOK_GAP)
    counted = _counted(shift, seen, elapsed)
    unknown = _unknown(seen)
    if unknown is None and counted.failing and seen.strength.rest:
        return _changed(counted, "aborted", "shift_aborted", _failing(counted), _REGISTRY, now)
    if counted.absent >= GONE_AFTER and (ended := _gone(counted, seen.strength, now)) is not None:
        return ended
    hold = _ill(counted, seen) or unknown
    if hold is None:
        counted = replace(counted, waited=counted.waited + elapsed)
        if counted.waited < shift.plan.every:
            return Change(_going_on(counted))
        hold = _unready(counted, seen)
    if hold is not None:
        return _held(counted, hold, elapsed)
    return _next_step(counted, now)


def pause(shift: Shift, actor: str, reason: str, now: float) -> Change:
    """Let a running shift go no further; the shares stay.

    Raises:
        ShiftConflictError: it is not running.
    """
    if shift.state != "running":
        raise ShiftConflictError(f"the shift of {shift.service} is {shift.state}: only a running one can be paused")
    words = f"paused at {shift.percent:g} %{_because(reason)}"
    return _changed(shift, "paused", "shift_paused", words, actor, now)


def resume(shift: Shift, actor: str, reason: str, now: float) -> Change:
    """Let a paused shift go on, with a new beginning of its step.

    Raises:
        ShiftConflictError: it is not paused.
    """
    if shift.state != "paused":
        raise ShiftConflictError(f"the shift of {shift.service} is {shift.state}: only a paused one can be resumed")
    words = f"resumed at {shift.percent:g} %{_because(reason)}"
    return _changed(_afresh(shift), "running", "shift_resumed", words, actor, now)


def abort(shift: Shift, strength: Strength, actor: str, reason: str, now: float) -> Change:
    """Take the group of a shift back to a share of 0.

    Raises:
        ShiftConflictError: it is over, or nothing else is routable.
    """
    if not shift.active:
        raise ShiftConflictError(
            f"the shift of {shift.service} is {shift.state}, so there is nothing to abort; a share is set by hand with "
            f"registryctl share {shift.service} {shift.plan.selector}=0"
        )
    # Where nothing at all is routable, an abort takes nothing away.
    if strength.group and not strength.rest:
        raise ShiftConflictError(
            f"nothing but {shift.plan.selector} is routable in {shift.service}, so an abort would leave it without "
            "endpoints: pause it, or bring the others back first"
        )
    return _changed(shift, "aborted", "shift_aborted", f"aborted at {shift.percent:g} %{_because(reason)}", actor, now)


def promote(shift: Shift, strength: Strength, actor: str, reason: str, now: float) -> Change:
    """Give the group of a shift all requests now, and end the shift.

    Raises:
        ShiftConflictError: it is over, or nothing of the group is routable.
    """
    if not shift.active:
        raise ShiftConflictError(f"the shift of {shift.service} is {shift.state}: there is nothing to promote")
    if not strength.group:
        raise ShiftConflictError(f"no endpoint of {shift.plan.selector} is routable in {shift.service}")
    words = f"promoted from {shift.percent:g} to 100 %{_because(reason)}"
    plan = replace(shift.plan, steps=(*shift.plan.steps[: shift.step + 1], _FULL))
    if shift.percent == _FULL:
        plan = replace(plan, steps=plan.steps[:-1])
    promoted = replace(shift, plan=plan, step=len(plan.steps) - 1)
    return _changed(promoted, "done", "shift_promoted", words, actor, now)


def _counted(shift: Shift, seen: Look, elapsed: float) -> Shift:
    age = shift.age + elapsed
    width = max(1.0, shift.plan.every * len(shift.plan.steps) / MAX_POINTS)
    new = Point(age, shift.percent, seen.group.since(shift.group), seen.rest.since(shift.rest))
    return replace(
        shift,
        age=age,
        step_age=shift.step_age + max(0.0, seen.elapsed),
        absent=0.0 if seen.strength.group_endpoints else shift.absent + elapsed,
        group=seen.group,
        rest=seen.rest,
        curve=extended(shift.curve, new, width),
    )


def _unknown(seen: Look) -> Hold | None:
    """Return why too little is known to judge the group; None: enough is known."""
    if not seen.callers:
        words = (
            "no Envoy reports traffic to the service: it has none, the first figures are on their way, or no registrar "
            "beside a caller's Envoy sends any (REGISTRAR_ENVOY_ADMIN)"
        )
        return Hold("no_traffic", words)
    if 2 * seen.reporting < seen.callers:
        words = f"{seen.reporting} of {seen.callers} Envoys that call the service report what its endpoints had"
        return Hold("few_reports", words)
    return None


def _ill(shift: Shift, seen: Look) -> Hold | None:
    """Return what is wrong with the endpoints, which an abort would not mend; None: nothing."""
    if not seen.strength.group_endpoints:
        words = f"{shift.plan.selector} has no endpoint; after {format_duration(GONE_AFTER)} of that it is aborted"
        return Hold("group_gone", words)
    if not seen.strength.group:
        return Hold("group_unroutable", f"no endpoint of {shift.plan.selector} is routable")
    if shift.failing and not seen.strength.rest:
        return Hold("rest_unroutable", f"{_failing(shift)}, and {_alone(shift)}")
    return None


def _gone(shift: Shift, strength: Strength, now: float) -> Change | None:
    """End the shift of a group that is gone for good; None: the others could not serve without it."""
    since = f"has had no endpoint for {format_duration(GONE_AFTER)}"
    if strength.rest:
        words = f"{shift.plan.selector} {since}"
    elif not strength.rest_endpoints:
        words = f"{shift.service} {since}, and begins without this share when it comes back"
        shift = replace(shift, released=True)
    else:
        return None
    return _changed(shift, "aborted", "shift_aborted", f"aborted at {shift.percent:g} %: {words}", _REGISTRY, now)


def _unready(shift: Shift, seen: Look) -> Hold | None:
    """Return why a step whose time is over does not end; None: it ends."""
    if shift.group.requests < shift.plan.min_requests:
        words = f"{shift.group.requests} of {shift.plan.min_requests} attempts that a step needs were counted"
        return Hold("few_requests", words)
    if not seen.strength.rest:
        return Hold("rest_unroutable", _alone(shift))
    return None


def _alone(shift: Shift) -> str:
    return (
        f"nothing but {shift.plan.selector} is routable: bring the others back, or end the shift as it is "
        f"(registryctl shift {shift.service} --promote)"
    )


def _held(shift: Shift, hold: Hold, elapsed: float) -> Change:
    held = replace(shift, held=hold.words, held_for=shift.held_for + elapsed, holding=shift.holding + elapsed)
    if held.held_for < HOLD_GRACE or shift.hold_noted == hold.kind:
        return Change(held)
    words = f"holds at {shift.percent:g} %: {hold.words}"
    # Where two reasons take turns, each is an event after the grace at most, and not at each look.
    return Change(replace(held, hold_noted=hold.kind, held_for=0.0), ShiftEvent("shift_held", words, _REGISTRY))


def _going_on(shift: Shift) -> Shift:
    return replace(shift, held="", held_for=0.0, holding=0.0)


def _afresh(shift: Shift) -> Shift:
    """Return a shift at the beginning of its step."""
    return replace(_going_on(shift), step_age=0.0, waited=0.0, hold_noted="", group=Counts(), rest=Counts())


def _next_step(shift: Shift, now: float) -> Change:
    if shift.step + 1 == len(shift.plan.steps):
        return _changed(shift, "done", "shift_done", f"done at {shift.percent:g} %: {_judged(shift)}", _REGISTRY, now)
    following = replace(_afresh(shift), step=shift.step + 1, rest_before=shift.compared)
    words = f"{shift.plan.selector} gets {_of_steps(following)}: {_judged(shift)}"
    return _changed(following, "running", "shift_step", words, _REGISTRY, now)


def _changed(  # the facts of a change
    shift: Shift, state: ShiftState, kind: ShiftEventKind, reason: str, actor: str, now: float
) -> Change:
    changed = replace(
        _going_on(shift), state=state, serial=shift.serial + 1, changed_at=now, changed_by=actor, reason=reason
    )
    return Change(changed, ShiftEvent(kind, reason, actor), publishes=True)


def _same(shares: Sequence[Share], wanted: Sequence[Share]) -> bool:
    return [(share.selector, share.percent) for share in shares] == [
        (share.selector, share.percent) for share in wanted
    ]


def _of_steps(shift: Shift) -> str:
    return f"{shift.percent:g} %, step {shift.step + 1} of {len(shift.plan.steps)}"


def _judged(shift: Shift) -> str:
    """Return the errors of both groups in this step in words."""
    group, rest = shift.group, shift.rest
    others = f"and {rest.errors} of {rest.requests} of the rest" if rest.requests else "the rest had none"
    return f"{group.errors} of {group.requests} attempts at {shift.plan.selector} failed, {others}"


def _failing(shift: Shift) -> str:
    return (
        f"{_judged(shift)}: surely {shift.excess:.1f} percentage points more, and the limit is "
        f"{shift.plan.abort_above:g}"
    )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
