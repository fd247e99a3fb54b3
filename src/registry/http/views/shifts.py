"""The JSON documents of shifts of traffic."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from registry.core.shares import Share, Shares
from registry.core.shift import Shift, ShiftState
from registry.core.shift_curve import Point
from registry.core.shift_plan import MAX_EVERY, MAX_MIN_REQUESTS, MAX_STEPS, MIN_EVERY, ShiftPlan
from registry.core.shift_statistics import Counts, wilson_lower
from registry.http.openapi import show_examples
from registry.http.views.epoch import Epoch
from wire.model import PRINTABLE_PATTERN, Text


class ShiftRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A shift that is to begin."""

    to: Annotated[
        str,
        Meta(
            max_length=1000,
            pattern=PRINTABLE_PATTERN,
            description="The group that gets more and more, as `key=value`, like that of a share.",
        ),
    ]
    steps: Annotated[
        list[Annotated[float, Meta(ge=0, le=100)]],
        Meta(
            min_length=1,
            max_length=MAX_STEPS,
            description="Its shares in percent, each greater than the one before; the last one stays.",
        ),
    ]
    every: Annotated[
        float, Meta(ge=MIN_EVERY, le=MAX_EVERY, description="Seconds of each step, the last included.")
    ] = 300.0
    abort_above: Annotated[
        float,
        Meta(
            ge=0,
            le=100,
            description="Percentage points: the group is taken back when it surely fails by more than this more often "
            "than the others.",
        ),
    ] = 1.0
    min_requests: Annotated[
        int, Meta(ge=0, le=MAX_MIN_REQUESTS, description="Requests of the group without which no step ends.")
    ] = 200
    reason: Text = ""

    def plan(self, actor: str) -> ShiftPlan:
        """Return the shift as the rule takes it."""
        return ShiftPlan(
            self.to, tuple(self.steps), self.every, self.abort_above, self.min_requests, actor, self.reason
        )


class ShiftOrder(Struct, forbid_unknown_fields=True, frozen=True):
    """Why a shift is paused, resumed, aborted or promoted."""

    reason: Text = ""


class CountsView(Struct, frozen=True):
    """Attempts at the endpoints of a group in this step, as Envoys count them, and those that failed."""

    requests: int
    errors: int
    error_percent: float
    surely_above: Annotated[
        float,
        Meta(
            description="The percentage of its attempts that surely failed: a lower bound. The group is taken back "
            "when its own exceeds the errors of the rest by more than the limit; few attempts of the rest lower it too."
        ),
    ]


class PointView(Struct, frozen=True):
    """The attempts at both groups within a short time."""

    after: Annotated[float, Meta(description="Seconds since the shift began, pauses left out.")]
    percent: float
    requests: int
    errors: int
    rest_requests: int
    rest_errors: int


class ShiftView(Struct, frozen=True):
    """The shift of a service: under way, or the last one."""

    service: str
    to: str
    state: Annotated[ShiftState, Meta(description="aborted and done are final.")]
    percent: Annotated[float, Meta(description="The share of the group by the shift.")]
    served_percent: Annotated[
        float | None,
        Meta(
            description="The share of the group that is served now, which another hand may have set; null: it has none "
            "of its own."
        ),
    ]
    served_by: Annotated[str, Meta(description="Who set the shares that are served now; empty: there are none.")]
    step: Annotated[int, Meta(description="From 1.")]
    steps: list[float]
    every: float
    waited: Annotated[float, Meta(description="Seconds of this step in which enough was known.")]
    held: Annotated[str, Meta(description="Why it neither advances nor is aborted now; empty: it does not hold.")]
    held_seconds: Annotated[float, Meta(description="For how long it has held without a break.")]
    abort_above: float
    min_requests: int
    group: CountsView
    rest: CountsView
    actor: Annotated[str, Meta(description="The operator who began it.")]
    why: Annotated[str, Meta(description="The operator's reason.")]
    started_at: Epoch
    changed_at: Annotated[Epoch, Meta(description="When its step or state last changed.")]
    changed_by: Annotated[str, Meta(description="`registry`: the rule.")]
    reason: Annotated[str, Meta(description="Why its step or state is this one.")]
    curve: Annotated[list[PointView], Meta(description="Both groups over time; empty in lists.")] = []


class ShiftList(Struct, frozen=True):
    """The last shift of each service that had any."""

    shifts: list[ShiftView]


def shift_view(shift: Shift, in_force: Shares | None, *, curve: bool = True) -> ShiftView:
    """Return the document of a shift.

    Args:
        shift: the shift.
        in_force: the shares of its service that are served now.
        curve: whether with both groups over time.
    """
    plan = shift.plan
    groups = in_force.groups if in_force else ()
    return ShiftView(
        service=shift.service,
        to=plan.selector,
        state=shift.state,
        percent=shift.percent,
        served_percent=next((share.percent for share in groups if share.selector == plan.selector), None),
        served_by=in_force.actor if in_force else "",
        step=shift.step + 1,
        steps=list(plan.steps),
        every=plan.every,
        waited=round(shift.waited, 1),
        held=shift.held,
        held_seconds=round(shift.holding, 1),
        abort_above=plan.abort_above,
        min_requests=plan.min_requests,
        group=_counts(shift.group, shift.surely),
        rest=_counts(shift.rest, 100 * wilson_lower(shift.rest)),
        actor=plan.actor,
        why=plan.reason,
        started_at=shift.started_at,
        changed_at=shift.changed_at,
        changed_by=shift.changed_by,
        reason=shift.reason,
        curve=_points(shift.curve) if curve else [],
    )


def _counts(counts: Counts, surely: float) -> CountsView:
    return CountsView(counts.requests, counts.errors, round(100 * counts.ratio, 3), round(surely, 3))


def _points(curve: Sequence[Point]) -> list[PointView]:
    return [
        PointView(round(at.after, 1), at.percent, at.group.requests, at.group.errors, at.rest.requests, at.rest.errors)
        for at in curve
    ]


_SHIFT = shift_view(
    Shift(
        service="shop",
        plan=ShiftPlan("revision=1.9.0", (5.0, 25.0, 50.0, 100.0), 300.0, 1.0, 200, "anna", "release 1.9.0"),
        state="running",
        step=1,
        serial=1,
        started_at=1_763_600_000.0,
        changed_at=1_763_600_301.0,
        changed_by="registry",
        reason="revision=1.9.0 gets 25 %, step 2 of 4: 0 of 412 requests of revision=1.9.0 failed, and 3 of 7811 of "
        "the rest",
        age=361.0,
        waited=60.0,
        group=Counts(801, 1),
        rest=Counts(2390, 2),
        curve=(Point(301.0, 5.0, Counts(412, 0), Counts(7811, 3)), Point(361.0, 25.0, Counts(801, 1), Counts(2390, 2))),
    ),
    Shares((Share("revision=1.9.0", 25.0),), "registry", "", 1_763_600_301.0),
)
show_examples(_SHIFT)
show_examples(ShiftList([_SHIFT]))
