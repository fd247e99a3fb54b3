"""The gRPC listener of a process, with discovery behind it. Imported only where REGISTRY_XDS_LISTEN is set."""

from collections.abc import Mapping

from registry.descriptors import cap_streams, descriptor_limit
from registry.http2 import selftest
from registry.http2.call import Service
from registry.http2.limits import Limits
from registry.http2.listener import Http2Listener
from registry.process import RegistryProcess
from registry.usecases.stream_access import AdmittedService
from registry.xds.grpc.assignment import AssignmentSource
from registry.xds.grpc.client import Client
from registry.xds.grpc.mesh import MeshSource
from registry.xds.grpc.proxyless import SERVICE_CLUSTERS, SERVICE_LISTENERS, ServiceSource
from registry.xds.grpc.response import ResponseTails
from registry.xds.grpc.service import DiscoveryService
from registry.xds.grpc.source import Source, sources_by_url
from registry.xds.grpc.stream import Discoverable
from registry.xds.resources import MESH_TYPES


def build_listener(process: RegistryProcess) -> Http2Listener:
    """Return the listener of a process, within its event loop."""
    settings = process.settings
    return Http2Listener(
        build_service(process),
        Limits(max_message=settings.max_body, max_age=settings.xds_max_age),
        cap_streams(settings.xds_max_streams, descriptor_limit()),
        beside=selftest.fits(),
    )


def build_service(process: RegistryProcess) -> Service:
    """Return what answers the calls of discovery of those who are admitted."""
    of_envoy = sources_by_url(
        AssignmentSource(process.cache, "envoy"), *(MeshSource(each, process.mesh) for each in MESH_TYPES)
    )
    services = (ServiceSource(each, process.cache) for each in (SERVICE_LISTENERS, SERVICE_CLUSTERS))
    of_grpc = sources_by_url(AssignmentSource(process.cache, "grpc"), *services)

    def sources(client: Client) -> Mapping[str, Source]:
        return of_grpc if client.is_grpc else of_envoy

    tails = ResponseTails(process.reports.process_id)
    access = process.stream_access
    discovery = DiscoveryService(Discoverable(sources, tails), access.admit, process.health.check_ready)
    return AdmittedService(access, discovery)
