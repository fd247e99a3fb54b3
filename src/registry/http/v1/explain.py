"""Answers to the two questions of an incident: why is it not served, and what was there at that time."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.core.endpoint import Endpoint, Key, Quarantined
from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.core.explain import Circumstances, Explanation, explain
from registry.core.history import EventFilter, RecordedEvent
from registry.core.lease import Lease
from registry.errors import NotFoundError
from registry.http.parameters import EndpointName, ReadyReplica, ServiceName, endpoint_key
from registry.http.views import (
    ExplanationView,
    StandingList,
    StandingView,
    answers,
    endpoint_view,
    event_view,
    json,
    problems,
)
from registry.process import RegistryProcess
from registry.store import history, leases, pauses
from registry.store.database import read_clock
from wire.address import format_endpoint

router = APIRouter(tags=["history"])

_EVENTS = 50


@router.get(
    "/v1/services/{service}/endpoints/{endpoint}/explain",
    operation_id="explain_endpoint",
    responses=answers(ExplanationView, "Why, in words, with what happened.", None) | problems(404, 413, 422, 503),
)
async def explain_endpoint(service: ServiceName, endpoint: EndpointName, process: ReadyReplica) -> Response:
    """Say why an endpoint is, or is not, getting traffic, what happened to it, and what would change it."""
    return json(await explained(process, endpoint_key(service, endpoint)))


async def explained(process: RegistryProcess, key: Key) -> ExplanationView:
    """Explain an endpoint with all that PostgreSQL knows of it.

    Raises:
        NotFoundError: it was never registered, or longer ago than history is kept.
        UnavailableError: PostgreSQL is away.
    """
    wanted = EventFilter(service=key[0], address_port=key[1:], limit=_EVENTS)
    async with process.history_turns:
        events = list(reversed(await history.find_events(process.database, wanted)))
    found = process.cache.find(key)
    if found is not None:
        return _view(key, found, explain(found, await _circumstances(process, found)), process, events)
    quarantined_row = process.cache.get(key[0]).quarantined.get(key[1:])
    if quarantined_row is not None:
        return _view(key, None, _quarantined(quarantined_row), process, events)
    if not events:
        name = format_endpoint(*key[1:])
        raise NotFoundError(f"{name} was never registered for {key[0]}, or longer ago than history is kept")
    return _view(key, None, _departed(events[-1]), process, events)


def explained_from_memory(process: RegistryProcess, key: Key, now: float) -> ExplanationView:
    """Explain an endpoint by what this process knows, without pauses and history: PostgreSQL is away.

    Args:
        process: this process.
        key: service, address and port.
        now: the database's time, as this process last measured it.

    Raises:
        NotFoundError: it is not listed.
    """
    found = process.cache.find(key)
    quarantined_row = process.cache.get(key[0]).quarantined.get(key[1:])
    if found is not None:
        around = _around(process, found, now=now, lease=process.cache.leases.get(found.id), pause=None)
        return _view(key, found, explain(found, around), process, [])
    if quarantined_row is not None:
        return _view(key, None, _quarantined(quarantined_row), process, [])
    raise NotFoundError(f"{format_endpoint(*key[1:])} is not listed for {key[0]}; its history is in PostgreSQL")


@router.get(
    "/v1/services/{service}/history",
    operation_id="list_past_endpoints",
    responses=answers(
        StandingList,
        "What was listed then.",
        {
            "service": "shop",
            "at": 1_763_600_000.0,
            "endpoints": [
                {
                    "endpoint": "10.0.0.5:8080",
                    "instance_id": "i-0abc",
                    "status": "HEALTHY",
                    "since": 1_763_599_000.0,
                    "reason": "first registration as HEALTHY",
                }
            ],
        },
    )
    | problems(404, 413, 422, 503),
)
async def list_past_endpoints(
    service: ServiceName,
    process: ReadyReplica,
    at: Annotated[float, Query(ge=0, le=1e11, description="Seconds since 1970, as far back as history is kept.")],
) -> Response:
    """Return the endpoints of a service as they were at a past time."""
    if not process.cache.knows(service):
        raise NotFoundError(f"service {service} never had an endpoint, or is forgotten")
    async with process.history_turns:
        standing = await history.latest_events_at(process.database, service, at)
    return json(StandingList(service, at, [_standing(one) for one in standing]))


async def _circumstances(process: RegistryProcess, endpoint: Endpoint) -> Circumstances:
    async with process.database.session() as connection:
        in_force = await pauses.in_force(connection)
        lease = await leases.lease_of(connection, endpoint.id)
        now = await read_clock(connection)
    pause = in_force.get(endpoint.service) or in_force.get(EVERYWHERE)
    return _around(process, endpoint, now=now, lease=lease, pause=pause)


def _around(
    process: RegistryProcess, endpoint: Endpoint, *, now: float, lease: Lease | None, pause: Pause | None
) -> Circumstances:
    siblings = process.cache.get(endpoint.service).endpoints.values()
    return Circumstances(
        now=now,
        lease=lease,
        pause=pause,
        has_routable=any(one.routable for one in siblings),
        removal_delay=process.settings.removal_delay,
        last_hold=process.settings.last_endpoint_hold,
    )


def _departed(last: RecordedEvent) -> Explanation:
    because = [f"it is not listed; last: {last.kind}: {last.reason} (by {last.actor})"]
    return Explanation(served=False, because=because, would_change=["a registration by an instance that has not left"])


def _quarantined(quarantined_row: Quarantined) -> Explanation:
    because = [f"it is quarantined, since Envoy would reject the whole answer for it: {quarantined_row.reason}"]
    return Explanation(served=False, because=because, would_change=["a registration of the address by an instance"])


def _view(
    key: Key, endpoint: Endpoint | None, told: Explanation, process: RegistryProcess, events: Sequence[RecordedEvent]
) -> ExplanationView:
    lease = None if endpoint is None else process.cache.leases.get(endpoint.id)
    return ExplanationView(
        service=key[0],
        endpoint=format_endpoint(*key[1:]),
        listed=endpoint is not None,
        served=told.served,
        status=None if endpoint is None else endpoint.status.value,
        because=told.because,
        would_change=told.would_change,
        now=None if endpoint is None else endpoint_view(endpoint, lease),
        events=[event_view(one) for one in events],
    )


def _standing(one: RecordedEvent) -> StandingView:
    endpoint = format_endpoint(one.address or "", one.port or 0)
    return StandingView(endpoint, one.instance_id, one.status, one.at, one.reason)
