"""The native writes: register and renew, drain, deregister, override."""

import asyncio

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec.structs import replace

from registry.api.auth import Asking
from registry.api.documents import (
    EndpointView,
    OverrideRequest,
    answers,
    body,
    endpoint_view,
    json,
    problems,
)
from registry.api.parameters import (
    EndpointName,
    IncarnationNumber,
    InstanceId,
    ReadyReplica,
    ServiceName,
    decode,
    endpoint_key,
)
from registry.api.problems import problem_for
from registry.endpoint import Key, Override
from registry.errors import InvalidError, RegistryError, UnavailableError
from registry.leases import interval
from registry.registrations import Stored
from registry.replica import Replica
from wire.model import Beat, BeatAnswer, Grant, Heartbeats, HeartbeatsAnswer, Registration

router = APIRouter(tags=["registration"])

_registration = msgspec.json.Decoder(Registration)
_heartbeats = msgspec.json.Decoder(Heartbeats)
_override = msgspec.json.Decoder(OverrideRequest)

_REGISTRATION = {
    "instance_id": "i-0abc",
    "incarnation": 1_763_600_000_000,
    "health": "HEALTHY",
    "revision": "1.8.2",
    "region": "ap-northeast-1",
    "zone": "ap-northeast-1a",
    "weight": 10,
    "metadata": {"stage": "blue"},
}
_GRANT = {
    "service": "shop",
    "endpoint": "10.0.0.5:8080",
    "status": "HEALTHY",
    "version": 7,
    "ttl": 20.0,
    "interval": 5.0,
    "drain_wait": 12.0,
}
_PATH = "/v1/services/{service}/endpoints/{endpoint}"


@router.put(
    _PATH,
    operation_id="register_endpoint",
    openapi_extra=body(Registration, _REGISTRATION),
    responses=answers(Grant, "Stored, and the lease is granted.", _GRANT) | problems(400, 409, 413, 422, 503),
)
async def register_endpoint(
    service: ServiceName, endpoint: EndpointName, request: Request, replica: ReadyReplica, asking: Asking
) -> Response:
    """Register an endpoint, or renew its lease. The body is the full state each time; the call is idempotent."""
    told = decode(_registration, await request.body())
    return json(await _register(replica, endpoint_key(service, endpoint), told, asking.name))


@router.post(
    "/v1/heartbeats",
    operation_id="send_heartbeats",
    openapi_extra=body(
        Heartbeats,
        {"beats": [{"service": "shop", "endpoint": "10.0.0.5:8080", "registration": _REGISTRATION}]},
    ),
    responses=answers(
        HeartbeatsAnswer,
        "A grant or a problem for each beat, in their order.",
        {"answers": [{"service": "shop", "endpoint": "10.0.0.5:8080", "grant": _GRANT}]},
    )
    | problems(400, 413, 422, 503),
)
async def send_heartbeats(request: Request, replica: ReadyReplica, asking: Asking) -> Response:
    """Register or renew several endpoints at once. 503 when nothing could be stored: then send all of it again."""
    heartbeats = decode(_heartbeats, await request.body())
    told = await asyncio.gather(*(_beat(replica, beat, asking.name) for beat in heartbeats.beats))
    return json(HeartbeatsAnswer(list(told)))


@router.post(
    _PATH + "/drain",
    operation_id="drain_endpoint",
    responses=answers(EndpointView, "Stored; the endpoint is out of rotation.", None)
    | problems(404, 409, 413, 422, 503),
)
async def drain_endpoint(
    service: ServiceName,
    endpoint: EndpointName,
    replica: ReadyReplica,
    asking: Asking,
    instance_id: InstanceId = None,
    incarnation: IncarnationNumber = None,
) -> Response:
    """Take an endpoint out of rotation for the rest of its incarnation. It has to serve on for the drain wait."""
    key = endpoint_key(service, endpoint)
    return _view(replica, await replica.registrations.drain(key, instance_id, incarnation, asking.name))


@router.delete(
    _PATH,
    operation_id="deregister_endpoint",
    status_code=204,
    responses=problems(404, 409, 413, 422, 503),
)
async def deregister_endpoint(
    service: ServiceName,
    endpoint: EndpointName,
    replica: ReadyReplica,
    asking: Asking,
    instance_id: InstanceId = None,
    incarnation: IncarnationNumber = None,
) -> Response:
    """Give the lease back. The endpoint is no longer routable at once, and is left out after the removal delay."""
    key = endpoint_key(service, endpoint)
    await replica.registrations.deregister(key, instance_id, incarnation, asking.name)
    return Response(status_code=204)


@router.put(
    _PATH + "/override",
    operation_id="set_override",
    openapi_extra=body(OverrideRequest, {"weight": 1, "drain": False, "reason": "slow disk", "expires_in": 3600}),
    responses=answers(EndpointView, "Stored and in force.", None) | problems(400, 404, 413, 422, 503),
)
async def set_override(
    service: ServiceName, endpoint: EndpointName, request: Request, replica: ReadyReplica, asking: Asking
) -> Response:
    """Set weight, canary or drain over whatever the registrar says; it survives heartbeats and re-registration."""
    wanted = decode(_override, await request.body())
    if wanted.weight is None and wanted.canary is None and not wanted.drain:
        raise InvalidError("an override sets a weight, canary or a drain; DELETE takes one back", "$")

    def judge(_before: Override | None, now: float) -> Override:
        ends = None if wanted.expires_in is None else now + wanted.expires_in
        return Override(wanted.weight, wanted.drain, asking.name, wanted.reason, now, ends, canary=wanted.canary)

    return _view(replica, await replica.registrations.override(endpoint_key(service, endpoint), judge, asking.name))


@router.delete(
    _PATH + "/override",
    operation_id="clear_override",
    status_code=204,
    responses=problems(404, 413, 422, 503),
)
async def clear_override(
    service: ServiceName, endpoint: EndpointName, replica: ReadyReplica, asking: Asking
) -> Response:
    """Take an override back, also one whose endpoint is not listed any more. The registrar's word counts again."""
    await replica.registrations.clear_override(endpoint_key(service, endpoint), asking.name)
    return Response(status_code=204)


async def _beat(replica: Replica, beat: Beat, actor: str) -> BeatAnswer:
    try:
        key = endpoint_key(beat.service, beat.endpoint)
        return BeatAnswer(beat.service, beat.endpoint, await _register(replica, key, beat.registration, actor))
    except UnavailableError:
        # The whole request is to be sent again, and by its status a proxy or a client library can tell.
        raise
    except RegistryError as error:
        return BeatAnswer(beat.service, beat.endpoint, problem=problem_for(error))


async def _register(replica: Replica, key: Key, told: Registration, actor: str) -> Grant:
    ttl = told.ttl or replica.settings.lease_ttl
    stored = await replica.registrations.register(key, replace(told, ttl=ttl), actor)
    return Grant(
        service=key[0],
        endpoint=stored.endpoint.name,
        status=stored.endpoint.status,
        version=stored.version,
        ttl=ttl,
        interval=interval(ttl),
        drain_wait=replica.settings.drain_wait,
    )


def _view(replica: Replica, stored: Stored) -> Response:
    return json(endpoint_view(stored.endpoint, replica.directory.leases.get(stored.endpoint.id)))
