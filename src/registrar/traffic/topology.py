"""The words of Envoy about itself: its node, the service of each cluster, attempts at endpoints."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from wire.address import format_endpoint, parse_endpoint
from wire.model import SERVICE_PATTERN

SERVER_INFO = "/server_info"
CLUSTERS = "/clusters"
BOOTSTRAP = "/config_dump?mask=bootstrap.dynamic_resources"
MANAGEMENT_CLUSTERS = frozenset({"registry", "envoy-admin"})
"""Clusters that every bootstrap of this project has, and that are no callees: the registry, and Envoy's own admin."""

_SERVICE = re.compile(SERVICE_PATTERN)
_BETWEEN = b"::"


class _Locality(Struct, frozen=True):
    region: str = ""
    zone: str = ""


class _Node(Struct, frozen=True):
    id: str = ""
    cluster: str = ""
    locality: _Locality = _Locality()


class _ServerInfo(Struct, frozen=True):
    node: _Node = _Node()


class EnvoyNode(Struct, frozen=True):
    """The node of an Envoy.

    Attributes:
        id: its name.
        cluster: the service that it stands beside.
        region: where it runs.
        zone: where it runs.
    """

    id: str
    cluster: str
    region: str = ""
    zone: str = ""


class Cluster(Struct, frozen=True):
    """A cluster of an Envoy.

    Attributes:
        name: its name.
        statistics: its name in statistics.
        service: the name by which Envoy asks for its endpoints, else the cluster's name.
    """

    name: str
    statistics: str
    service: str

    @property
    def valid(self) -> bool:
        """Whether its service has a name that a service of the registry may have."""
        return _SERVICE.match(self.service) is not None


_server_info = msgspec.json.Decoder(_ServerInfo)


def read_node(body: bytes) -> EnvoyNode:
    """Return the node that ``/server_info`` names.

    Raises:
        ValueError: it names none.
    """
    node = _server_info.decode(body).node
    if not (node.id and node.cluster):
        raise ValueError("Envoy has no node.id or no node.cluster, by which the registry would know it; set both")
    if _SERVICE.match(node.cluster) is None:
        raise ValueError(f"Envoy's node.cluster is {node.cluster!r}, which is no name of a service")
    return EnvoyNode(node.id, node.cluster, node.locality.region, node.locality.zone)


def read_management_clusters(body: bytes) -> frozenset[str]:
    """Return the clusters from which Envoy gets its configuration, by the bootstrap's ``dynamic_resources``.

    Raises:
        ValueError: it is no configuration.
    """
    return frozenset(_cluster_names(msgspec.json.decode(body))) | MANAGEMENT_CLUSTERS


class ClustersReader:
    """Reads the lines of ``/clusters`` one by one, for the names of all clusters."""

    def __init__(self) -> None:
        self._statistics: dict[str, str] = {}
        self._services: dict[str, str] = {}

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in some lines."""
        for line in lines:
            if b"::observability_name::" in line:
                name, _, value = line.decode(errors="replace").partition("::observability_name::")
                # Envoy's statistics have no colon but its own.
                self._statistics[name] = value.replace(":", "_")
            elif b"::eds_service_name::" in line:
                name, _, value = line.decode(errors="replace").partition("::eds_service_name::")
                self._services[name] = value

    def result(self, management: Collection[str]) -> list[Cluster]:
        """Return the clusters, without those from which Envoy gets its configuration."""
        return [
            Cluster(name, statistics, self._services.get(name) or name)
            for name, statistics in self._statistics.items()
            if name not in management
        ]


class Tries(Struct):
    """The attempts at an endpoint since it is in the cluster, as Envoy counts them."""

    total: int = 0
    success: int = 0
    errors: int = 0

    @property
    def attempts(self) -> int:
        """All attempts; one whose connection could not be made is an error, and not in the total."""
        return max(self.total, self.success + self.errors)


def endpoints_target(clusters: Iterable[Cluster]) -> str:
    """Return the path and query that ask for the endpoints of clusters."""
    named = "|".join(re.escape(cluster.name) for cluster in clusters)
    return f"{CLUSTERS}?filter={quote(f'^({named})$', safe='')}"


class EndpointsReader:
    """Reads the lines of ``/clusters`` one by one, for the attempts at the endpoints of some clusters.

    Args:
        clusters: these clusters.
    """

    def __init__(self, clusters: Iterable[Cluster]) -> None:
        # A name may have "::" itself, and so may IPv6: the cluster is told by its whole name.
        self._services = {cluster.name.encode() + _BETWEEN: cluster.service for cluster in clusters}
        self._tries: dict[tuple[str, str], Tries] = {}

    def read(self, lines: Iterable[bytes]) -> None:
        """Take in some lines.

        Raises:
            ValueError: a count is no number.
        """
        for line in lines:
            place, between, value = line.rpartition(_BETWEEN)
            left, _, statistic = place.rpartition(_BETWEEN)
            if not between or statistic not in _TRIES:
                continue
            for prefix, service in self._services.items():
                endpoint = _endpoint(left[len(prefix) :]) if left.startswith(prefix) else ""
                if endpoint:
                    tries = self._tries.setdefault((service, endpoint), Tries())
                    field = _TRIES[statistic]
                    setattr(tries, field, getattr(tries, field) + int(value))
                    break

    def result(self) -> Mapping[tuple[str, str], Tries]:
        """Return the attempts by service and endpoint."""
        return self._tries


_TRIES = {b"rq_total": "total", b"rq_success": "success", b"rq_error": "errors"}


def _endpoint(text: bytes) -> str:
    """Return an address and port as the registry writes them; empty: it is neither."""
    try:
        return format_endpoint(*parse_endpoint(text.decode()))
    except ValueError:
        return ""


def _cluster_names(document: Any) -> Iterable[str]:  # noqa: ANN401 - any JSON
    if isinstance(document, dict):
        for key, value in document.items():
            if key == "cluster_name" and isinstance(value, str):
                yield value
            elif key == "cluster_names" and isinstance(value, list):
                yield from (name for name in value if isinstance(name, str))
            else:
                yield from _cluster_names(value)
    elif isinstance(document, list):
        for each in document:
            yield from _cluster_names(each)
