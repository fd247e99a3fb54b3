"""The readings of one Envoy: its statistics, and what has to be known of it to ask for them."""

from collections.abc import Collection
from contextlib import aclosing
from typing import Protocol

from registrar.envoy_admin.client import EnvoyAdminClient
from registrar.errors import EnvoyAdminError
from registrar.traffic.buckets import BinReader
from registrar.traffic.difference import EndpointTries
from registrar.traffic.statistics import Reading, StatisticsReader, target_of
from registrar.traffic.topology import (
    BOOTSTRAP,
    CLUSTERS,
    MANAGEMENT_CLUSTERS,
    SERVER_INFO,
    Cluster,
    ClustersReader,
    EndpointsReader,
    EnvoyNode,
    endpoints_target,
    read_management_clusters,
    read_node,
)

_MAX_SERVER_INFO = 1024 * 1024
"""Bytes of ``/server_info``, most of which is the list of extensions: 77 kB with Envoy 1.40."""
_MAX_BOOTSTRAP = 1024 * 1024


class _LineReader(Protocol):
    def read(self, lines: list[bytes]) -> None: ...


class Envoy:
    """The Envoy beside the registrar, read through its admin interface.

    Args:
        admin: sends the requests.

    Attributes:
        node: who it is; None before the first ``look``.
        clusters: its clusters, but for those of its management server.
    """

    def __init__(self, admin: EnvoyAdminClient) -> None:
        self._admin = admin
        self._bins = BinReader()
        self._management: Collection[str] = MANAGEMENT_CLUSTERS
        self.node: EnvoyNode | None = None
        self.clusters: list[Cluster] = []
        self._asked_for: set[str] = set()
        """The clusters that ``clusters`` was made of, and those of the management server, as statistics name them."""

    async def identify(self) -> EnvoyNode:
        """Ask who it is, and from which clusters it gets its configuration.

        Raises:
            EnvoyAdminError: it did not answer, or has no node.
        """
        body = await self._admin.read(SERVER_INFO, max_bytes=_MAX_SERVER_INFO)
        bootstrap = await self._admin.read(BOOTSTRAP, max_bytes=_MAX_BOOTSTRAP)
        try:
            self.node = read_node(body)
            self._management = read_management_clusters(bootstrap)
        except ValueError as error:
            raise self._unusable(SERVER_INFO, error) from error
        return self.node

    async def look(self) -> None:
        """Ask for its clusters.

        Raises:
            EnvoyAdminError: it did not answer.
        """
        reader = ClustersReader()
        await self._read_lines(CLUSTERS, reader)
        self.clusters = reader.result(self._management)
        self._asked_for = {cluster.statistics for cluster in reader.result(())}

    async def read(self) -> Reading:
        """Return the statistics of its clusters and routes.

        Raises:
            EnvoyAdminError: it did not answer, or something else did.
        """
        names = {cluster.statistics for cluster in self.clusters if cluster.valid}
        reader = StatisticsReader(names, self._bins)
        target = target_of(names)
        await self._read_lines(target, reader)
        try:
            return reader.result()
        except ValueError as error:
            raise self._unusable(target, error) from error

    def has_new_clusters(self, reading: Reading) -> bool:
        """Return whether a reading names clusters that were not there at the last ``look``."""
        return not reading.names <= self._asked_for

    async def endpoints(self, services: Collection[str]) -> EndpointTries:
        """Return the attempts at the endpoints of services since they are there.

        Raises:
            EnvoyAdminError: it did not answer, or something else did.
        """
        clusters = [cluster for cluster in self.clusters if cluster.service in services]
        if not clusters:
            return {}
        reader = EndpointsReader(clusters)
        await self._read_lines(endpoints_target(clusters), reader)
        return reader.result()

    async def _read_lines(self, target: str, reader: _LineReader) -> None:
        async with aclosing(self._admin.line_groups(target)) as groups:
            async for group in groups:
                try:
                    reader.read(group)
                except ValueError as error:
                    raise self._unusable(target, error) from error

    def _unusable(self, target: str, error: ValueError) -> EnvoyAdminError:
        return EnvoyAdminError(str(self._admin.address), target.partition("?")[0], str(error))
