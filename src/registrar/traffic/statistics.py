"""Envoy's statistics of its clusters and routes, as its admin interface writes them.

What its counters mean was measured: ``upstream_rq_completed`` counts requests, whatever becomes of them, and
``upstream_rq_total`` attempts at an endpoint, which are 30 for 10 requests with two retries and none where no endpoint
could be reached.
"""

import re
from collections.abc import Collection, Iterable
from enum import IntEnum
from urllib.parse import quote

from registrar.traffic.buckets import BinReader, Counts


class Statistic(IntEnum):
    """A number that is kept of a cluster, as its place in a row; the last three are states."""

    COMPLETED = 0
    CLIENT_ERRORS = 1
    SERVER_ERRORS = 2
    TIMEOUTS = 3
    CONNECT_FAILURES = 4
    NONE_HEALTHY = 5
    OVERFLOWS = 6
    RETRIES = 7
    GRPC_FAILURES = 8
    ACTIVE = 9
    HEALTHY = 10
    TOTAL = 11


_NAMES = {
    b"upstream_rq_completed": Statistic.COMPLETED,
    b"upstream_rq_4xx": Statistic.CLIENT_ERRORS,
    b"upstream_rq_5xx": Statistic.SERVER_ERRORS,
    b"upstream_rq_timeout": Statistic.TIMEOUTS,
    b"upstream_cx_connect_fail": Statistic.CONNECT_FAILURES,
    b"upstream_cx_none_healthy": Statistic.NONE_HEALTHY,
    # The limit of pending requests of HTTP/1, and that of active ones of HTTP/2.
    b"upstream_rq_pending_overflow": Statistic.OVERFLOWS,
    b"upstream_rq_active_overflow": Statistic.OVERFLOWS,
    b"upstream_rq_retry": Statistic.RETRIES,
    b"grpc": Statistic.GRPC_FAILURES,
    b"upstream_rq_active": Statistic.ACTIVE,
    b"membership_healthy": Statistic.HEALTHY,
    b"membership_total": Statistic.TOTAL,
}
_ROUTE_NAMES = {b"upstream_rq_completed": 0, b"upstream_rq_4xx": 1, b"upstream_rq_5xx": 2}
# UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS.
_GRPC_FAILURES = (2, 4, 8, 12, 13, 14, 15)
_OF_CLUSTER = "|".join(
    [
        "upstream_rq_(completed|4xx|5xx|timeout|pending_overflow|active_overflow|retry|active|time)",
        "upstream_cx_(connect_fail|none_healthy)",
        "membership_(healthy|total)",
        f"grpc\\.({'|'.join(map(str, _GRPC_FAILURES))})",
    ]
)
_ROUTES = r"vhost\..*\.route\..*\.upstream_rq_(completed|4xx|5xx|time)"
_SERVER = r"server\.(live|uptime)|listener\.admin\.downstream_cx_total"
_CLUSTER_NAMES = r"cluster\..*\.membership_total"
MAX_PATTERN = 32 * 1024
"""Characters of a pattern that names each cluster; a request head of Envoy's admin interface has 60 kB at most."""

Row = list[int]
RouteName = tuple[str, str]
"""Virtual host and route."""


class Reading:
    """The statistics of one moment.

    Attributes:
        clusters: a row of numbers by cluster.
        latencies: requests by bucket of their latency, by cluster.
        routes: completed requests, 4xx and 5xx by route.
        route_latencies: the same as ``latencies``, by route.
        names: the clusters that Envoy has, also those that were not asked for.
        uptime: seconds since Envoy started, as of its last flush of statistics; 0 in its first five seconds.
        admin_connections: connections to its admin interface since it started; each reading is one more.
    """

    __slots__ = ("admin_connections", "clusters", "latencies", "names", "route_latencies", "routes", "uptime")

    def __init__(self) -> None:
        self.clusters: dict[str, Row] = {}
        self.latencies: dict[str, Counts] = {}
        self.routes: dict[RouteName, Row] = {}
        self.route_latencies: dict[RouteName, Counts] = {}
        self.names: set[str] = set()
        self.uptime = 0
        self.admin_connections = 0

    def is_of_later_start(self, before: "Reading") -> bool:
        """Return whether Envoy has been started again since another reading."""
        return self.uptime < before.uptime or self.admin_connections < before.admin_connections


def target_of(names: Collection[str]) -> str:
    """Return the path and query that ask for the statistics of these clusters, of routes, and the names of all."""
    named = "|".join(re.escape(name) for name in sorted(names)) or "-"
    if len(named) > MAX_PATTERN:
        named = ".*"
    pattern = f"^({_SERVER}|{_CLUSTER_NAMES}|cluster\\.({named})\\.({_OF_CLUSTER})|{_ROUTES})$"
    return f"/stats?usedonly&histogram_buckets=detailed&filter={quote(pattern, safe='')}"


class StatisticsReader:
    """Reads the lines of an answer one by one.

    Args:
        names: the clusters that are wanted, as statistics name them.
        bins: reads histograms.
    """

    def __init__(self, names: Collection[str], bins: BinReader) -> None:
        self._names = names
        self._bins = bins
        self._histogram = b""
        """The histogram whose lines come next."""
        self._live = False
        """Whether the answer said that Envoy lives, which that of another program would not."""
        self._reading = Reading()

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in some lines.

        Raises:
            ValueError: a line is not what Envoy writes.
        """
        for line in lines:
            if line.startswith(b"  "):
                if line.startswith(b"  totals="):
                    self._take_histogram(line[9:])
            elif line.endswith(b":"):
                self._histogram = line[:-1]
            elif line:
                name, _, value = line.rpartition(b": ")
                self._take(name, int(value))

    def result(self) -> Reading:
        """Return the statistics, when all lines were taken in.

        Raises:
            ValueError: these were no statistics of Envoy.
        """
        if not self._live:
            raise ValueError("the answer lacks server.live, which every Envoy has: is another program there?")
        return self._reading

    def _take(self, name: bytes, value: int) -> None:
        base, _, last = name.rpartition(b".")
        if base.startswith(b"cluster."):
            if base.endswith(b".grpc"):
                base, last = base[:-5], b"grpc"
            self._take_cluster(base[8:].decode(errors="replace"), last, value)
        elif base.startswith(b"vhost."):
            place = _ROUTE_NAMES.get(last)
            if place is not None:
                self._reading.routes.setdefault(_route_of(base), [0, 0, 0])[place] += value
        elif name == b"server.live":
            self._live = True
        elif name == b"server.uptime":
            self._reading.uptime = value
        elif name == b"listener.admin.downstream_cx_total":
            self._reading.admin_connections = value

    def _take_cluster(self, cluster: str, last: bytes, value: int) -> None:
        reading = self._reading
        if last == b"membership_total":
            reading.names.add(cluster)
        place = _NAMES.get(last)
        if place is None or cluster not in self._names:
            return
        row = reading.clusters.get(cluster)
        if row is None:
            row = reading.clusters[cluster] = [0] * len(Statistic)
        row[place] += value

    def _take_histogram(self, bins: bytes) -> None:
        base, _, last = self._histogram.rpartition(b".")
        if last != b"upstream_rq_time":
            return
        if base.startswith(b"cluster."):
            cluster = base[8:].decode(errors="replace")
            if cluster in self._names:
                self._reading.latencies[cluster] = self._bins.read(bins)
        elif base.startswith(b"vhost."):
            self._reading.route_latencies[_route_of(base)] = self._bins.read(bins)


def _route_of(base: bytes) -> RouteName:
    """Return virtual host and route of ``vhost.<host>.route.<route>``; either may have dots."""
    host, _, route = base[6:].decode(errors="replace").partition(".route.")
    return host, route
