"""Which methods open a stream, and when none is opened."""

import re

import pytest
from harness.xds_world import CDS, EDS, Heard, World

from registry.errors import UnavailableError
from registry.http2.call import Metadata, Peer, Status, StatusError
from registry.xds.grpc.delta import DeltaStream
from registry.xds.grpc.observer import Guard, NoGuard, Observer
from registry.xds.grpc.service import DiscoveryService
from registry.xds.grpc.sotw import SotwStream

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
ENDPOINTS = "/envoy.service.endpoint.v3.EndpointDiscoveryService/"


def admit(_path: str, _metadata: Metadata, _peer: Peer) -> tuple[Guard, Observer]:
    """Admit everybody."""
    return NoGuard(), Heard()


def ready() -> None:
    """Be ready."""


def unready() -> None:
    """Be not."""
    raise UnavailableError("this process has not read the registry's state yet")


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (f"{ADS}StreamAggregatedResources", SotwStream),
        (f"{ADS}DeltaAggregatedResources", DeltaStream),
        (f"{ENDPOINTS}StreamEndpoints", SotwStream),
        (f"{ENDPOINTS}DeltaEndpoints", DeltaStream),
    ],
)
def test_methods(method: str, kind: type) -> None:
    """ADS and EDS, in both variants."""
    service = DiscoveryService(World().shared, admit, ready)
    assert type(service.open(method, {}, Peer("10.0.0.1"), ready)) is kind


@pytest.mark.parametrize(
    "method", [f"{ENDPOINTS}FetchEndpoints", f"{ADS}Other", "/", "", "/grpc.health.v1.Health/Check"]
)
def test_other_methods(method: str) -> None:
    """The answer names those that are served."""
    service = DiscoveryService(World().shared, admit, ready)
    with pytest.raises(StatusError, match="DeltaEndpoints") as error:
        service.open(method, {}, Peer("10.0.0.1"), ready)
    assert error.value.status is Status.UNIMPLEMENTED


def test_a_process_that_is_not_ready() -> None:
    """The client tries another one."""
    service = DiscoveryService(World().shared, admit, unready)
    with pytest.raises(StatusError) as error:
        service.open(f"{ADS}StreamAggregatedResources", {}, Peer("10.0.0.1"), ready)
    assert error.value.status is Status.UNAVAILABLE


def test_the_methods_of_eds_serve_eds() -> None:
    """A client that asks for clusters there hears so."""
    stream = DiscoveryService(World().shared, admit, ready).open(
        f"{ENDPOINTS}StreamEndpoints", {}, Peer("10.0.0.1"), ready
    )
    with pytest.raises(StatusError, match=re.escape(f"not '{CDS}'")):
        stream.receive(b"\x22" + bytes((len(CDS),)) + CDS.encode(), 0.0)
    stream.receive(b"\x22" + bytes((len(EDS),)) + EDS.encode(), 0.0)
