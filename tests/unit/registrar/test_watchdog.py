"""Signs of life for systemd's watchdog, and the latch of the health check."""

import asyncio
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.registrar.fake_app import FakeApp
from unit.registrar.fake_registry import FakeRegistry
from unit.registrar.processes import environment, registrar

from registrar.lifecycle.startup_gate import StartupGate
from registrar.watchdog import Watchdog, notify_systemd


def test_a_pulse_is_alive_until_it_broke_its_promise() -> None:
    """Before the first promise there is none to break; ten seconds late is late, one is not."""
    watchdog = Watchdog()
    assert watchdog.alive(1e9)
    watchdog.expect(100, 5)
    assert watchdog.alive(106)
    assert not watchdog.alive(120)


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
        stuck.expect(asyncio.get_running_loop().time() - 100, 1)
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


def test_healthy_a_drain_wait_after_the_first_registration() -> None:
    """Envoys need that long to hear of it."""
    latch = StartupGate(0)
    assert not latch.healthy(5, None, 12)
    assert not latch.healthy(6, 5, 12)
    assert latch.healthy(17, 5, 12)


def test_healthy_after_two_minutes_without_any_registry() -> None:
    """A registry that is away must not make ECS replace the fleet."""
    latch = StartupGate(0)
    assert not latch.healthy(119, None, 12)
    assert latch.healthy(120, None, 12)


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.none() | st.floats(0, 300), st.floats(0, 60)),
        min_size=1,
    )
)
def test_healthy_is_for_good(steps: list[tuple[float, float | None, float]]) -> None:
    """Whatever happens later, who was healthy stays so."""
    latch, now, was = StartupGate(0), 0.0, False
    for pause, registered, wait in steps:
        now += pause
        healthy = latch.healthy(now, registered, wait)
        assert healthy or not was
        was = healthy
