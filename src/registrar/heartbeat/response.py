"""The effect of a response on the endpoint whose heartbeat it answers, and its log events."""

from collections.abc import Iterable

from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.lease import RefusalEffect
from registrar.event_log import EventLogger
from registrar.registry_client.response import overloaded
from wire.model import Grant, Heartbeat, HeartbeatResult
from wire.problem import Problem

_EMPTY = Problem("empty answer", 502, "the registry sent neither a grant nor a problem")
_EVENTS = {
    RefusalEffect.RAISED: "incarnation_raised",
    RefusalEffect.REFUSED: "heartbeat_refused",
    RefusalEffect.FENCED: "endpoint_fenced",
}

log = EventLogger(__name__)


def apply_result(endpoint: Endpoint, heartbeat: Heartbeat, result: HeartbeatResult, now: float) -> RefusalEffect | None:
    """Apply ``result`` to ``endpoint`` and return the effect of a refusal; None for a grant or a late response.

    Args:
        endpoint: the endpoint of the heartbeat.
        heartbeat: the heartbeat that was sent; the endpoint's state may be newer.
        result: the registry's response to it.
        now: monotonic seconds.
    """
    if endpoint.retired or heartbeat.registration.incarnation != endpoint.lease.incarnation:
        # The response is for an incarnation that has ended; it says nothing about the next one.
        return None
    if result.grant is not None:
        _grant(endpoint, heartbeat, result.grant, now)
        return None
    return _refuse(endpoint, heartbeat, result.problem or _EMPTY)


def apply_refusal(sent: Iterable[tuple[Endpoint, Heartbeat]], problem: Problem) -> None:
    """Apply the refusal of a whole request to its endpoints; it does not say who owns them."""
    for endpoint, heartbeat in sent:
        endpoint.lease.problem = problem
        if heartbeat.registration.draining:
            endpoint.drain_settled.set()


def _grant(endpoint: Endpoint, heartbeat: Heartbeat, grant: Grant, now: float) -> None:
    before = endpoint.lease.grant
    endpoint.lease.granted(heartbeat.registration, grant, now)
    if before is None or before.status is not grant.status:
        log.info(
            "endpoint_published",
            service=heartbeat.service,
            endpoint=heartbeat.endpoint,
            status=grant.status,
            before=before.status if before else None,
            version=grant.version,
            incarnation=heartbeat.registration.incarnation,
        )
    if heartbeat.registration.draining:
        endpoint.drain_settled.set()


def _refuse(endpoint: Endpoint, heartbeat: Heartbeat, problem: Problem) -> RefusalEffect:
    before = endpoint.lease.problem
    effect = endpoint.lease.refused(problem)
    final = effect is RefusalEffect.REFUSED and not overloaded(problem.status)
    if effect is RefusalEffect.FENCED or (final and heartbeat.registration.draining):
        endpoint.drain_settled.set()
    if effect is RefusalEffect.FENCED or _is_new(before, problem):
        write = log.error if effect is RefusalEffect.FENCED else log.warning
        write(
            _EVENTS[effect],
            service=heartbeat.service,
            endpoint=heartbeat.endpoint,
            meaning=effect.value,
            status=problem.status,
            title=problem.title,
            detail=problem.detail,
            pointer=problem.pointer,
            owner=problem.owner,
            incarnation=problem.incarnation,
        )
    return effect


def _is_new(before: Problem | None, problem: Problem) -> bool:
    return before is None or (before.status, before.title) != (problem.status, problem.title)
