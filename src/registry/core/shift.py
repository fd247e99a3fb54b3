"""Shifts: the share of one group of endpoints grows in steps, and is taken back when it fails.

This is the rule alone. It takes what was counted since the step began, and returns what the shift is now: it goes on,
advances, is aborted, or holds because too little is known. `registry.background.shifts` looks; `registry.store.shifts`
stores the new state and the shares in one transaction.

The group is judged by the lower bound of Wilson's score interval of its ratio of errors (E. B. Wilson, Probable
Inference, 1927), less the ratio of the rest. So three errors of a small group can suffice, and a group that is as good
as the limit is seldom taken back by chance, although the rule is asked at each look. Time is counted by looks, and not
by a wall clock, so setting one has no effect.
"""

import math
from collections.abc import Collection, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from registry.core.endpoint import Endpoint
from registry.core.shares import MAX_GROUPS, Share, ShiftMark, check_shares, groups_in, rest_percent
from registry.errors import InvalidError, ShiftConflictError
from wire.duration import format_duration

ShiftState = Literal["running", "paused", "aborted", "done"]
"""Aborted and done are final; the row stays until the next shift of the service begins."""
HoldKind = Literal["", "no_traffic", "few_reports", "few_requests", "group_unroutable", "rest_unroutable"]
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

MAX_STEPS = 20
"""Steps of a shift."""
MIN_EVERY = 1.0
"""Seconds of a step, at the least."""
MAX_EVERY = 7 * 86_400.0
"""Seconds of a step, at most."""
MAX_MIN_REQUESTS = 1_000_000
"""Requests of the group that a step may ask for."""
MIN_ERRORS = 3
"""Errors of the group below which it is not taken back."""
MAX_POINTS = 120
"""Points of the curve; when there are more, each two of one share become one."""
MAX_LOOK_GAP = 5.0
"""Seconds that one look counts for at most: of a longer time nobody knows what happened in it."""
HOLD_GRACE = 20.0
"""Seconds for which a shift holds before that is an event: the first figures come with the next digest but one."""
_Z = 2.33
"""The quantile of the normal distribution for the bound: it is exceeded by chance in 1 of 100."""
_MIN_REST = 50
"""Requests of the rest below which its ratio includes the step before; at 100 % the rest has none."""
_FULL = 100.0
_REGISTRY = "registry"
"""The author of what the leader does by the rule."""


class Counts(Struct, frozen=True, array_like=True):
    """Attempts at endpoints, and those of them that failed, as Envoys count them.

    Attributes:
        requests: the attempts, retries included (``rq_total`` of Envoy's ``/clusters``).
        errors: those that failed (``rq_error``).
    """

    requests: int = 0
    errors: int = 0

    @property
    def ratio(self) -> float:
        """The part that failed; 0 of none."""
        return self.errors / self.requests if self.requests else 0.0

    def since(self, before: "Counts") -> "Counts":
        """Return what is new since earlier counts; nothing where counts fell."""
        return Counts(max(0, self.requests - before.requests), max(0, self.errors - before.errors))

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sum."""
        return Counts(self.requests + other.requests, self.errors + other.errors)


class Point(Struct, frozen=True, array_like=True):
    """A point of the curve: what both groups had within a short time.

    Attributes:
        after: seconds since the shift began, pauses left out.
        percent: the share of the group then.
        group: what the group had.
        rest: what the others had.
    """

    after: float
    percent: float
    group: Counts
    rest: Counts


class ShiftPlan(Struct, frozen=True):
    """The steps and limits of a shift, as an operator asks for them.

    Attributes:
        selector: the group that gets more and more, as ``key=value``.
        steps: its shares in percent, in their order.
        every: seconds of each step.
        abort_above: percentage points of errors above those of the rest from which the group is taken back.
        min_requests: requests of the group without which a step does not end.
        actor: the operator.
        reason: why.
        others: the shares of other groups as if this one had none; they keep their proportions.
    """

    selector: str
    steps: tuple[float, ...]
    every: float
    abort_above: float
    min_requests: int
    actor: str
    reason: str
    others: tuple[Share, ...] = ()


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
        hold_noted: the kind of holding of which an event was written last in this step.
        group: what the group had since the step began, as far as it is known; less when a process that knew is gone.
        rest: what the others had since the step began.
        rest_before: what the others had in the step before.
        curve: what both had over time.
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
        return shares_during(self.plan, self.percent)

    @property
    def mark(self) -> ShiftMark | None:
        """The mark that the shares of the service have of the shift; None when it is over."""
        return ShiftMark(self.plan.selector, self.state) if self.active else None

    @property
    def rest_ratio(self) -> float:
        """The part of the others' requests that failed, with those of the step before where there are few."""
        rest = self.rest if self.rest.requests >= _MIN_REST else self.rest + self.rest_before
        return rest.ratio

    @property
    def excess(self) -> float:
        """The percentage points by which the group surely fails more often than the others; below 0: it does not."""
        return _FULL * (wilson_lower(self.group) - self.rest_ratio)

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
    """

    group_endpoints: int
    group: int
    rest: int


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


def wilson_lower(counts: Counts, z: float = _Z) -> float:
    """Return the lower bound of Wilson's score interval of the ratio of errors; 0 without requests."""
    n = counts.requests
    if n <= 0:
        return 0.0
    ratio = min(1.0, counts.errors / n)
    centre = ratio + z * z / (2 * n)
    spread = z * math.sqrt(ratio * (1 - ratio) / n + z * z / (4 * n * n))
    return max(0.0, (centre - spread) / (1 + z * z / n))


def shares_during(plan: ShiftPlan, percent: float) -> tuple[Share, ...]:
    """Return the shares of a service while the group of a shift has ``percent``.

    The others keep the proportions that they had when it began, so that a group without a share stays without.
    """
    left = 1 - percent / _FULL
    return (Share(plan.selector, percent), *(Share(share.selector, share.percent * left) for share in plan.others))


def without(selector: str, in_force: Sequence[Share]) -> tuple[Share, ...]:
    """Return the shares of a service as they would be if a group had none, the others in their proportions."""
    others = [share for share in in_force if share.selector != selector]
    left = sum(share.percent for share in others) + rest_percent(in_force)
    # The group has everything: the others have no proportions, and endpoints without a share of their own get it all.
    scale = _FULL / left if left else 0.0
    return tuple(Share(share.selector, min(share.percent * scale, _FULL)) for share in others)


def strength_of(endpoints: Collection[Endpoint], selector: str, others: Sequence[Share]) -> Strength:
    """Return what is routable in a service, for the group of a shift and for the rest."""
    # The group's share is only there to tell it from the rest; what it leaves is what the others have.
    group, *rest = groups_in(endpoints, [Share(selector, 0.0), *others])
    return Strength(group.endpoints, group.routable, sum(each.routable for each in rest if each.percent))


def check_plan(plan: ShiftPlan) -> None:
    """Refuse a plan that means nothing.

    Raises:
        InvalidError: names the value and says what is allowed.
    """
    steps = plan.steps
    if not 1 <= len(steps) <= MAX_STEPS:
        raise InvalidError(f"{len(steps)} steps were given; a shift has 1 to {MAX_STEPS}", "$.steps")
    for number, percent in enumerate(steps):
        if not 0 < percent <= _FULL:
            raise InvalidError(
                f"{percent:g} percent is no step: give more than 0 and at most 100", f"$.steps[{number}]"
            )
        if number and percent <= steps[number - 1]:
            raise InvalidError(
                f"step {percent:g} follows {steps[number - 1]:g}: each step is greater than the one before. Steps are "
                "the whole share of the group and not what is added",
                f"$.steps[{number}]",
            )
    if not MIN_EVERY <= plan.every <= MAX_EVERY:
        raise InvalidError(f"{plan.every:g} seconds is no duration of a step: give 1 second to 7 days", "$.every")
    if not 0 <= plan.abort_above <= _FULL:
        raise InvalidError(f"{plan.abort_above:g} percent is no limit: give 0 to 100", "$.abort_above")
    if not 0 <= plan.min_requests <= MAX_MIN_REQUESTS:
        raise InvalidError(
            f"{plan.min_requests} requests cannot be asked for: give 0 to {MAX_MIN_REQUESTS}", "$.min_requests"
        )
    if len(plan.others) >= MAX_GROUPS:
        raise InvalidError(
            f"the service has shares of {len(plan.others)} other groups, and {MAX_GROUPS} are allowed with this one: "
            "set fewer (registryctl share)",
            "$.selector",
        )
    try:
        check_shares([Share(plan.selector, steps[0])])
    except InvalidError as error:
        raise InvalidError(str(error), "$.selector") from None


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
    shift = Shift(service, plan, "running", 0, 0 if before is None else before.serial + 1, now, now, plan.actor, "")
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
        group=seen.group,
        rest=seen.rest,
        curve=_extended(shift.curve, new, width),
    )


def _extended(curve: tuple[Point, ...], point: Point, width: float) -> tuple[Point, ...]:
    """Return a curve with a point more, or with a longer last one."""
    if curve and curve[-1].percent == point.percent and point.after - curve[-1].after < width:
        last = curve[-1]
        return (*curve[:-1], Point(last.after, last.percent, last.group + point.group, last.rest + point.rest))
    extended = (*curve, point)
    return extended if len(extended) <= MAX_POINTS else _thinned(extended)


def _thinned(curve: Sequence[Point]) -> tuple[Point, ...]:
    thinned: list[Point] = []
    joined = False
    for point in curve:
        if thinned and not joined and thinned[-1].percent == point.percent:
            last = thinned.pop()
            thinned.append(Point(last.after, last.percent, last.group + point.group, last.rest + point.rest))
            joined = True
        else:
            thinned.append(point)
            joined = False
    return tuple(thinned)


def _unknown(seen: Look) -> Hold | None:
    """Return why too little is known to judge the group; None: enough is known."""
    if not seen.callers:
        return Hold("no_traffic", "no Envoy reports traffic to the service")
    if 2 * seen.reporting < seen.callers:
        words = f"{seen.reporting} of {seen.callers} Envoys that call the service report what its endpoints had"
        return Hold("few_reports", words)
    return None


def _ill(shift: Shift, seen: Look) -> Hold | None:
    """Return what is wrong with the endpoints, which an abort would not mend; None: nothing."""
    if not seen.strength.group:
        return Hold("group_unroutable", f"no endpoint of {shift.plan.selector} is routable")
    if shift.failing and not seen.strength.rest:
        return Hold("rest_unroutable", f"{_failing(shift)}, and nothing else is routable")
    return None


def _unready(shift: Shift, seen: Look) -> Hold | None:
    """Return why a step whose time is over does not end; None: it ends."""
    if shift.group.requests < shift.plan.min_requests:
        words = f"{shift.group.requests} of {shift.plan.min_requests} requests that a step needs were counted"
        return Hold("few_requests", words)
    if not seen.strength.rest:
        return Hold("rest_unroutable", f"nothing but {shift.plan.selector} is routable")
    return None


def _held(shift: Shift, hold: Hold, elapsed: float) -> Change:
    held = replace(shift, held=hold.words, held_for=shift.held_for + elapsed)
    if held.held_for < HOLD_GRACE or shift.hold_noted == hold.kind:
        return Change(held)
    words = f"holds at {shift.percent:g} %: {hold.words}"
    # Where two reasons take turns, each is an event after the grace at most, and not at each look.
    return Change(replace(held, hold_noted=hold.kind, held_for=0.0), ShiftEvent("shift_held", words, _REGISTRY))


def _going_on(shift: Shift) -> Shift:
    return replace(shift, held="", held_for=0.0)


def _afresh(shift: Shift) -> Shift:
    """Return a shift at the beginning of its step."""
    return replace(_going_on(shift), step_age=0.0, waited=0.0, hold_noted="", group=Counts(), rest=Counts())


def _next_step(shift: Shift, now: float) -> Change:
    if shift.step + 1 == len(shift.plan.steps):
        return _changed(shift, "done", "shift_done", f"done at {shift.percent:g} %: {_judged(shift)}", _REGISTRY, now)
    before = shift.rest if shift.rest.requests else shift.rest_before
    following = replace(_afresh(shift), step=shift.step + 1, rest_before=before)
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
    return (
        f"{group.errors} of {group.requests} requests of {shift.plan.selector} failed, "
        f"and {rest.errors} of {rest.requests} of the rest"
    )


def _failing(shift: Shift) -> str:
    return (
        f"{_judged(shift)}: surely {shift.excess:.1f} percentage points more, and the limit is "
        f"{shift.plan.abort_above:g}"
    )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""
