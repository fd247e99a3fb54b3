"""Events of the history as they are noted: their kinds, and the words of their reasons."""

import datetime as dt
from typing import Any, Literal

from msgspec import Struct

from registry.core.endpoint import Endpoint, Override
from registry.core.shift import ShiftEventKind
from wire.model import Registration

EventKind = Literal[
    "registered",
    "health",
    "changed",
    "drained",
    "deregistered",
    "expelled",
    "lapsed",
    "suspected",
    "returned",
    "taken_over",
    "overridden",
    "override_cleared",
    "removed",
    "replaced",
    "lost_acknowledged",
    "expected_set",
    "shares_set",
    "errand_asked",
    "errand_answered",
    "update_rejected",
    "paused",
    "resumed",
    ShiftEventKind,
]
"""The kinds of events.

``expected_set``, ``shares_set``, ``update_rejected`` and those of shifts are of a service, pauses of a service or of
all.
"""


class Event(Struct, frozen=True):
    """An event of the history: a change of an endpoint, its reason and its actor."""

    service: str
    address: str
    port: int
    instance_id: str
    kind: EventKind
    reason: str
    actor: str
    status: str
    """The endpoint's status from then on, as people see it; ``REMOVED`` for one that is left out, empty: no change."""
    changes_owner: bool = False
    """Whether another identity got the endpoint or its address from the one that owned it; the reason names both."""


def describe_override(override: Override) -> str:
    """Return what an override sets, and why, for the event at which it begins."""
    parts = ", ".join(override.parts)
    return f"{parts or 'nothing'}: {override.reason}" if override.reason else parts


def describe_setting(override: Override) -> str:
    """Return what an override set, by whom, when and why, for the event at which it ends."""
    parts = ", ".join(override.parts) or "nothing"
    return f"{override.actor} set {parts} at {calendar_time(override.set_at)}: {override.reason or 'no reason given'}"


def describe_update(row: Endpoint, registration: Registration, owner: str) -> tuple[EventKind, str]:
    """Return the kind of a change for the history, and its reason.

    If the instance was silent before, the reason says so too; it is the kind when nothing more important has changed. A
    lapsed endpoint gets its lease back whatever it reports; a suspect was served all along.
    """
    before, back = row.registration, _return(row)
    if registration.draining and not before.draining:
        return "drained", "; ".join(["its instance drains", *back])
    if registration.health is not before.health:
        health = f"{before.health.value} to {registration.health.value}: {registration.detail or 'no detail given'}"
        return "returned" if row.lapsed_at is not None else "health", "; ".join([health, *back])
    if back:
        return "returned", back[0]
    fields: list[str] = [
        name
        for name in registration.__struct_fields__
        if _value(registration, name) != _value(before, name) and name != "detail"
    ]
    if owner != row.owner:
        fields.append("owner" if row.owner else f"owner {owner}")
    return "changed", ", ".join(fields) or "detail"


def _return(row: Endpoint) -> list[str]:
    """Return the state that a heartbeat ends, in words: lapsed or suspect; empty: neither."""
    if row.lapsed_at is not None:
        return ["a heartbeat came after the lease had expired"]
    return ["a heartbeat came while the guard kept it served"] if row.suspect_since is not None else []


def _value(registration: Registration, name: str) -> Any:  # noqa: ANN401  # a field of any type
    return getattr(registration, name)


def calendar_time(seconds: float) -> str:
    """Return a time in UTC; Python's calendar ends with the year 9999."""
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError):
        return "after the year 9999"
