"""A process of the registry behind one of its HTTP fronts, in the test's own event loop and without a database."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn

from registry.app import build_asgi_app
from registry.http.protocol_selftest import select_protocol
from registry.process import RegistryProcess


@asynccontextmanager
async def serving(process: RegistryProcess, front: str) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a process that is not started by a front, and yield a client of it."""
    protocol = await asyncio.to_thread(select_protocol, front)
    assert protocol is not None
    config = uvicorn.Config(build_asgi_app(process), http=protocol, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, timeout=15) as client:
        yield client
        process.release()
    server.should_exit = True
    await task
