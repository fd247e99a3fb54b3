"""The methods of discovery that are served over gRPC: ADS, and EDS by itself."""

from collections.abc import Callable, Mapping

from registry.errors import UnavailableError
from registry.http2.call import Metadata, Peer, Service, Status, StatusError
from registry.xds.grpc.delta import DeltaStream
from registry.xds.grpc.observer import Guard, Observer
from registry.xds.grpc.sotw import SotwStream
from registry.xds.grpc.stream import Discoverable, Stream
from registry.xds.resources import ENDPOINTS

_ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
_EDS = "/envoy.service.endpoint.v3.EndpointDiscoveryService/"
_METHODS: Mapping[str, tuple[type[Stream], str | None]] = {
    f"{_ADS}StreamAggregatedResources": (SotwStream, None),
    f"{_ADS}DeltaAggregatedResources": (DeltaStream, None),
    f"{_EDS}StreamEndpoints": (SotwStream, ENDPOINTS.type_urls["v3"]),
    f"{_EDS}DeltaEndpoints": (DeltaStream, ENDPOINTS.type_urls["v3"]),
}
"""For each method its kind of stream, and its only type; None: all."""

Admit = Callable[[str, Metadata, Peer], tuple[Guard, Observer]]
"""Returns what guards and what observes one call of a method, or raises the StatusError that ends it."""


class DiscoveryService(Service):
    """Opens a stream for each call of a discovery method.

    Args:
        shared: what the streams share.
        admit: says what a caller may discover, and takes note of its stream.
        check_ready: raises UnavailableError while this process cannot say anything.
    """

    def __init__(self, shared: Discoverable, admit: Admit, check_ready: Callable[[], None]) -> None:
        self._shared = shared
        self._admit = admit
        self._check_ready = check_ready

    def open(self, path: str, metadata: Metadata, peer: Peer, wake: Callable[[], None]) -> Stream:
        """Open a stream.

        Raises:
            StatusError: the method is not served (UNIMPLEMENTED), this process is not ready (UNAVAILABLE), or the
                caller is not admitted.
        """
        method = _METHODS.get(path)
        if method is None:
            raise StatusError(Status.UNIMPLEMENTED, f"{path[:200]} is not served; these are: {', '.join(_METHODS)}")
        try:
            self._check_ready()
        except UnavailableError as error:
            raise StatusError(Status.UNAVAILABLE, str(error)) from None
        guard, observer = self._admit(path, metadata, peer)
        kind, only = method
        return kind(self._shared, guard, observer, wake, only)
