"""The errand `clusters`: the endpoints that Envoy holds of a cluster, or all clusters in short."""

import msgspec
from msgspec import Struct, field

from registrar.errands.admin import ErrandAdmin
from registrar.errands.refused import RefusedError
from wire.address import format_endpoint
from wire.errand import ClusterRow, Clusters, ClustersResult, HostRow, printable

MAX_ROWS = 1000
"""Rows of a result."""


class _SocketAddress(Struct):
    address: str = ""
    port_value: int = 0


class _Pipe(Struct):
    path: str = ""


class _Address(Struct):
    socket_address: _SocketAddress | None = None
    pipe: _Pipe | None = None

    @property
    def text(self) -> str:
        """The address as people write it."""
        if self.socket_address is not None:
            try:
                return format_endpoint(self.socket_address.address, self.socket_address.port_value)
            except ValueError:
                return f"{self.socket_address.address}:{self.socket_address.port_value}"
        return self.pipe.path if self.pipe is not None else "?"


class _Statistic(Struct):
    name: str = ""
    value: str | int = 0


class _Health(Struct):
    failed_active_health_check: bool = False
    failed_outlier_check: bool = False
    failed_active_degraded_check: bool = False
    excluded_via_immediate_hc_fail: bool = False
    eds_health_status: str = "HEALTHY"

    @property
    def healthy(self) -> bool:
        """Whether Envoy sends to it while there are enough like it."""
        failed = self.failed_active_health_check or self.failed_outlier_check or self.excluded_via_immediate_hc_fail
        return not failed and self.eds_health_status in ("HEALTHY", "DEGRADED", "UNKNOWN")

    @property
    def text(self) -> str:
        """The words of the registry, and of Envoy itself."""
        words = (
            (self.failed_outlier_check, "ejected"),
            (self.failed_active_health_check, "failed its health check"),
            (self.failed_active_degraded_check, "degraded by its health check"),
            (self.excluded_via_immediate_hc_fail, "excluded at once"),
        )
        return ", ".join((self.eds_health_status, *(word for holds, word in words if holds)))


class _Locality(Struct):
    zone: str = ""


class _Host(Struct):
    address: _Address = field(default_factory=_Address)
    stats: list[_Statistic] = []
    health_status: _Health = field(default_factory=_Health)
    weight: int = 1
    locality: _Locality = field(default_factory=_Locality)

    def statistic(self, name: str) -> int:
        """Return one of its counters."""
        return next((int(each.value) for each in self.stats if each.name == name), 0)


class _Cluster(Struct):
    name: str = ""
    eds_service_name: str = ""
    host_statuses: list[_Host] = []


class _Clusters(Struct):
    cluster_statuses: list[_Cluster] = []


_decode = msgspec.json.Decoder(_Clusters).decode


async def look(admin: ErrandAdmin, wanted: Clusters) -> ClustersResult:
    """Return the endpoints of one cluster, or all clusters.

    Raises:
        EnvoyAdminError: Envoy did not answer.
        RefusedError: Envoy has no such cluster.
        msgspec.DecodeError: the answer is not as Envoy writes it.
    """
    clusters = _decode(await admin.clusters()).cluster_statuses
    if not wanted.cluster:
        rows = [_row(cluster) for cluster in sorted(clusters, key=lambda each: each.name)]
        return ClustersResult(clusters=rows[:MAX_ROWS], left_out=max(0, len(rows) - MAX_ROWS))
    named = [each for each in clusters if wanted.cluster in (each.name, each.eds_service_name)]
    if not named:
        raise RefusedError(
            f"this Envoy has no cluster {wanted.cluster}; it has {len(clusters)}, which clusters without a name lists"
        )
    hosts = [_host(host) for cluster in named for host in cluster.host_statuses]
    left_out = max(0, len(hosts) - MAX_ROWS)
    return ClustersResult([_row(cluster) for cluster in named], hosts[:MAX_ROWS], left_out)


def _row(cluster: _Cluster) -> ClusterRow:
    healthy = sum(host.health_status.healthy for host in cluster.host_statuses)
    names = printable(cluster.name), printable(cluster.eds_service_name)
    return ClusterRow(*names, len(cluster.host_statuses), healthy)


def _host(host: _Host) -> HostRow:
    return HostRow(
        printable(host.address.text),
        printable(host.health_status.text),
        printable(host.locality.zone),
        host.weight,
        host.statistic("rq_total"),
        host.statistic("rq_error"),
        host.statistic("rq_active"),
    )
