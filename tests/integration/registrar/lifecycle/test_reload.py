"""SIGHUP: new settings for a running process, as a process."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from integration.registrar.processes import admin, environment, registrar, until

from wire.model import Report


class Running:
    """A registrar whose settings are in one file."""

    def __init__(self, process: asyncio.subprocess.Process, client: httpx.AsyncClient, file: Path) -> None:
        self.process = process
        self.client = client
        self._file = file

    async def reload(self, text: str) -> dict[str, object]:
        """Write new settings, send SIGHUP and return the status when it was followed."""
        before = (await self.client.get("/status")).json()["reloads"]
        self._file.write_text(text)
        self.process.send_signal(signal.SIGHUP)
        async with asyncio.timeout(10):
            while True:
                status: dict[str, object] = (await self.client.get("/status")).json()
                if status["reloads"] != before:
                    return status
                await asyncio.sleep(0.02)


def services(*said: str) -> str:
    """Return a file of services, each given as ``name port`` with more keys behind."""
    lines = []
    for text in said:
        name, port, *more = text.split(" ", 2)
        checks = "" if "checks" in text else ", checks: [{type: tcp, interval: 100ms, timeout: 90ms}]"
        extra = f", {more[0]}" if more else ""
        lines.append(f"- {{service: {name}, endpoint: '127.0.0.1:{port}'{extra}{checks}}}")
    return "services:\n" + "\n".join(lines) + "\n"


@pytest.fixture
async def running(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> AsyncIterator[Running]:
    """A registrar of the service shop."""
    file = tmp_path / "services.yaml"
    file.write_text(services(f"shop {app.port}"))
    where = f"unix:{tmp_path}/admin.sock"
    environ = {
        name: text
        for name, text in environment(
            registry, app, REGISTRAR_ADMIN_LISTEN=where, REGISTRAR_CONFIG=str(file), REGISTRAR_DRAIN_WAIT="200ms"
        ).items()
        if name not in ("REGISTRAR_SERVICE", "REGISTRAR_ENDPOINT") and "CHECK" not in name
    }
    async with registrar(environ) as process, admin(where) as client:
        await until(client, "/readyz", 200)
        yield Running(process, client, file)


async def test_what_is_the_same_goes_on(running: Running, registry: FakeRegistry, app: FakeApp) -> None:
    """A service that did not change keeps its incarnation, its state and its counts."""
    incarnation = registry.last.registration.incarnation
    status = await running.reload(services(f"shop {app.port} weight: 7"))
    (endpoint,) = status["endpoints"]  # type: ignore[misc]
    assert (endpoint["state"], endpoint["incarnation"]) == ("HEALTHY", incarnation)  # type: ignore[has-type]
    await registry.until(lambda: registry.last.registration.weight == 7, 2)
    assert registry.last.registration.incarnation == incarnation
    assert not any(beat.registration.draining for beat in registry.heartbeats)


async def test_what_is_new_starts_and_what_is_gone_drains(
    running: Running, registry: FakeRegistry, app: FakeApp
) -> None:
    """The new service is registered, and the old one drained, waited for and deregistered."""
    async with FakeApp() as other:
        await running.reload(services(f"admin {other.port}"))
        await registry.until(lambda: registry.deregistrations)
        await until(running.client, "/readyz", 200)
        status = (await running.client.get("/status")).json()
    assert registry.deregistrations[0].path == f"/v1/services/shop/endpoints/127.0.0.1:{app.port}"
    drained = [beat.registration.draining for beat in registry.heartbeats if beat.service == "shop"]
    assert drained[-1]
    assert [endpoint["service"] for endpoint in status["endpoints"]] == ["admin"]
    assert status["drain"] == "serving"


async def test_what_comes_back_is_a_new_incarnation(running: Running, registry: FakeRegistry, app: FakeApp) -> None:
    """An endpoint that drained in this process may return, but not as the one that drained."""
    first = registry.last.registration.incarnation
    await running.reload(services("admin 1"))
    await registry.until(lambda: registry.deregistrations)
    await running.reload(services(f"shop {app.port}"))
    await registry.until(lambda: registry.last.registration.incarnation > first)
    assert not registry.last.registration.draining


async def test_other_checks_take_over_when_they_know(running: Running, registry: FakeRegistry, app: FakeApp) -> None:
    """Until the new checks have a verdict the old state is sent; then theirs, without a start-up grace."""
    registry.interval = 0.1
    incarnation = registry.last.registration.incarnation
    http = "checks: [{type: http, path: /healthz, interval: 200ms, timeout: 90ms, expect_status: [500]}]"
    await running.reload(services(f"shop {app.port} {http}"))
    seen = len(registry.heartbeats)
    await registry.until(lambda: registry.last.registration.health == "UNHEALTHY")
    said = [beat.registration.health for beat in registry.heartbeats[seen:]]
    assert set(said[:-1]) <= {"HEALTHY", "UNHEALTHY"}
    assert registry.last.registration.incarnation == incarnation
    assert registry.deregistrations == []


# Neither passes nor fails for as long as a test lasts.
UNDECIDED = "checks: [{type: tcp, interval: 1h, timeout: 90ms}]"


async def test_checks_that_change_twice_before_a_verdict_take_over_all_the_same(
    running: Running, registry: FakeRegistry, app: FakeApp
) -> None:
    """The state that nobody checks any more is replaced by the newest checks' and not sent for good."""
    await running.reload(services(f"shop {app.port} {UNDECIDED}"))
    http = "checks: [{type: http, path: /healthz, interval: 100ms, timeout: 90ms, expect_status: [500]}]"
    await running.reload(services(f"shop {app.port} {http}"))
    await registry.until(lambda: registry.last.registration.health == "UNHEALTHY")


async def test_what_is_gone_before_its_new_checks_have_a_verdict_drains_too(
    running: Running, registry: FakeRegistry, app: FakeApp
) -> None:
    """The state that was sent until then is drained and deregistered."""
    await running.reload(services(f"shop {app.port} {UNDECIDED}"))
    await running.reload(services("admin 1"))
    await registry.until(lambda: registry.deregistrations)
    assert registry.last.registration.draining


@pytest.mark.parametrize(
    "broken", ["services: [", "services: []", "services: [{service: a, endpoint: 'iface:nope0:80'}]"]
)
async def test_a_fault_changes_nothing(running: Running, registry: FakeRegistry, broken: str) -> None:
    """Fault 26: the old settings stay, and the fault is counted and shown."""
    status = await running.reload(broken)
    assert status["reloads"]["rejected"] == 1  # type: ignore[index]
    assert status["reloads"]["fault"]  # type: ignore[index]
    assert status["ready"] is True
    metrics = (await running.client.get("/metrics")).text
    assert 'registrar_reloads_total{result="rejected"} 1' in metrics
    seen = len(registry.batches)
    await registry.until(lambda: len(registry.batches) > seen)
    assert registry.last.registration.health is Report.HEALTHY


async def test_a_new_token_is_used(running: Running, registry: FakeRegistry, app: FakeApp) -> None:
    """A credential that was exchanged on disk does not need a restart."""
    await running.reload("token: n3w\n" + services(f"shop {app.port}"))
    seen = len(registry.batches)
    await registry.until(lambda: len(registry.batches) > seen + 1)
    assert "bearer n3w" in registry.headers.get("authorization", "").lower()


async def test_a_token_serves_until_the_restart_that_a_login_needs(
    running: Running, registry: FakeRegistry, app: FakeApp
) -> None:
    """A reload replaces the token; one that brings a login instead keeps it, and says what it needs."""
    text = services(f"shop {app.port}")
    await running.reload(f"token: hct_first\n{text}")
    await registry.until(lambda: registry.headers.get("authorization") == "Bearer hct_first")
    await running.reload(f"token: hct_second\n{text}")
    await registry.until(lambda: registry.headers.get("authorization") == "Bearer hct_second")
    await running.reload(f"login: aws\nlogin_audience: headcount-tests\n{text}")
    seen = len(registry.batches)
    await registry.until(lambda: len(registry.batches) > seen + 1)
    assert registry.headers["authorization"] == "Bearer hct_second"
    assert registry.logins == []
