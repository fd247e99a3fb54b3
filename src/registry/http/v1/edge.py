"""The route by which the edges of registrars ask for everything that the Envoys beside them hold."""

from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from registry.http.dependencies import READY, EdgePart, Reader
from registry.http.disconnection import unless_disconnected
from registry.http.headers import JSON, Header
from registry.http.lists.document import conditions_of
from registry.http.openapi import answers, body, problems
from registry.http.parameters import decode, subscriber_address
from registry.http.requests import HELD
from registry.usecases.process_health import ProcessHealth
from registry.xds.discovery import REFUSED
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.edge_answer import EdgeResponse
from registry.xds.edge_discovery import EdgeDiscovery
from wire.edge_assignments import EDGE_PATH, EdgeAnswer, EdgeQuestion

router = APIRouter(tags=["discovery"], dependencies=[READY])

_question = msgspec.json.Decoder(EdgeQuestion)

REFUSAL_HOLD = "12000"
"""Milliseconds for which an edge waits for its answer; a refusal is held for less."""
_VARY = (b"vary", b"accept-encoding")
_GZIP = (b"content-encoding", b"gzip")
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


class EdgeQuestions:
    """Reads the questions of edges for the fast protocol, which answers them as the route does.

    Args:
        discovery: answers them.
        health: tells whether this process can.
    """

    def __init__(self, discovery: EdgeDiscovery, health: ProcessHealth) -> None:
        self.discovery = discovery
        """Answers the questions."""
        self._health = health

    def read(self, sent: bytes) -> EdgeQuestion | None:
        """Return a question; None if the route has to say what is wrong."""
        if not self._health.ready:
            return None
        try:
            return _question.decode(sent)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


def represented(response: DiscoveryResponse, *, gzip: bool) -> tuple[Sequence[Header], bytes]:
    """Return the headers and the body of an answer.

    Args:
        response: the answer.
        gzip: whether the edge takes a compressed body.
    """
    if not isinstance(response, EdgeResponse):
        return (), b""
    packed = response.encoded.packed() if gzip else None
    if packed is None:
        return (_VARY, (b"content-length", b"%d" % len(response.body)), JSON), response.body
    return (_VARY, _GZIP, (b"content-length", b"%d" % len(packed)), JSON), packed


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
        answer = edge.now(poll, peer)
    except REFUSED:
        request.scope[HELD] = True
        await unless_disconnected(edge.held_polls.delay_refusal(reader.address, REFUSAL_HOLD), request.receive)
        raise
    if answer is None:
        request.scope[HELD] = True
        # An edge that has disconnected reads no response.
        answer = await unless_disconnected(edge.later(poll), request.receive) or DiscoveryResponse(304)
    headers, content = represented(answer, gzip=conditions_of(request.scope["headers"]).gzip)
    response = Response(content, answer.status)
    response.raw_headers = list(headers)
    return response
