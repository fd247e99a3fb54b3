"""The native writes: register and renew, drain, deregister, override."""

import msgspec
from fastapi import APIRouter, Request, Response

from registry.core.endpoint import Override, endpoint_key
from registry.core.override_change import OverrideChange
from registry.errors import InvalidError
from registry.http.dependencies import (
    READY,
    Actor,
    HeartbeatsPart,
    OperatorDeregistrationPart,
    RegistrationsPart,
    SilencesPart,
)
from registry.http.openapi import answers, body, problems
from registry.http.parameters import (
    EndpointName,
    Force,
    IncarnationNumber,
    InstanceId,
    Reason,
    ServiceName,
    decode,
)
from registry.http.responses import json
from registry.http.v1.heartbeats import BATCH, ENDPOINT, decode_batch, decode_registration, register_batch
from registry.http.views.endpoints import EndpointView, endpoint_view
from registry.http.views.overrides import OverrideRequest
from registry.usecases.registration import Stored
from registry.usecases.silence import Silences
from wire.model import Grant, HeartbeatBatch, HeartbeatResults, Registration

router = APIRouter(tags=["registration"], dependencies=[READY])

_override = msgspec.json.Decoder(OverrideRequest)
_override_change = msgspec.json.Decoder(OverrideChange)

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


@router.put(
    ENDPOINT,
    operation_id="register_endpoint",
    openapi_extra=body(Registration, _REGISTRATION),
    responses=answers(Grant, "Stored, and the lease is granted.", _GRANT) | problems(400, 409, 413, 422, 429, 503),
)
async def register_endpoint(
    service: ServiceName, endpoint: EndpointName, request: Request, heartbeats: HeartbeatsPart, actor: Actor
) -> Response:
    """Register an endpoint, or renew its lease. The body is the full state each time; the call is idempotent."""
    registration = decode(decode_registration, await request.body())
    return json(await heartbeats.register(actor, endpoint_key(service, endpoint), registration))


@router.post(
    BATCH,
    operation_id="send_heartbeats",
    openapi_extra=body(
        HeartbeatBatch,
        {"heartbeats": [{"service": "shop", "endpoint": "10.0.0.5:8080", "registration": _REGISTRATION}]},
    ),
    responses=answers(
        HeartbeatResults,
        "A grant or a problem for each heartbeat, in their order.",
        {"results": [{"service": "shop", "endpoint": "10.0.0.5:8080", "grant": _GRANT}]},
    )
    | problems(400, 413, 422, 503),
)
async def send_heartbeats(request: Request, heartbeats: HeartbeatsPart, actor: Actor) -> Response:
    """Register or renew several endpoints at once. 503 when nothing could be stored: then send all of it again.

    Deprecated, and read for this version alone: a body whose list is called `beats`, as registrars of the version
    before send it. Its results come as `answers`.
    """
    wording, batch = decode_batch(await request.body())
    return json(wording.results(await register_batch(heartbeats, actor, batch.heartbeats)))


@router.post(
    ENDPOINT + "/drain",
    operation_id="drain_endpoint",
    responses=answers(EndpointView, "Stored; the endpoint is out of rotation.", None)
    | problems(404, 409, 413, 422, 503),
)
async def drain_endpoint(
    service: ServiceName,
    endpoint: EndpointName,
    registrations: RegistrationsPart,
    silences: SilencesPart,
    actor: Actor,
    instance_id: InstanceId = None,
    incarnation: IncarnationNumber = None,
) -> Response:
    """Take an endpoint out of rotation for the rest of its incarnation.

    It has to serve on for the drain wait.
    """
    key = endpoint_key(service, endpoint)
    return _view(await registrations.drain(actor, key, instance_id, incarnation), silences)


@router.delete(
    ENDPOINT,
    operation_id="deregister_endpoint",
    status_code=204,
    responses=problems(404, 409, 413, 422, 503),
)
async def deregister_endpoint(  # noqa: PLR0913  # one argument a parameter, as OpenAPI shows them
    service: ServiceName,
    endpoint: EndpointName,
    registrations: RegistrationsPart,
    operator_deregistration: OperatorDeregistrationPart,
    actor: Actor,
    instance_id: InstanceId = None,
    incarnation: IncarnationNumber = None,
    reason: Reason = "",
    force: Force = False,  # a query parameter, which is always named
) -> Response:
    """Give the lease back. The endpoint is no longer routable at once, and is left out after the removal delay.

    A request that names no instance and no incarnation is an operator's: without `force`, it is refused when more of
    the service would leave in a minute than the expiry guard allows.
    """
    key = endpoint_key(service, endpoint)
    if instance_id is None and incarnation is None:
        await operator_deregistration.endpoint(actor, key, reason, force=force)
    else:
        await registrations.deregister(actor, key, instance_id, incarnation)
    return Response(status_code=204)


@router.put(
    ENDPOINT + "/override",
    operation_id="set_override",
    openapi_extra=body(OverrideRequest, {"weight": 1, "drain": False, "reason": "slow disk", "expires_in": 3600}),
    responses=answers(EndpointView, "Stored and in force.", None) | problems(400, 404, 413, 422, 503),
)
async def set_override(
    service: ServiceName,
    endpoint: EndpointName,
    request: Request,
    registrations: RegistrationsPart,
    silences: SilencesPart,
    actor: Actor,
) -> Response:
    """Set weight, canary or drain over whatever the registrar says; it survives heartbeats and re-registration.

    It replaces the override as a whole: a part that is left out is taken back. PATCH changes some parts.
    """
    wanted = decode(_override, await request.body())
    if wanted.weight is None and wanted.canary is None and not wanted.drain:
        raise InvalidError("an override sets a weight, canary or a drain; DELETE takes one back", "$")

    def replace(_before: Override | None, now: float) -> Override:
        ends = None if wanted.expires_in is None else now + wanted.expires_in
        return Override(wanted.weight, wanted.drain, actor.name, wanted.reason, now, ends, canary=wanted.canary)

    return _view(await registrations.override(actor, endpoint_key(service, endpoint), replace), silences)


@router.patch(
    ENDPOINT + "/override",
    operation_id="change_override",
    openapi_extra=body(OverrideChange, {"drain": True, "reason": "slow disk"}),
    responses=answers(EndpointView, "Stored and in force.", None) | problems(400, 404, 413, 422, 503),
)
async def change_override(
    service: ServiceName,
    endpoint: EndpointName,
    request: Request,
    registrations: RegistrationsPart,
    silences: SilencesPart,
    actor: Actor,
) -> Response:
    """Change the parts of an override that the body names and keep the others, in one transaction.

    Null takes back a weight, a canary or an end; false takes back a drain. Without any part left the override ends.
    """
    change = decode(_override_change, await request.body())
    if change.is_empty:
        raise InvalidError("a change names at least one of weight, canary, drain, reason, expires_in", "$")
    key = endpoint_key(service, endpoint)
    return _view(await registrations.override(actor, key, change.by(actor.name), change.given_reason), silences)


@router.delete(
    ENDPOINT + "/override",
    operation_id="clear_override",
    status_code=204,
    responses=problems(404, 413, 422, 503),
)
async def clear_override(
    service: ServiceName,
    endpoint: EndpointName,
    registrations: RegistrationsPart,
    actor: Actor,
    reason: Reason = "",
) -> Response:
    """Take an override back, also one whose endpoint is not listed any more. The registrar's word counts again."""
    await registrations.clear_override(actor, endpoint_key(service, endpoint), reason)
    return Response(status_code=204)


def _view(stored: Stored, silences: Silences) -> Response:
    silence = silences.with_lease(stored.endpoint, stored.lease)
    return json(endpoint_view(stored.endpoint, stored.lease, silence))
