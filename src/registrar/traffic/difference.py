"""The digest of two readings: what was counted between them.

A counter that is smaller than before counts from 0: its cluster is new, or Envoy has restarted.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from registrar.traffic.buckets import Counts
from registrar.traffic.statistics import Reading, RouteName, Row, Statistic
from registrar.traffic.topology import Cluster, Tries
from wire.traffic_digest import (
    MAX_COUNT,
    MAX_EDGES,
    MAX_ENDPOINTS,
    MAX_ROUTES,
    Edge,
    EdgeCounts,
    EdgeEndpoint,
    EndpointAttempts,
    Route,
    RouteCounts,
)

_COUNTERS = range(Statistic.ACTIVE)
_MEMBERSHIP = (Statistic.HEALTHY, Statistic.TOTAL)
_MAX_ROUTE_NAME = 255
EndpointTries = Mapping[tuple[str, str], Tries]
"""Attempts by service and endpoint."""


class Difference(Struct, frozen=True):
    """The counts between two readings, the busiest first.

    Attributes:
        edges: by callee.
        routes: by callee and route.
        omitted: callees and routes beyond those that a digest may have.
    """

    edges: tuple[Edge, ...]
    routes: tuple[Route, ...]
    omitted: int


def difference(
    before: Reading, after: Reading, clusters: Iterable[Cluster], endpoints: Mapping[str, tuple[EdgeEndpoint, ...]]
) -> Difference:
    """Return what was counted between two readings.

    Args:
        before: the earlier reading.
        after: the later one.
        clusters: the clusters, several of which may be one service.
        endpoints: the attempts at the endpoints of services that the registry asked for.
    """
    rows: dict[str, Row] = {}
    latencies: dict[str, Counts] = {}
    known = {cluster.statistics: cluster for cluster in clusters if cluster.valid}
    for name, row in after.clusters.items():
        cluster = known.get(name)
        if cluster is None:
            continue
        counted = _counted(before.clusters.get(name), row)
        # The larger of both, not their sum: a response of Envoy itself to a gRPC request, as when no endpoint is there,
        # is counted as 503 and as status 14.
        counted[Statistic.SERVER_ERRORS] = max(counted[Statistic.SERVER_ERRORS], counted[Statistic.GRPC_FAILURES])
        earlier = rows.get(cluster.service)
        rows[cluster.service] = counted if earlier is None else _together(earlier, counted)
        buckets = _grown(before.latencies.get(name, {}), after.latencies.get(name, {}))
        _add(latencies.setdefault(cluster.service, {}), buckets)
    edges = [
        _edge(service, row, latencies[service], endpoints.get(service, ()))
        for service, row in rows.items()
        if any(row[: Statistic.HEALTHY]) or latencies[service] or service in endpoints
    ]
    routes = _routes(before, after, {cluster.name: cluster for cluster in known.values()})
    edges.sort(key=lambda edge: (not edge.endpoints, -edge.counts.completed))
    routes.sort(key=lambda route: -route.counts.completed)
    omitted = max(0, len(edges) - MAX_EDGES) + max(0, len(routes) - MAX_ROUTES)
    return Difference(tuple(edges[:MAX_EDGES]), tuple(routes[:MAX_ROUTES]), omitted)


def attempts_since(before: EndpointTries, after: EndpointTries) -> dict[str, tuple[EdgeEndpoint, ...]]:
    """Return the attempts between two readings by service; an endpoint without any is left out."""
    services: dict[str, list[EdgeEndpoint]] = {}
    for (service, endpoint), tries in after.items():
        earlier = before.get((service, endpoint), Tries())
        if tries.attempts < earlier.attempts or tries.errors < earlier.errors:
            earlier = Tries()
        attempts, errors = tries.attempts - earlier.attempts, tries.errors - earlier.errors
        counted = services.setdefault(service, [])
        if attempts or errors:
            counted.append(EdgeEndpoint(endpoint, EndpointAttempts(max(attempts, errors), errors)))
    for counted in services.values():
        counted.sort(key=lambda each: -each.counts.attempts)
    return {service: tuple(counted[:MAX_ENDPOINTS]) for service, counted in services.items()}


def _together(row: Row, other: Row) -> Row:
    """Return the row of one callee from those of two of its clusters.

    They have the same endpoints, so these are not added up: those of the cluster with the smaller healthy part count,
    since requests through that one fail. A cluster without endpoints, such as one that warms, says nothing.
    """
    added = [min(old + new, MAX_COUNT) for old, new in zip(row, other, strict=True)]
    worse = min(
        (each for each in (row, other) if each[Statistic.TOTAL]),
        key=lambda each: each[Statistic.HEALTHY] / each[Statistic.TOTAL],
        default=row,
    )
    for place in _MEMBERSHIP:
        added[place] = worse[place]
    return added


def _edge(service: str, row: Row, buckets: Counts, endpoints: tuple[EdgeEndpoint, ...]) -> Edge:
    counts = EdgeCounts(
        completed=row[Statistic.COMPLETED],
        client_errors=row[Statistic.CLIENT_ERRORS],
        failures=row[Statistic.SERVER_ERRORS],
        timeouts=row[Statistic.TIMEOUTS],
        connect_failures=row[Statistic.CONNECT_FAILURES],
        none_healthy=row[Statistic.NONE_HEALTHY],
        overflows=row[Statistic.OVERFLOWS],
        retries=row[Statistic.RETRIES],
        active=row[Statistic.ACTIVE],
        healthy=min(row[Statistic.HEALTHY], row[Statistic.TOTAL]),
        total=row[Statistic.TOTAL],
    )
    return Edge(service, counts, _flat(buckets), endpoints)


def _routes(before: Reading, after: Reading, clusters: Mapping[str, Cluster]) -> list[Route]:
    counts: dict[tuple[str, str], Row] = {}
    latencies: dict[tuple[str, str], Counts] = {}
    for name, row in after.routes.items():
        host, route = name
        # The virtual hosts of the project's configurations have the names of their clusters.
        cluster = clusters.get(host)
        if cluster is None or not 0 < len(route) <= _MAX_ROUTE_NAME or not route.isprintable():
            continue
        counted = _counted_route(before, name, row)
        buckets = _grown(before.route_latencies.get(name, {}), after.route_latencies.get(name, {}))
        if any(counted) or buckets:
            # Several virtual hosts may lead to one service, as one with retries and one without.
            key = (cluster.service, route)
            earlier = counts.get(key, [0, 0, 0])
            counts[key] = [min(old + new, MAX_COUNT) for old, new in zip(earlier, counted, strict=True)]
            _add(latencies.setdefault(key, {}), buckets)
    return [Route(*key, RouteCounts(*row), _flat(latencies[key])) for key, row in counts.items()]


def _counted(before: Row | None, after: Row) -> Row:
    """Return the counters' differences, and the states as they are."""
    counted = [min(max(0, number), MAX_COUNT) for number in after]
    if before is None:
        return counted
    for place in _COUNTERS:
        if before[place] <= counted[place]:
            counted[place] -= before[place]
    return counted


def _counted_route(before: Reading, name: RouteName, after: Row) -> Row:
    earlier = before.routes.get(name, [0, 0, 0])
    return [late - early if early <= late else late for early, late in zip(earlier, after, strict=True)]


def _grown(before: Counts, after: Counts) -> Counts:
    if any(after.get(bucket, 0) < count for bucket, count in before.items()):
        return after
    return {bucket: count - before.get(bucket, 0) for bucket, count in after.items() if count > before.get(bucket, 0)}


def _add(counts: Counts, more: Counts) -> None:
    for bucket, count in more.items():
        counts[bucket] = counts.get(bucket, 0) + count


def _flat(buckets: Counts) -> tuple[int, ...]:
    return tuple(number for pair in sorted(buckets.items()) for number in pair)
