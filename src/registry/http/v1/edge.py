"""The route by which the edges of registrars ask for everything that the Envoys beside them hold."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from registry.http.dependencies import READY, EdgePart, Reader
from registry.http.lists.document import conditions_of
from registry.http.openapi import answers, body, problems
from registry.http.parameters import decode, subscriber_address
from registry.xds.discovery import REFUSED
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.edge_answer import EdgeResponse
from wire.edge_assignments import EDGE_PATH, EdgeAnswer, EdgeQuestion

router = APIRouter(tags=["discovery"], dependencies=[READY])

_question = msgspec.json.Decoder(EdgeQuestion)

_REFUSAL_HOLD = "12000"
"""Milliseconds for which an edge waits for its answer; a refusal is held for less."""
_EXAMPLE = {
    "node": "i-0abc",
    "cluster": "web",
    "zone": "ap-northeast-1a",
    "held": {"shop": "5f0c1a9e:6", "user": ""},
    "taken": [{"node": "i-0abc", "service": "shop", "version": "5f0c1a9e:6"}],
}
_ANSWER = {"assignments": {"shop": {"version_info": "5f0c1a9e:7", "assignment": {"cluster_name": "shop"}}}}
_ANSWERS: dict[int | str, Any] = answers(EdgeAnswer, "Everything that the edge does not hold.", _ANSWER) | {
    304: {"description": "Everything that the edge holds is current."}
}


@router.post(
    EDGE_PATH,
    operation_id="fetch_edge_assignments",
    openapi_extra=body(EdgeQuestion, _EXAMPLE),
    responses=_ANSWERS | problems(400, 412, 413, 422, 503),
)
async def fetch_edge_assignments(request: Request, edge: EdgePart, reader: Reader) -> Response:
    """Return what the edge of a registrar does not hold yet.

    An edge is the discovery cache of the Envoys beside a registrar. While there is nothing new, the request is held for
    at most ten seconds.
    """
    poll = edge.read(reader, decode(_question, await request.body()))
    peer = subscriber_address(request.headers.get("x-forwarded-for"), request.client)
    try:
        response = edge.now(poll, peer) or await edge.later(poll)
    except REFUSED:
        await edge.held_polls.delay_refusal(reader.address, _REFUSAL_HOLD)
        raise
    return _represented(response, gzip=conditions_of(request.scope["headers"]).gzip)


def _represented(response: DiscoveryResponse, *, gzip: bool) -> Response:
    if not isinstance(response, EdgeResponse):
        return Response(status_code=response.status)
    packed = response.encoded.packed() if gzip else None
    headers = {"vary": "accept-encoding"} | ({} if packed is None else {"content-encoding": "gzip"})
    return Response(packed or response.body, 200, headers, "application/json")
