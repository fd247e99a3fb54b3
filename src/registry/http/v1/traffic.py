"""The routes of traffic: the digests of registrars, and the figures that they come to."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from registry import metrics
from registry.cooperative import in_turns
from registry.core.traffic import Window
from registry.core.traffic_digest import check_size
from registry.errors import RegistryError
from registry.http.dependencies import READY, Reader, TrafficPart
from registry.http.openapi import answers, body, problems
from registry.http.parameters import decode, printable_filter
from registry.http.responses import json
from registry.http.views.traffic import RoutesView, TrafficView, routes_view_in_steps, traffic_view_in_steps
from registry.usecases.traffic import MAX_PAIRS
from wire.traffic_digest import MAX_DIGEST_BYTES, DigestAnswer, TrafficDigest

router = APIRouter(tags=["traffic"])

PATH = "/v1/traffic"

_digest = msgspec.json.Decoder(TrafficDigest)
_PAIRS = 1_000
"""Pairs of an answer where the request does not say how many."""
_DIGEST = {
    "caller": "shop",
    "node": "i-0abc",
    "zone": "ap-northeast-1a",
    "seconds": 10.0,
    "sequence": 17,
    "edges": [["payments", [240, 1, 3, 2, 0, 0, 0, 4, 5, 5, 6], [0, 12, 9, 31, 17, 8]]],
    "routes": [["payments", "refund", [40, 0, 1], [17, 40]]],
}

_Window = Annotated[Window, Query(description="How far back.")]
_Name = Annotated[str | None, Query(max_length=255)]


def read_digest(body: bytes) -> TrafficDigest | None:
    """Return a digest for the fast protocol; None if the route has to say what is wrong with it."""
    if len(body) > MAX_DIGEST_BYTES:
        return None
    try:
        return _digest.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@router.post(
    PATH,
    operation_id="report_traffic",
    openapi_extra=body(TrafficDigest, _DIGEST),
    responses=answers(DigestAnswer, "Taken.", {}) | problems(400, 413, 422, 429, 503),
)
async def report_traffic(request: Request, traffic: TrafficPart, reader: Reader) -> Response:
    """Add the digest of an Envoy's statistics, which the registrar beside it sends each ten seconds.

    It is best effort: one that is lost is never sent again, and one that is repeated to the same process counts once.
    Its sender needs the right to register the caller. A digest that breaks a rule changes nothing. Nor does one that is
    refused with 429: its Envoy sends too often, or its principal has sent more than its part.
    """
    sent = await request.body()
    try:
        check_size(sent)
        digest = decode(_digest, sent)
    except RegistryError:
        metrics.TRAFFIC_DIGESTS.labels("refused").inc()
        raise
    return json(traffic.take(reader, digest))


@router.get(
    PATH,
    operation_id="get_traffic",
    dependencies=[READY],
    responses=answers(TrafficView, "The pairs, by caller and callee.", None) | problems(422, 503),
)
async def get_traffic(  # one argument a filter, as OpenAPI shows them
    traffic: TrafficPart,
    reader: Reader,
    window: _Window = "1m",
    caller: _Name = None,
    callee: _Name = None,
    by: Annotated[
        Literal["service", "location"],
        Query(description="`location` tells the caller's Envoys of each region and zone apart."),
    ] = "service",
    limit: Annotated[int, Query(ge=1, le=MAX_PAIRS, description="Pairs of the answer.")] = _PAIRS,
) -> Response:
    """Return who calls whom: requests a second, success, latency, and why requests failed.

    The figures are those of the callers' Envoys. A pair is listed for an hour after its last request; without requests
    in the window its success is null.
    """
    figures = await traffic.pairs(
        reader,
        window,
        printable_filter("caller", caller),
        printable_filter("callee", callee),
        by_location=by == "location",
        limit=limit,
    )
    return json(await in_turns(traffic_view_in_steps(window, figures)))


@router.get(
    "/v1/traffic/routes",
    operation_id="get_route_traffic",
    dependencies=[READY],
    responses=answers(RoutesView, "The routes, by caller and route.", None) | problems(422, 503),
)
async def get_route_traffic(
    traffic: TrafficPart,
    reader: Reader,
    callee: Annotated[str, Query(max_length=255)],
    window: _Window = "1m",
    caller: _Name = None,
) -> Response:
    """Return the traffic of each route to a service, where routes have a `stat_prefix`."""
    name = printable_filter("callee", callee) or ""
    routes = await traffic.routes(reader, window, name, printable_filter("caller", caller))
    return json(await in_turns(routes_view_in_steps(window, name, routes)))
