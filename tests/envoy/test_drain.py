"""Stops under load, through a real Envoy that merely polls: no request is lost."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness.envoy import Envoy, envoy
from harness.process import end, eventually, free_port, running, script
from harness.registry import Registry, registry
from harness.traffic import traffic

from registry_demo.traffic import Traffic

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

# Envoy polls every second, up to two; with a budget below a second nothing is held.
REFRESH_DELAY, REQUEST_TIMEOUT = "1s", "0.9s"
DRAIN_WAIT = "3500ms"


class Shop:
    """An app and the registrar beside it."""

    def __init__(self, port: int, app: subprocess.Popen[bytes], registrar: subprocess.Popen[bytes]) -> None:
        self.endpoint = f"127.0.0.1:{port}"
        self.app = app
        self.registrar = registrar

    def stop(self) -> None:
        """Stop as a supervisor does: the registrar first, and the app when that has gone."""
        self.registrar.send_signal(signal.SIGTERM)
        assert self.registrar.wait(20) == 0
        assert end(self.app) == 0


def _environment(found: Registry, service: str, port: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")}
    return inherited | {
        "REGISTRAR_REGISTRY_URL": found.url,
        "REGISTRAR_SERVICE": service,
        "REGISTRAR_ENDPOINT": f"127.0.0.1:{port}",
        "REGISTRAR_INSTANCE_ID": f"i-{port}",
        "REGISTRAR_CHECK_HTTP_PATH": "/healthz",
        "REGISTRAR_CHECK_INTERVAL": "250ms",
        "REGISTRAR_ON_SIGTERM": "drain",
        "REGISTRAR_DRAIN_WAIT": DRAIN_WAIT,
        "REGISTRAR_ADMIN_LISTEN": "off",
    }


def _app(port: int) -> list[str]:
    return [sys.executable, "-m", "registry_demo.app", "--listen", f"127.0.0.1:{port}", "--name", str(port)]


def _start(stack: contextlib.ExitStack, directory: Path, found: Registry, service: str) -> Shop:
    port = free_port()
    app = stack.enter_context(running(_app(port), log=directory / "apps.log"))
    environ = _environment(found, service, port)
    command = [*script("registrar"), "run"]
    return Shop(port, app, stack.enter_context(running(command, env=environ, log=directory / "registrars.log")))


def _start_exec(stack: contextlib.ExitStack, directory: Path, found: Registry, service: str) -> Shop:
    port = free_port()
    command = [*script("registrar"), "exec", "--", *_app(port)]
    environ = _environment(found, service, port)
    both = stack.enter_context(running(command, env=environ, log=directory / "registrars.log"))
    return Shop(port, both, both)


def _serves(balancer: Envoy, service: str, shops: list[Shop]) -> bool:
    healthy = {name for name, health in balancer.hosts(service).items() if health == "HEALTHY"}
    return {shop.endpoint for shop in shops} <= healthy


@contextlib.contextmanager
def _loaded(
    directory: Path, found: Registry, service: str, shops: list[Shop], *, health_checks: bool
) -> Iterator[tuple[Envoy, Traffic]]:
    """Put an Envoy and its load in front of the shops, and assert in the end that it lost nothing."""
    port = free_port()
    with envoy(
        directory,
        [found.port],
        [service],
        listener=port,
        health_checks=health_checks,
        refresh_delay=REFRESH_DELAY,
        request_timeout=REQUEST_TIMEOUT,
    ) as balancer:
        eventually(partial(_serves, balancer, service, shops), within=15, said=lambda: str(balancer.hosts(service)))
        # The first active health check of each endpoint is on its way.
        time.sleep(1.0 if health_checks else 0.2)
        with traffic(port) as load:
            eventually(lambda: load.sent > 100)
            yield balancer, load
            # An Envoy that still held what has gone would lose requests now.
            time.sleep(2.5)
        assert [outcome for outcome in load.outcomes if outcome.failure] == []
        assert balancer.counter(service, "update_rejected") == 0


@pytest.mark.parametrize("health_checks", [False, True], ids=["plain polling", "active health checks"])
def test_stops_lose_no_request(shared_registry: Registry, tmp_path: Path, service: str, health_checks: bool) -> None:
    """Fault 7: one of three drains, and then each is replaced by a new one, at 150 requests a second."""
    start = partial(_start, directory=tmp_path, found=shared_registry, service=service)
    with contextlib.ExitStack() as stack:
        shops = [start(stack) for _ in range(3)]
        with _loaded(tmp_path, shared_registry, service, shops, health_checks=health_checks) as (balancer, load):
            shops.pop(0).stop()
            shops.append(start(stack))
            for _ in range(3):
                shops.append(start(stack))
                eventually(partial(_serves, balancer, service, shops[-1:]), within=15)
                shops.pop(0).stop()
        assert load.sent > 1000


def test_exec_stops_its_app_after_the_drain(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """One SIGTERM to `registrar exec` is enough: it drains, waits, and only then ends the app."""
    with contextlib.ExitStack() as stack:
        shops = [_start_exec(stack, tmp_path, shared_registry, service) for _ in range(2)]
        with _loaded(tmp_path, shared_registry, service, shops, health_checks=False):
            shops[0].registrar.send_signal(signal.SIGTERM)
            assert shops[0].registrar.wait(20) == 0


def test_a_stop_without_a_registry_ends_before_its_deadline(database: str, tmp_path: Path, service: str) -> None:
    """Fault 8: with the registry away at SIGTERM the registrar is gone three seconds before the stop timeout."""
    with contextlib.ExitStack() as stack:
        with registry(database, tmp_path) as found:
            port = free_port()
            stack.enter_context(running(_app(port), log=tmp_path / "apps.log"))
            environ = _environment(found, service, port) | {"REGISTRAR_STOP_TIMEOUT": "6s"}
            command = [*script("registrar"), "run"]
            stopped = stack.enter_context(running(command, env=environ, log=tmp_path / "registrars.log"))
            eventually(lambda: found.statuses(service) == {f"127.0.0.1:{port}": "HEALTHY"})
        started = time.monotonic()
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(5.5) == 0
        assert time.monotonic() - started >= 2
