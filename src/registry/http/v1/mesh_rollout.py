"""Routes of the roll-outs of the mesh configuration: how far they are, promote, pause and resume."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta, Struct

from registry.core.rollout import RolloutView, view_of
from registry.http.dependencies import READY, Actor, MeshRolloutPart, Reader
from registry.http.openapi import answers, body, problems
from registry.http.parameters import decode
from registry.http.responses import json
from registry.http.views.epoch import Epoch

router = APIRouter(tags=["mesh"], dependencies=[READY])

Number = Annotated[int, Path(ge=1, lt=10**18, description="The number of the revision.")]


class RolloutOrder(Struct, forbid_unknown_fields=True, frozen=True):
    """Why a roll-out is promoted, paused or resumed."""

    reason: Annotated[str, Meta(max_length=1_000)] = ""


class GatewayView(Struct, frozen=True):
    """A gateway that was compiled again, because the services that it selects have changed."""

    node_cluster: str
    at: Epoch
    envoy: Annotated[list[str], Meta(description="The versions of Envoy that have accepted it; none: it is unproven.")]


class GatewayRefusalView(Struct, frozen=True):
    """A gateway, or one service of it, that does not follow the services that are registered."""

    gateway: Annotated[str, Meta(description="The gateway; empty: all of them.")]
    service: Annotated[
        str,
        Meta(description="The service, served as it was, or not yet; empty: the gateway keeps all that it has."),
    ]
    reason: str
    since: Epoch


class RolloutDocument(Struct, frozen=True):
    """How far the roll-outs of the mesh configuration are."""

    revision: Annotated[int, Meta(description="The newest revision; 0: there is none.")]
    shares: Annotated[
        dict[str, float], Meta(description="Services of which this percentage of node ids is served a newer revision.")
    ]
    rollouts: Annotated[list[RolloutView], Meta(description="Those under way, by service; the others are done.")]
    gateways: Annotated[
        list[GatewayView], Meta(description="Gateways of this revision that were compiled again, for other services.")
    ]
    gateways_refused: Annotated[
        list[GatewayRefusalView],
        Meta(description="Gateways, and services of them, that were refused when they were compiled again."),
    ]


class OrderView(Struct, frozen=True):
    """The services that an order concerns."""

    revision: int
    nodes: list[str]


_order = msgspec.json.Decoder(RolloutOrder)
_LAGGARD = {
    "node_id": "web/task-1",
    "address": "10.0.0.5",
    "kind": "clusters",
    "name": "",
    "reason": "has not shown the new clusters",
    "refuses": False,
}
_ROLLOUT: dict[str, Any] = {
    "node_cluster": "web",
    "share": 0.0,
    "revision": 8,
    "step": 1,
    "steps": [1, 2, 3],
    "since": 1764400000.0,
    "waited": 1.5,
    "deadline": 60.0,
    "state": "paused",
    "reason": "web/task-1 at 10.0.0.5 has not shown the new clusters",
    "awaited": [_LAGGARD],
    "awaited_count": 1,
    "left_behind": [],
    "paused_by": "ada",
    "paused_reason": "INC-42",
    "paused_at": 1764400030.0,
}
_GATEWAY = {"node_cluster": "grpc-staging", "at": 1764400900.0, "envoy": ["1.40.0"]}
_REFUSED = {
    "gateway": "grpc-staging",
    "service": "shop",
    "reason": "gateways/grpc-staging.yaml: Envoy refuses the cluster 'shop' of grpc-staging: …",
    "since": 1764401000.0,
}
_EXAMPLE = {
    "revision": 8,
    "shares": {},
    "rollouts": [_ROLLOUT],
    "gateways": [_GATEWAY],
    "gateways_refused": [_REFUSED],
}
_ORDERED = {"revision": 8, "nodes": ["web"]}
_REASON = {"reason": "the share has no errors for an hour"}


@router.get(
    "/v1/mesh/rollout",
    operation_id="get_mesh_rollout",
    responses=answers(RolloutDocument, "How far each service is.", _EXAMPLE) | problems(413, 503),
)
async def get_mesh_rollout(mesh: MeshRolloutPart, reader: Reader) -> Response:
    """Return the step of each service that is being rolled out, which Envoys it waits for, and why."""
    overview = await mesh.overview(reader)
    views = [view_of(row) for row in overview.rollouts]
    return json(
        RolloutDocument(
            overview.revision,
            dict(overview.shares),
            views,
            [GatewayView(each.node_cluster, each.at, list(each.envoy)) for each in overview.gateways.recompiled],
            [
                GatewayRefusalView(each.gateway, each.service, each.reason, each.since)
                for each in overview.gateways.refusals
            ],
        )
    )


@router.post(
    "/v1/mesh/revisions/{number}/promote",
    operation_id="promote_mesh",
    openapi_extra=body(RolloutOrder, _REASON),
    responses=answers(OrderView, "Its roll-out to all has begun.", _ORDERED) | problems(400, 413, 422, 503),
)
async def promote_mesh(number: Number, request: Request, mesh: MeshRolloutPart, actor: Actor) -> Response:
    """Roll a revision that a share of the Envoys has out to all of them."""
    order = decode(_order, await request.body() or b"{}")
    return json(OrderView(number, await mesh.promote(actor, number, order.reason)))


@router.post(
    "/v1/mesh/revisions/{number}/pause",
    operation_id="pause_mesh",
    openapi_extra=body(RolloutOrder, {"reason": "errors at web"}),
    responses=answers(OrderView, "It goes no further.", _ORDERED) | problems(400, 413, 422, 503),
)
async def pause_mesh(number: Number, request: Request, mesh: MeshRolloutPart, actor: Actor) -> Response:
    """Let the roll-out of a revision stay at its step; what is served stays as it is."""
    order = decode(_order, await request.body() or b"{}")
    return json(OrderView(number, await mesh.pause(actor, number, order.reason)))


@router.post(
    "/v1/mesh/revisions/{number}/resume",
    operation_id="resume_mesh",
    openapi_extra=body(RolloutOrder, {"reason": "errors were of something else"}),
    responses=answers(OrderView, "It goes on.", _ORDERED) | problems(400, 413, 422, 503),
)
async def resume_mesh(number: Number, request: Request, mesh: MeshRolloutPart, actor: Actor) -> Response:
    """Let a paused roll-out go on, with the whole time of its step."""
    order = decode(_order, await request.body() or b"{}")
    return json(OrderView(number, await mesh.resume(actor, number, order.reason)))
