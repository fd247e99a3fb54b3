"""The digest of an Envoy's statistics, as the registrar beside it sends it, and the registry's answer.

Everything in it is a difference since the digest before, except for the three states of an edge. Times are durations,
since clocks differ.
"""

from typing import Annotated

from msgspec import Meta, Struct

from wire.model import PRINTABLE_PATTERN, SERVICE_PATTERN, ServiceName

MAX_EDGES = 200
"""Callees of one digest."""
MAX_ROUTES = 200
"""Routes of one digest."""
MAX_ENDPOINTS = 200
"""Endpoints of one edge."""
MAX_DIGEST_BYTES = 64 * 1024
"""Bytes of a digest."""
LAST_BUCKET = 97
"""The bucket of the slowest requests; it begins at 10⁶ ms."""
BUCKETS_A_DECADE = 16
"""Buckets between 1 and 10 ms, and so on: each ends where the next begins, 15.5 % later."""
MAX_COUNT = 2**53
"""The largest number of a digest; readers that use doubles round beyond it."""
MAX_SECONDS = 3600.0
"""Seconds that a digest covers at most."""

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Buckets = Annotated[
    tuple[Count, ...],
    Meta(
        max_length=2 * (LAST_BUCKET + 1),
        description="Pairs of a bucket and the number of requests in it. Bucket 0 is below 1 ms; bucket k is from "
        "10^((k-1)/16) to 10^(k/16) ms, and 97 is everything above.",
    ),
]

Callee = Annotated[
    str,
    Meta(
        max_length=255,
        description="The name that Envoy's EDS cluster asks for.",
        examples=["shop"],
        extra_json_schema={"pattern": SERVICE_PATTERN},
    ),
]
"""The name of a service. Its reader checks the pattern: a digest has many names, and each digest has the same ones, so
that one who remembers them reads it in two thirds of the time."""


class EdgeCounts(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The numbers of an edge, in this order: counts of requests since the digest before, then three states.

    ``completed`` is Envoy's ``upstream_rq_completed``: requests that got a response, Envoy's own 503 and 504 included.
    Failures are the larger of its 5xx and of gRPC statuses that are a failure of the service: Envoy counts a response
    of its own to a gRPC request as both.
    """

    completed: Count = 0
    client_errors: Count = 0
    failures: Count = 0
    timeouts: Count = 0
    connect_failures: Count = 0
    none_healthy: Count = 0
    overflows: Count = 0
    retries: Count = 0
    active: Count = 0
    healthy: Count = 0
    total: Count = 0


class RouteCounts(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The numbers of a route, in this order: completed requests, 4xx, 5xx."""

    completed: Count = 0
    client_errors: Count = 0
    failures: Count = 0


class EndpointAttempts(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """Attempts at an endpoint since the digest before, and the failed ones among them."""

    attempts: Count
    errors: Count


class EdgeEndpoint(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The attempts at one endpoint of a callee."""

    endpoint: Annotated[str, Meta(max_length=64, description="ip:port; IPv6 in brackets")]
    counts: EndpointAttempts


class Edge(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The traffic to one callee; with its endpoints where the registry asked for them."""

    callee: Callee
    counts: EdgeCounts
    buckets: Buckets = ()
    endpoints: Annotated[tuple[EdgeEndpoint, ...], Meta(max_length=MAX_ENDPOINTS)] = ()


class Route(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The traffic of one route to a callee, by the ``stat_prefix`` of the route."""

    callee: Callee
    route: Annotated[str, Meta(min_length=1, max_length=255, pattern=PRINTABLE_PATTERN)]
    counts: RouteCounts
    buckets: Buckets = ()


class TrafficDigest(Struct, forbid_unknown_fields=True, frozen=True, omit_defaults=True, gc=False):
    """The traffic of one Envoy to its callees since the digest before; silent callees are left out."""

    caller: Annotated[ServiceName, Meta(description="The service that the Envoy stands beside.")]
    node: Annotated[
        str, Meta(min_length=1, max_length=255, pattern=PRINTABLE_PATTERN, description="The id of the Envoy's `node`.")
    ]
    seconds: Annotated[float, Meta(gt=0, le=MAX_SECONDS, description="The time that the digest covers.")]
    sequence: Annotated[
        Count, Meta(description="Grows by one with each digest, from a random number; a repetition counts once.")
    ]
    sender: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=PRINTABLE_PATTERN,
            description="A random id of the registrar's process. It tells Envoys with one node id apart.",
        ),
    ] = ""
    zone: Annotated[str, Meta(max_length=255, pattern=PRINTABLE_PATTERN)] = ""
    region: Annotated[str, Meta(max_length=255, pattern=PRINTABLE_PATTERN)] = ""
    edges: tuple[Edge, ...] = ()
    routes: tuple[Route, ...] = ()


class DigestAnswer(Struct, frozen=True, omit_defaults=True):
    """The registry's answer to a digest."""

    interval: Annotated[
        float | None,
        Meta(description="Seconds to the next digest, while a service is under a shift; unset: as configured."),
    ] = None
    endpoints: Annotated[
        tuple[str, ...], Meta(description="Callees whose edges are to name their endpoints in the next digest.")
    ] = ()
