"""Signs of life for systemd's watchdog, over a real datagram socket."""

import asyncio
import socket
from pathlib import Path

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from integration.registrar.processes import environment, registrar

from registrar.watchdog import Watchdog, notify_systemd


async def test_one_silent_task_silences_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog is told that all is well while every task goes on, and not any more when one stops."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    well, stuck = Watchdog(), Watchdog()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(path)
        channel.setblocking(False)
        task = asyncio.create_task(notify_systemd(lambda: {"a": well, "b": stuck}, 0.06))
        await asyncio.sleep(0.05)
        assert channel.recv(64) == b"WATCHDOG=1"
        stuck.reset(asyncio.get_running_loop().time() - 100, 1)
        await asyncio.sleep(0.05)
        with pytest.raises(BlockingIOError):  # noqa: PT012 - empties the queue first
            while True:
                channel.recv(64)
        await asyncio.sleep(0.1)
        with pytest.raises(BlockingIOError):
            channel.recv(64)
        task.cancel()


async def test_systemd_is_told_that_all_is_well(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """A running registrar pings the watchdog it was given, whether the registry is there or not."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(path)
        channel.settimeout(10)
        environ = environment(
            registry, app, NOTIFY_SOCKET=path, WATCHDOG_USEC="300000", REGISTRAR_REGISTRY_URL="http://127.0.0.1:9"
        )
        async with registrar(environ):
            said = [await asyncio.to_thread(channel.recv, 64) for _ in range(5)]
    assert said == [b"READY=1", *[b"WATCHDOG=1"] * 4]
