"""Sample apps, each on a port of its own, in one process: ``python -m harness.fleet 127.0.0.1:20001 …``."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.process import eventually, free_port, running
from registry_demo.app import SampleApp


@contextlib.contextmanager
def fleet(directory: Path, count: int) -> Iterator[list[str]]:
    """Run ``count`` apps in one process; return their ip:port."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    endpoints = [f"127.0.0.1:{port}" for port in sorted(ports)]
    command = [sys.executable, "-m", "harness.fleet", *endpoints]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    log = directory / "fleet.log"
    with running(command, env=env, log=log) as process:
        eventually(lambda: process.poll() is not None or all(map(listens, endpoints)), within=15, said=log.read_text)
        assert process.poll() is None, log.read_text()[-2000:]
        yield endpoints


def listens(endpoint: str) -> bool:
    """Tell whether somebody takes connections at an ip:port."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


async def _serve(endpoints: list[str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.TaskGroup() as tasks:
        for endpoint in endpoints:
            host, _, port = endpoint.rpartition(":")
            tasks.create_task(SampleApp(endpoint, "").serve(host, int(port), stop))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
