"""A client of one discovery stream, on grpcio, that says of each answer what a test wants it to say."""

import contextlib
import queue
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from harness.xds_messages import ClusterLoadAssignment, DiscoveryRequest, DiscoveryResponse
from registry.xds.resources import ENDPOINTS

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
EDS = ENDPOINTS.type_urls["v3"]
TIMEOUT = 30.0
"""Seconds for which an answer is waited for."""


class XdsStream:
    """One stream for endpoints over ADS, of the state of the world.

    Args:
        channel: to the registry.
        node: the id of its node.
        token: its credential; empty: none.
        user_agent: the kind of client that it says it is.
    """

    def __init__(self, channel: grpc.Channel, node: str, token: str = "", user_agent: str = "envoy") -> None:
        self._requests: queue.Queue[bytes | None] = queue.Queue()
        self._node: dict[str, Any] = {"id": node, "cluster": "web", "user_agent_name": user_agent}
        self._node["user_agent_build_version"] = {"version": {"major_number": 1, "minor_number": 40}}
        call = channel.stream_stream(ADS, request_serializer=None, response_deserializer=None)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        self._call = call(iter(self._requests.get, None), metadata=metadata, timeout=TIMEOUT)
        self._last: Any = None

    def ask(self, *names: str) -> None:
        """Ask for services."""
        self._send(resource_names=names, node=self._node)

    def hear(self) -> dict[str, int]:
        """Wait for an answer, and return how many endpoints each of its services has.

        Raises:
            grpc.RpcError: the stream has ended.
        """
        self._last = DiscoveryResponse.FromString(next(self._call))
        assignments = [ClusterLoadAssignment.FromString(each.value) for each in self._last.resources]
        return {
            each.cluster_name: sum(len(locality.lb_endpoints) for locality in each.endpoints) for each in assignments
        }

    def errors(self) -> dict[str, str]:
        """Return the words about names of the last answer that have no resource."""
        return {error.resource_name.name: error.error_detail.message for error in self._last.resource_errors}

    def accept(self, names: Iterable[str]) -> None:
        """Acknowledge the last answer."""
        version, nonce = self._last.version_info, self._last.nonce
        self._send(resource_names=names, response_nonce=nonce, version_info=version)

    def reject(self, names: Iterable[str], words: str) -> None:
        """Reject the last answer."""
        error = {"code": 3, "message": words.encode()}
        self._send(resource_names=names, response_nonce=self._last.nonce, error_detail=error)

    def end(self) -> None:
        """End the stream."""
        self._requests.put(None)
        self._call.cancel()

    def _send(self, **fields: Any) -> None:
        self._requests.put(DiscoveryRequest(type_url=EDS, **fields).SerializeToString())


@contextlib.contextmanager
def streams_to(address: str) -> Iterator[grpc.Channel]:
    """Lend a channel to a registry's gRPC listener."""
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel
