"""The explanation of why an endpoint is served or not: the rules of ``endpoint`` and ``lease`` in words."""

from msgspec import Struct

from registry.core.endpoint import Endpoint
from registry.core.evidence import Evidence, evidence_in_words
from registry.core.expiry_guard import Pause
from registry.core.lease import Lease
from registry.core.shares import GroupShare
from registry.core.silence import Silence, silence_in_words, silence_of, until_in_words
from wire.duration import format_duration
from wire.model import Health


class Circumstances(Struct, frozen=True):
    """The circumstances, besides the endpoint itself, that decide how it is served.

    Attributes:
        now: the database's time.
        lease: the endpoint's lease, or None.
        pause: the pause that keeps the service's endpoints from lapsing, or None.
        share: the share of its group, where its service has shares of traffic, with their author and reason.
        share_weights: the sum of the weights that shares give to the routable endpoints of the service.
        has_routable: whether the service has any endpoint that may receive traffic.
        removal_delay: seconds for which the endpoint stays listed once it is not routable.
        last_hold: seconds for which a lapsed endpoint stays while the service has no routable endpoint.
        read_ago: seconds since lease and pause were read, where they are from memory because PostgreSQL is away; None:
            they were read just now.
        evidence: the evidence of whether a silent endpoint is dead; None: it is not silent, or that is not known now.
    """

    now: float
    lease: Lease | None
    pause: Pause | None
    has_routable: bool
    removal_delay: float
    last_hold: float
    read_ago: float | None = None
    evidence: Evidence | None = None
    share: GroupShare | None = None
    share_weights: int = 0


class Explanation(Struct, frozen=True):
    """The explanation for people: whether the endpoint is served, the reasons, and what would change that."""

    served: bool
    because: list[str]
    would_change: list[str]


def explain(endpoint: Endpoint, around: Circumstances) -> Explanation:
    """Return why an endpoint is or is not served, the deciding reason first, and what would change that."""
    silence = silence_of(endpoint, around.lease, around.now, around.last_hold, around.pause)
    because = [
        _status_reason(endpoint, around) if silence is None else silence_in_words(silence, around.now),
        *_evidence(around),
        *_lease(endpoint, around),
        *_pause(around),
        *_override(endpoint, around),
        *_share(endpoint, around),
    ]
    if silence is None:
        would_change = _would_change(endpoint, around)
    else:
        would_change = _would_end_silence(endpoint, silence, around.now)
    return Explanation(endpoint.routable, because, would_change)


def _status_reason(endpoint: Endpoint, around: Circumstances) -> str:
    registration = endpoint.registration
    detail = f" ({registration.detail})" if registration.detail else ""
    if endpoint.leaving_at is not None:
        return f"it was deregistered and is published as {endpoint.status.value} until it is left out"
    if registration.draining:
        incarnation = f"incarnation {registration.incarnation} of {registration.instance_id}"
        return f"its instance, or somebody on its behalf, drained {incarnation}"
    if endpoint.override is not None and endpoint.override.drain:
        return f"an operator drained it: {endpoint.override.reason or 'no reason given'}"
    if _drained_by_share(endpoint):
        return "a share of traffic drained it" if around.share is None else around.share.in_words
    if endpoint.status is Health.TIMEOUT:
        ttl = format_duration(registration.ttl or 0)
        return f"no heartbeat of {registration.instance_id} came within its lease of {ttl}"
    return f"its registrar reports {registration.health.value}{detail}"


def _lease(endpoint: Endpoint, around: Circumstances) -> list[str]:
    if around.read_ago is not None:
        return [_lease_from_memory(endpoint, around, around.read_ago)]
    if around.lease is None:
        gone = endpoint.lapsed_at is not None or endpoint.leaving_at is not None
        return [] if gone else ["it holds no lease any more"]
    left = around.lease.expires_at - around.now
    heard = format_duration(max(0.0, round(around.now - around.lease.renewed_at, 1)))
    if left < 0:
        return [f"its lease expired {format_duration(round(-left, 1))} ago; last heard of {heard} ago"]
    return [f"its lease has {format_duration(round(left, 1))} left; last heard of {heard} ago"]


def _lease_from_memory(endpoint: Endpoint, around: Circumstances, read_ago: float) -> str:
    """Return the lease as it was read last: heartbeats since then are not known, so nothing is said of now."""
    if endpoint.lapsed_at is not None or endpoint.leaving_at is not None:
        return "it had no lease when PostgreSQL was last read"
    if around.lease is None:
        return "its lease is not known: this process has not read it from PostgreSQL"
    left = around.lease.expires_at - (around.now - read_ago)
    read = format_duration(max(0, round(read_ago)))
    state = f"had {format_duration(round(left, 1))} left" if left >= 0 else "was over"
    return f"its lease {state} when PostgreSQL was last read, {read} ago; heartbeats since then are not known"


def _evidence(around: Circumstances) -> list[str]:
    return [] if around.evidence is None else [evidence_in_words(around.evidence)]


def _pause(around: Circumstances) -> list[str]:
    if around.pause is None:
        return []
    left = format_duration(max(0.0, round(around.pause.until - around.now)))
    return [f"expiry is paused by {around.pause.actor} for another {left}: {around.pause.reason}"]


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


def _share(endpoint: Endpoint, around: Circumstances) -> list[str]:
    if around.share is None or _drained_by_share(endpoint):
        return []
    own = ""
    if endpoint.routable and endpoint.share_weight and around.share_weights:
        own = f"; it gets {100 * endpoint.share_weight / around.share_weights:.3g} % by itself"
    return [around.share.in_words + own]


def _drained_by_share(endpoint: Endpoint) -> bool:
    """Return whether nothing but the share of its group keeps an endpoint out of rotation."""
    return endpoint.share_weight == 0 and endpoint.routable_by_itself


def _would_change(endpoint: Endpoint, around: Circumstances) -> list[str]:
    if _drained_by_share(endpoint):
        return ["another share for its group, or taking the shares back (registryctl share --clear)"]
    return _would_change_by_itself(endpoint, around)


def _would_change_by_itself(endpoint: Endpoint, around: Circumstances) -> list[str]:
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


def _would_end_silence(endpoint: Endpoint, silence: Silence, now: float) -> list[str]:
    """Return what ends a silence: first what nobody has to do, then what an operator finds out and does."""
    until = until_in_words(silence, now)
    failing = "; until then Envoys send it requests, which fail" if endpoint.routable else ""
    return [
        f"a heartbeat of {endpoint.registration.instance_id}; the guard lets it lapse at {until} at the latest",
        f"look at its host. Is it dead? Deregister the endpoint{failing}",
        "does the app still serve? Then its registrar, or its way to the registry, is at fault: mend that",
        "are hosts cut off that still serve? Pause expiry, so that none lapses before the network is mended",
    ]


def _removal(endpoint: Endpoint, around: Circumstances) -> str:
    since = endpoint.unroutable_at or around.now
    due = since + around.removal_delay
    held = endpoint.leaving_at is None and not around.has_routable and endpoint.lapsed_at is not None
    if held and endpoint.lapsed_at is not None:
        due = max(due, endpoint.lapsed_at + around.last_hold)
    left = format_duration(max(0.0, round(due - around.now)))
    why = ", since the service has nothing better" if held else ""
    return f"it is left out of the answers in {left}{why}"
