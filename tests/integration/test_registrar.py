"""Registrar and registry together, as processes: what the registrar says is what Envoys are told."""

import contextlib
import http.server
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from harness.postgres import Postgres
from harness.process import end, eventually, free_port, running, script
from harness.registry import Registry, registry


class _App:
    """A small app whose health can be turned."""

    def __init__(self, port: int = 0) -> None:
        app = self
        self.status = 200

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(app.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.endpoint = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        """End it; its port refuses connections from then on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def _app() -> Iterator[_App]:
    app = _App()
    try:
        yield app
    finally:
        app.stop()


@contextlib.contextmanager
def _registrar(directory: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")}
    if "config" not in settings:
        settings = {"check_interval": "100ms", **settings}
    settings = {"admin_listen": "off", **settings}
    told = {f"REGISTRAR_{name.upper()}": value for name, value in settings.items()}
    with running([*script("registrar"), "run"], env=env | told, log=directory / "registrar.log") as process:
        yield process


def _told(found: Registry, service: str, statuses: Mapping[str, str]) -> bool:
    return found.statuses(service) == statuses


def _events(found: Registry, service: str) -> list[str]:
    events = found.client.get(f"/v1/events?service={service}").json()["events"]
    return [event["kind"] for event in reversed(events)]


def test_health_follows_the_app(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """Published once it passes, UNHEALTHY when it fails, HEALTHY again when it passes again, with the reason."""
    with (
        _app() as app,
        _registrar(
            tmp_path,
            registry_url=shared_registry.url,
            service=service,
            endpoint=app.endpoint,
            check_http_path="/healthz",
        ),
    ):
        eventually(partial(_told, shared_registry, service, {app.endpoint: "HEALTHY"}), within=10)
        app.status = 500
        eventually(partial(_told, shared_registry, service, {app.endpoint: "UNHEALTHY"}), within=5)
        found = shared_registry.client.get(f"/v1/services/{service}/endpoints/{app.endpoint}").json()
        assert "500" in found["detail"]
        app.status = 200
        eventually(partial(_told, shared_registry, service, {app.endpoint: "HEALTHY"}), within=10)


def test_a_killed_registrar_that_starts_again_changes_nothing_for_envoys(
    shared_registry: Registry, tmp_path: Path, service: str
) -> None:
    """Kill -9 and a new start: the same instance goes on, and no version that an Envoy sees moves.

    Not even with checks so far apart that two of them outlast the lease.
    """
    with _app() as app:
        settings = {"registry_url": shared_registry.url, "service": service, "endpoint": app.endpoint}
        settings["check_interval"] = "30s"
        with _registrar(tmp_path, **settings) as first:
            eventually(partial(_told, shared_registry, service, {app.endpoint: "HEALTHY"}), within=10)
            first.send_signal(signal.SIGKILL)
            first.wait(5)
        before = shared_registry.poll(service).content
        with _registrar(tmp_path, **settings):
            eventually(lambda: len(_events(shared_registry, service)) == 2, within=10)
            assert shared_registry.poll(service).content == before


def test_sigterm_drains_then_deregisters(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """DRAINING for the drain wait, then gone; the process exits 0."""
    with (
        _app() as app,
        _registrar(
            tmp_path,
            registry_url=shared_registry.url,
            service=service,
            endpoint=app.endpoint,
            on_sigterm="drain",
            drain_wait="1s",
        ) as process,
    ):
        eventually(partial(_told, shared_registry, service, {app.endpoint: "HEALTHY"}), within=10)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        eventually(partial(_told, shared_registry, service, {app.endpoint: "DRAINING"}), within=2)
        assert process.wait(10) == 0
        assert 1.0 <= time.monotonic() - started < 4.0
        assert _events(shared_registry, service)[:3] == ["registered", "drained", "deregistered"]
        eventually(partial(_told, shared_registry, service, {}), within=5)


def test_sigterm_after_a_crash_drains_what_was_published_before(
    shared_registry: Registry, tmp_path: Path, service: str
) -> None:
    """A start that has not checked anything yet ends what the one before it had published, with its drain wait."""
    with _app() as app:
        settings = {"registry_url": shared_registry.url, "service": service, "endpoint": app.endpoint}
        settings |= {"instance_id": "i-crashed", "on_sigterm": "drain", "drain_wait": "1s"}
        with _registrar(tmp_path, **settings) as first:
            eventually(partial(_told, shared_registry, service, {app.endpoint: "HEALTHY"}), within=10)
            first.kill()
            first.wait(5)
        app.status = 500
        again = tmp_path / "again"
        again.mkdir()
        with _registrar(again, **settings, check_http_path="/") as second:
            eventually(lambda: "address_resolved" in (again / "registrar.log").read_text(), within=10)
            assert shared_registry.statuses(service) == {app.endpoint: "HEALTHY"}
            started = time.monotonic()
            second.terminate()
            eventually(partial(_told, shared_registry, service, {app.endpoint: "DRAINING"}), within=3)
            assert second.wait(10) == 0
            assert time.monotonic() - started >= 1.0
        assert _events(shared_registry, service)[1:3] == ["drained", "deregistered"]


def test_keep_leaves_the_registration(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """on_sigterm=keep: a restart of the daemon takes nothing out of rotation."""
    with (
        _app() as app,
        _registrar(
            tmp_path,
            registry_url=shared_registry.url,
            service=service,
            endpoint=app.endpoint,
            on_sigterm="keep",
        ) as process,
    ):
        eventually(partial(_told, shared_registry, service, {app.endpoint: "HEALTHY"}), within=10)
        assert end(process) == 0
        assert shared_registry.statuses(service) == {app.endpoint: "HEALTHY"}


def test_several_services_from_one_file(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """One process checks and registers what a YAML file names."""
    with _app() as first, _app() as second:
        config = tmp_path / "services.yaml"
        config.write_text(
            f"""
services:
- service: {service}
  endpoint: {first.endpoint}
  weight: 3
  checks: [{{type: http, path: /healthz, interval: 100ms, timeout: 90ms}}]
- service: {service}-admin
  endpoint: {second.endpoint}
  checks: [{{type: tcp, interval: 100ms, timeout: 90ms}}]
"""
        )
        with _registrar(tmp_path, registry_url=shared_registry.url, config=str(config)):
            eventually(
                partial(_told, shared_registry, service, {first.endpoint: "HEALTHY"}),
                within=10,
                said=(tmp_path / "registrar.log").read_text,
            )
            eventually(partial(_told, shared_registry, f"{service}-admin", {second.endpoint: "HEALTHY"}), within=5)


def test_a_clone_is_fenced_and_nothing_flaps(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """Of two registrars with one instance id the newer goes on and the older one stops publishing."""
    with _app() as app:
        settings = {
            "registry_url": shared_registry.url,
            "service": service,
            "endpoint": app.endpoint,
            "instance_id": "i-cloned",
        }
        with _registrar(tmp_path, **settings) as older:
            eventually(partial(_told, shared_registry, service, {app.endpoint: "HEALTHY"}), within=10)
            with _registrar(tmp_path, **settings):
                eventually(lambda: len(_events(shared_registry, service)) == 2, within=10)
                eventually(lambda: "fenced" in (tmp_path / "registrar.log").read_text(), within=12)
                events = _events(shared_registry, service)
                time.sleep(1)
                assert _events(shared_registry, service) == events
                assert older.poll() is None
                assert shared_registry.statuses(service) == {app.endpoint: "HEALTHY"}


def test_a_registry_that_comes_late_is_found(database: str, workplace: Path, tmp_path: Path, service: str) -> None:
    """A registrar that starts before its registry registers as soon as that is there."""
    port = free_port()
    with (
        _app() as app,
        _registrar(
            tmp_path, registry_url=f"http://127.0.0.1:{port}", service=service, endpoint=app.endpoint
        ) as process,
    ):
        time.sleep(1)
        assert process.poll() is None
        with registry(database, workplace, listen=f"127.0.0.1:{port}") as found:
            eventually(partial(_told, found, service, {app.endpoint: "HEALTHY"}), within=10)


def test_a_lost_database_is_rebuilt_by_heartbeats(
    workplace: Path, tmp_path: Path, server: Postgres, service: str
) -> None:
    """A registry that lost everything has every endpoint back within an interval, because beats are full states."""
    port = free_port()
    with (
        _app() as app,
        _registrar(tmp_path, registry_url=f"http://127.0.0.1:{port}", service=service, endpoint=app.endpoint),
    ):
        for _ in range(2):
            with registry(server.migrated_database(), workplace, listen=f"127.0.0.1:{port}") as found:
                eventually(partial(_told, found, service, {app.endpoint: "HEALTHY"}), within=12)
