"""An edge over real HTTP, and an Envoy's way to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from harness.fake_registry import FakeRegistry
from harness.no_tls import NO_TLS

from registrar.config.listen import ListenAddress
from registrar.edge.disk_cache import DiskCache
from registrar.edge.edge import Edge
from registrar.edge.fallback import Fallback
from registrar.edge.server import EdgeServer
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.registries import RegistryUrls

HOSTS = "10.0.0.1:80", "10.0.0.2:80"
ENDPOINTS = "/v3/discovery:endpoints"


class World:
    """An edge, the registry that it asks, and an Envoy's way to it."""

    def __init__(self, server: EdgeServer, client: httpx.AsyncClient, registry: FakeRegistry) -> None:
        self.server = server
        self.edge = server.edge
        self.client = client
        self.registry = registry

    async def poll(
        self, service: str = "shop", version: str = "", hold: float = 5.0, path: str = ENDPOINTS, **more: Any
    ) -> httpx.Response:
        """Poll as an Envoy does."""
        node = {"id": "envoy-1", "cluster": "web", "locality": {"zone": "za"}}
        body = {"version_info": version, "node": node, "resource_names": [service], **more}
        headers = {"x-envoy-expected-rq-timeout-ms": str(int(hold * 1000 + 250))}
        return await self.client.post(path, json=body, headers=headers)

    async def version(self, service: str = "shop", version: str = "", hold: float = 5.0) -> str:
        """Poll, and return the version of the answer; empty for a 304."""
        response = await self.poll(service, version, hold)
        if response.status_code == 304:
            return ""
        assert response.status_code == 200, response.text
        return str(response.json()["version_info"])


@contextlib.asynccontextmanager
async def world(
    registry: FakeRegistry,
    socket: Path,
    directory: Path | None = None,
    url: str = "",
    fallback: Fallback | None = None,
) -> AsyncIterator[World]:
    """Run an edge at a unix socket."""
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(RegistryClient(RegistryUrls(url or registry.url), 3.0))
        disk = DiskCache(directory) if directory else None
        server = EdgeServer(ListenAddress(path=socket), Edge("task-1", client, disk, fallback))
        stack.callback(server.close)
        assert await server.listen()
        running = asyncio.create_task(server.run())
        limits = httpx.Limits(max_connections=None)
        transport = httpx.AsyncHTTPTransport(verify=NO_TLS, uds=str(socket), limits=limits)
        envoy = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://registry", timeout=20)
        )
        try:
            yield World(server, envoy, registry)
        finally:
            running.cancel()
            await asyncio.wait({running})


def another_way(edge: World) -> World:
    """Return the same edge, with connections of another Envoy; its client is to be closed."""
    transport = httpx.AsyncHTTPTransport(verify=NO_TLS, uds=str(edge.server.address.path))
    return World(edge.server, httpx.AsyncClient(transport=transport, base_url="http://registry"), edge.registry)


def addresses(response: httpx.Response) -> list[str]:
    """Return the endpoints in an answer."""
    (assignment,) = response.json()["resources"]
    members = assignment["endpoints"][0]["lb_endpoints"]
    sockets = [member["endpoint"]["address"]["socket_address"] for member in members]
    return [f"{where['address']}:{where['port_value']}" for where in sockets]
