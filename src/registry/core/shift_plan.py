"""The plan of a shift: its group, steps and limits, and the shares that follow from it."""

from collections.abc import Sequence

from msgspec import Struct

from registry.core.shares import MAX_GROUPS, Share, check_shares, rest_percent
from registry.errors import InvalidError

MAX_STEPS = 20
"""Steps of a shift."""
MIN_EVERY = 1.0
"""Seconds of a step, at the least."""
MAX_EVERY = 7 * 86_400.0
"""Seconds of a step, at most."""
MAX_MIN_REQUESTS = 1_000_000
"""Requests of the group that a step may ask for."""
_FULL = 100.0


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
