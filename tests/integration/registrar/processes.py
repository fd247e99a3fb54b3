"""Registrar processes, started as users start them, and asked as users ask them."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.no_tls import NO_TLS

SOURCES = str(Path(__file__).parents[3] / "src")


def environment(registry: FakeRegistry, app: FakeApp, **more: str) -> dict[str, str]:
    """Return what a sidecar of ``app`` needs."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": SOURCES,
        "REGISTRAR_REGISTRY_URL": registry.url,
        "REGISTRAR_SERVICE": "shop",
        "REGISTRAR_ENDPOINT": f"127.0.0.1:{app.port}",
        "REGISTRAR_CHECK_HTTP_PATH": "/healthz",
        "REGISTRAR_CHECK_INTERVAL": "100ms",
        "REGISTRAR_ADMIN_LISTEN": "off",
        **more,
    }


@asynccontextmanager
async def registrar(environ: dict[str, str], *arguments: str) -> AsyncIterator[Process]:
    """Run a verb, ``run`` if none is given, and end it whatever happens."""
    command = [sys.executable, "-m", "registrar.cli", *(arguments or ("run",))]
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            # A child of exec has our pipes too, and would be waited for.
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
        await process.communicate()


async def run_verb(environ: dict[str, str], *arguments: str, limit: float = 20) -> tuple[int, str, str]:
    """Run a verb to its end; return its exit status, its output and its errors."""
    async with registrar(environ, *arguments) as process, asyncio.timeout(limit):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def admin(where: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the admin interface at ``where``, as soon as it answers."""
    path = where.removeprefix("unix:") if where.startswith("unix:") else None
    transport = httpx.AsyncHTTPTransport(verify=NO_TLS, uds=path)
    base = "http://localhost" if path else f"http://{where}"
    async with httpx.AsyncClient(transport=transport, base_url=base, trust_env=False, timeout=10) as client:
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.get("/livez")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        yield client


async def until(client: httpx.AsyncClient, path: str, status: int, limit: float = 10) -> None:
    """Wait until ``path`` is answered with ``status``."""
    async with asyncio.timeout(limit):
        while (await client.get(path)).status_code != status:
            await asyncio.sleep(0.02)
