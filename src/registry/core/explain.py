"""Why an endpoint is, or is not, getting traffic: the rules of `endpoint` and `leases`, said in words."""

from msgspec import Struct

from registry.core.endpoint import Endpoint
from registry.core.expiry_guard import Pause
from registry.core.lease import Lease
from wire.duration import format_duration
from wire.model import Health


class Circumstances(Struct, frozen=True):
    """What lies outside of the endpoint itself and still decides what becomes of it.

    Attributes:
        now: the database's time.
        lease: None if it has none any more.
        pause: what keeps leases from lapsing in this service.
        has_routable: whether the service has any endpoint that may receive traffic.
        removal_delay: seconds for which it stays listed once it is out of rotation.
        last_hold: seconds for which a lapsed endpoint stays when there is nothing better.
    """

    now: float
    lease: Lease | None
    pause: Pause | None
    has_routable: bool
    removal_delay: float
    last_hold: float


class Explanation(Struct, frozen=True):
    """An answer for a person at night."""

    served: bool
    because: list[str]
    would_change: list[str]


def explain(endpoint: Endpoint, around: Circumstances) -> Explanation:
    """Say why ``endpoint`` is or is not served, the deciding reason first, and what would change it."""
    because = [_verdict(endpoint), *_lease(endpoint, around), *_guard(endpoint, around), *_override(endpoint, around)]
    return Explanation(endpoint.routable, because, _would_change(endpoint, around))


def _verdict(endpoint: Endpoint) -> str:
    told = endpoint.registration
    said = f" ({told.detail})" if told.detail else ""
    if endpoint.leaving_at is not None:
        return f"it was deregistered and is published as {endpoint.status.value} until it is left out"
    if told.draining:
        return f"its instance, or somebody on its behalf, drained incarnation {told.incarnation} of {told.instance_id}"
    if endpoint.override is not None and endpoint.override.drain:
        return f"an operator drained it: {endpoint.override.reason or 'no reason given'}"
    if endpoint.status is Health.TIMEOUT:
        return f"no heartbeat of {told.instance_id} came within its lease of {format_duration(told.ttl or 0)}"
    return f"its registrar reports {told.health.value}{said}"


def _lease(endpoint: Endpoint, around: Circumstances) -> list[str]:
    if around.lease is None:
        gone = endpoint.lapsed_at is not None or endpoint.leaving_at is not None
        return [] if gone else ["it holds no lease any more"]
    left = around.lease.expires_at - around.now
    heard = format_duration(max(0.0, round(around.now - around.lease.renewed_at, 1)))
    if left < 0:
        return [f"its lease expired {format_duration(round(-left, 1))} ago; last heard of {heard} ago"]
    return [f"its lease has {format_duration(round(left, 1))} left; last heard of {heard} ago"]


def _guard(endpoint: Endpoint, around: Circumstances) -> list[str]:
    said = []
    if endpoint.suspect_since is not None:
        said.append(f"its lease expired, but it is kept served: {endpoint.suspect_reason}")
    if around.pause is not None:
        left = format_duration(max(0.0, round(around.pause.until - around.now)))
        said.append(f"expiry is paused by {around.pause.actor} for another {left}: {around.pause.reason}")
    return said


def _override(endpoint: Endpoint, around: Circumstances) -> list[str]:
    override = endpoint.override
    if override is None:
        return []
    parts = ["drain"] if override.drain else []
    if override.weight is not None:
        parts.append(f"weight {override.weight}")
    if override.canary is not None:
        parts.append("canary" if override.canary else "no canary")
    ends = ""
    if override.expires_at is not None:
        ends = f", for another {format_duration(max(0, round(override.expires_at - around.now)))}"
    return [f"{override.actor} overrides {' and '.join(parts)}{ends}: {override.reason or 'no reason given'}"]


def _would_change(endpoint: Endpoint, around: Circumstances) -> list[str]:
    if endpoint.leaving_at is not None:
        return [_removal(endpoint, around), "a newer incarnation that registers brings it back"]
    if endpoint.registration.draining:
        return ["a newer incarnation that registers; a drain is final for this one"]
    if endpoint.override is not None and endpoint.override.drain:
        return ["taking the override back (DELETE .../override)"]
    if endpoint.lapsed_at is not None:
        return ["a heartbeat of its instance", _removal(endpoint, around)]
    if not endpoint.routable:
        return ["its registrar reporting HEALTHY: look at the check, at the app, then at the registrar's log"]
    return ["a failing check, a drain, a deregistration, or silence for the length of its lease"]


def _removal(endpoint: Endpoint, around: Circumstances) -> str:
    since = endpoint.unroutable_at or around.now
    due = since + around.removal_delay
    held = endpoint.leaving_at is None and not around.has_routable and endpoint.lapsed_at is not None
    if held and endpoint.lapsed_at is not None:
        due = max(due, endpoint.lapsed_at + around.last_hold)
    left = format_duration(max(0.0, round(due - around.now)))
    why = ", since the service has nothing better" if held else ""
    return f"it is left out of the answers in {left}{why}"
