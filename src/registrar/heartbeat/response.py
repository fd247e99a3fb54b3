"""What the answer to one heartbeat does to its endpoint, and which of it is worth a line in the log."""

from collections.abc import Iterable

import structlog

from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.lease import RefusalEffect
from registrar.registry_client.client import overloaded
from wire.model import Grant, Heartbeat, HeartbeatResult
from wire.problem import Problem

_EMPTY = Problem("empty answer", 502, "the registry sent neither a grant nor a problem")

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


def apply_response(endpoint: Endpoint, beat: Heartbeat, answer: HeartbeatResult, now: float) -> RefusalEffect | None:
    """Apply ``answer`` to ``endpoint``; None when it was granted, or when it came too late.

    Args:
        endpoint: whose heartbeat it was.
        beat: what was sent, which may be older than the endpoint's state.
        answer: the registry's.
        now: monotonic seconds.
    """
    if endpoint.retired or beat.registration.incarnation != endpoint.lease.incarnation:
        # An answer to an incarnation that was over before it came says nothing about the next one.
        return None
    if answer.grant is not None:
        _grant(endpoint, beat, answer.grant, now)
        return None
    return _refuse(endpoint, beat, answer.problem or _EMPTY)


def apply_refusal(sent: Iterable[tuple[Endpoint, Heartbeat]], problem: Problem) -> None:
    """Apply the refusal of a whole request to its endpoints; it says nothing of who owns them."""
    for endpoint, beat in sent:
        endpoint.lease.problem = problem
        if beat.registration.draining:
            endpoint.drain_settled.set()


def _grant(endpoint: Endpoint, beat: Heartbeat, grant: Grant, now: float) -> None:
    before = endpoint.lease.grant
    endpoint.lease.granted(beat.registration, grant, now)
    if before is None or before.status is not grant.status:
        log.info(
            "published",
            service=beat.service,
            endpoint=beat.endpoint,
            status=grant.status,
            before=before.status if before else None,
            version=grant.version,
            incarnation=beat.registration.incarnation,
        )
    if beat.registration.draining:
        endpoint.drain_settled.set()


def _refuse(endpoint: Endpoint, beat: Heartbeat, problem: Problem) -> RefusalEffect:
    known = endpoint.lease.problem
    verdict = endpoint.lease.refused(problem)
    pointless = verdict is RefusalEffect.REFUSED and not overloaded(problem.status)
    if verdict is RefusalEffect.FENCED or (pointless and beat.registration.draining):
        endpoint.drain_settled.set()
    if verdict is RefusalEffect.FENCED or _other(known, problem):
        write = log.error if verdict is RefusalEffect.FENCED else log.warning
        write(
            verdict.name.lower(),
            service=beat.service,
            endpoint=beat.endpoint,
            meaning=verdict.value,
            status=problem.status,
            title=problem.title,
            detail=problem.detail,
            pointer=problem.pointer,
            owner=problem.owner,
            incarnation=problem.incarnation,
        )
    return verdict


def _other(known: Problem | None, problem: Problem) -> bool:
    return known is None or (known.status, known.title) != (problem.status, problem.title)
