"""The gRPC listener in a thread of the test with a world in memory, through which real clients see any resource."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from harness.xds_messages import ClusterLoadAssignment
from harness.xds_world import Heard, MemorySource, World
from registry.http2.call import Metadata, Peer
from registry.http2.limits import Limits
from registry.http2.listener import Http2Listener
from registry.xds.grpc.observer import Guard, NoGuard, Observer
from registry.xds.grpc.service import DiscoveryService
from registry.xds.grpc.source import encode_resource, make_entry

Result = TypeVar("Result")
_LIMITS = Limits(max_message=1_048_576, max_age=0)


class StreamServer:
    """A running listener; the world behind it is changed in the thread of its event loop.

    Attributes:
        world: what it serves.
        heard: what all of its streams said of themselves.
        port: the port of the listener.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, world: World, port: int, heard: Heard) -> None:
        self._loop = loop
        self.world = world
        self.heard = heard
        self.port = port

    def assign(self, service: str, *addresses: str) -> None:
        """Publish an assignment with these addresses, at port 80, whether Envoy takes them or not."""
        members = [
            {"endpoint": {"address": {"socket_address": {"address": each, "port_value": 80}}}} for each in addresses
        ]
        value = ClusterLoadAssignment(cluster_name=service, endpoints=[{"lb_endpoints": members}]).SerializeToString()
        self.do(lambda: publish(self.world.eds, service, value))

    def do(self, work: Callable[[], Result]) -> Result:
        """Run something in the thread of the event loop, and return its result."""

        async def run() -> Result:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=20)


def publish(source: MemorySource, name: str, value: bytes) -> None:
    """Publish the bytes of a message under a name, as its next version."""
    version = max(source.versions.values(), default=0) + 1
    entry = make_entry(source.type.type_urls["v3"], value)
    source.provide(encode_resource(name, f"db:{version}", entry), version)


@contextlib.contextmanager
def stream_server() -> Iterator[StreamServer]:
    """Serve an empty world until the end of the block."""
    world, heard = World(), Heard()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="streams")
    thread.start()

    def admit(_path: str, _metadata: Metadata, _peer: Peer) -> tuple[Guard, Observer]:
        return NoGuard(), heard

    async def listen() -> tuple[Http2Listener, asyncio.Server]:
        listener = Http2Listener(DiscoveryService(world.shared, admit, lambda: None), _LIMITS, 10_000)
        return listener, await loop.create_server(listener.make_protocol, "127.0.0.1", 0)

    async def end(listener: Http2Listener, server: asyncio.Server) -> None:
        server.close()
        listener.abort()
        await server.wait_closed()

    try:
        listener, server = asyncio.run_coroutine_threadsafe(listen(), loop).result(timeout=20)
        try:
            yield StreamServer(loop, world, server.sockets[0].getsockname()[1], heard)
        finally:
            asyncio.run_coroutine_threadsafe(end(listener, server), loop).result(timeout=20)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
