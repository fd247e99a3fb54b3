"""The local admin interface and the verbs that ask it, as processes."""

import asyncio
import json
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry, fenced
from harness.prometheus import promtool
from integration.registrar.processes import SOURCES, admin, environment, registrar, run_verb, until
from prometheus_client.parser import text_string_to_metric_families

from registrar.admin.metrics_text import ENVOY_TOKEN, ENVOY_TOKEN_FAILED, LOGIN_FAILING, LOGINS, METRICS, SESSION
from wire.model import Health, Report

PUSHED = """
services:
- service: shop
  endpoint: 127.0.0.1:{port}
  checks: [{{type: push, interval: 100ms, timeout: 90ms, ttl: 5s}}]
"""


@pytest.fixture
def where(tmp_path: Path) -> str:
    """Where the admin interface listens."""
    return f"unix:{tmp_path}/admin.sock"


@pytest.fixture
def environ(registry: FakeRegistry, app: FakeApp, where: str) -> dict[str, str]:
    """The environment of a registrar with an admin interface, and of the verbs beside it."""
    return environment(registry, app, REGISTRAR_ADMIN_LISTEN=where)


@pytest.fixture
async def asked(environ: dict[str, str], where: str) -> AsyncIterator[httpx.AsyncClient]:
    """A running registrar, by way of its admin interface."""
    async with registrar(environ), admin(where) as client:
        yield client


async def test_it_tells_that_it_lives_and_when_it_is_ready(asked: httpx.AsyncClient, app: FakeApp) -> None:
    """Livez is about the process, readyz about its registrations; supervisors ask by GET or HEAD."""
    assert (await asked.get("/livez")).status_code == 200
    await until(asked, "/readyz", 200)
    assert (await asked.head("/readyz")).status_code == 200
    app.answer = None
    await until(asked, "/readyz", 503)
    assert (await asked.get("/livez")).status_code == 200
    assert "UNHEALTHY" in (await asked.get("/readyz")).text


async def test_the_status_has_endpoints_checks_and_heartbeats(
    asked: httpx.AsyncClient, app: FakeApp, registry: FakeRegistry
) -> None:
    """One document says what is published, why, and how the heartbeats fare."""
    await until(asked, "/readyz", 200)
    status = (await asked.get("/status")).json()
    (endpoint,) = status["endpoints"]
    (check,) = endpoint["checks"]
    assert (endpoint["service"], endpoint["endpoint"]) == ("shop", f"127.0.0.1:{app.port}")
    assert (endpoint["state"], endpoint["published"], endpoint["accepted"]) == ("HEALTHY", "HEALTHY", True)
    assert (check["type"], check["outcome"], check["detail"]) == ("http", "passed", "200 OK")
    assert check["counts"]["passed"] >= 2
    assert (status["drain"], status["registry"]["url"]) == ("serving", registry.url)
    assert (status["registry"]["away"], status["registry"]["failed"]) == (None, 0)
    assert status["registry"]["sent"] >= 1


async def test_metrics_are_in_prometheus_format(asked: httpx.AsyncClient) -> None:
    """Each metric has its help and type, follows the naming rules, and has exactly its labels."""
    await until(asked, "/readyz", 200)
    answer = await asked.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    # The others are there where it logs in (test_running_registrar), has an edge (test_running_edge), or an Envoy.
    for metric in METRICS:
        if metric in (LOGINS, LOGIN_FAILING, SESSION, ENVOY_TOKEN, ENVOY_TOKEN_FAILED):
            continue
        if metric.name.startswith(("registrar_edge_", "registrar_traffic_")):
            continue
        family = families.pop(metric.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.type, metric.help)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert re.fullmatch(r"(registrar|process)_[a-z]+(_[a-z]+)*", metric.name)
        assert {tuple(sample.labels) for sample in family.samples} == {metric.labels}
    assert families == {}
    assert 'registrar_transitions_total{service="shop",' in answer.text
    assert 'registrar_drain_state{state="serving"} 1' in answer.text


async def test_promtool_finds_no_fault_in_the_metrics(asked: httpx.AsyncClient) -> None:
    """Names, units and help are as Prometheus' own linter wants them, and no address is a label."""
    await until(asked, "/readyz", 200)
    text = (await asked.get("/metrics")).text
    assert promtool("check", "metrics", text=text) == ""
    assert "127.0.0.1" not in text


async def test_drain_takes_out_waits_and_deregisters(
    environ: dict[str, str], where: str, registry: FakeRegistry
) -> None:
    """`registrar drain` returns when it is over; the process goes on and ends at once when it is stopped."""
    async with registrar(environ | {"REGISTRAR_ON_SIGTERM": "drain"}) as process, admin(where) as client:
        await until(client, "/readyz", 200)
        assert await run_verb(environ, "drain") == (
            0,
            "drained: no endpoint of this registrar is in rotation any more\n",
            "",
        )
        assert registry.last.registration.draining
        assert len(registry.deregistrations) == 1
        status = (await client.get("/status")).json()
        assert (status["drain"], status["endpoints"][0]["published"]) == ("drained", None)
        code, text, _ = await run_verb(environ, "status")
        assert (code, text.splitlines()[0]) == (1, "NOT READY 0 of 1 endpoints in rotation")
        assert "DRAINING, not published" in text
        await until(client, "/readyz", 503)
        assert process.returncode is None
        process.terminate()
        async with asyncio.timeout(3):
            assert await process.wait() == 0
    assert len(registry.deregistrations) == 1


async def test_a_drain_that_the_registry_refuses_is_told(
    environ: dict[str, str], asked: httpx.AsyncClient, registry: FakeRegistry, app: FakeApp
) -> None:
    """`registrar drain` ends with 1, what was refused, and what becomes of it."""
    registry.ttl = 1.0
    await until(asked, "/readyz", 200)
    registry.failures.extend([(401, {}, b"who are you?")] * 99)
    status, out, err = await run_verb(environ, "drain")
    assert (status, out) == (1, "")
    assert err.startswith("registrar: the registry refused the drain; the leases expire by themselves: ")
    assert f"shop 127.0.0.1:{app.port}: 401 Said: who are you?" in err
    assert (await asked.get("/status")).json()["drain"] == "refused"
    assert 'registrar_drain_state{state="refused"} 1' in (await asked.get("/metrics")).text


async def test_drain_need_not_wait(environ: dict[str, str], asked: httpx.AsyncClient, registry: FakeRegistry) -> None:
    """With --no-wait the verb returns when the drain has begun."""
    registry.drain_wait = 60
    await until(asked, "/readyz", 200)
    assert await run_verb(environ, "drain", "--no-wait") == (
        0,
        "draining: `registrar status` shows when it is over\n",
        "",
    )
    await registry.until(lambda: registry.last.registration.draining)
    assert (await asked.get("/status")).json()["drain"] == "draining"


async def test_healthcheck_is_latched(
    environ: dict[str, str], asked: httpx.AsyncClient, registry: FakeRegistry, app: FakeApp
) -> None:
    """Healthy a drain_wait after the first grant, and from then on whatever registry and app do."""
    assert (await run_verb(environ, "healthcheck"))[0] in (0, 1)
    await until(asked, "/healthcheck", 200)
    registry.silent = True
    app.answer = None
    await until(asked, "/readyz", 503)
    assert await run_verb(environ, "healthcheck") == (0, "ok\n", "")


async def test_healthcheck_waits_for_the_first_registration(
    environ: dict[str, str], where: str, registry: FakeRegistry
) -> None:
    """Before it ECS does not count the task in."""
    registry.failures.extend([(503, {}, b"")] * 99)
    async with registrar(environ), admin(where) as client:
        assert (await client.get("/healthcheck")).status_code == 503
        status, out, err = await run_verb(environ, "healthcheck")
        # The reason is there once a first heartbeat has failed.
        assert (status, out.partition(":")[0].strip(), err) == (1, "waiting for the first registration", "")
        registry.failures.clear()
        registry.drain_wait = 60
        await until(client, "/readyz", 200)
        said = "registered; waiting until Envoys have received it\n"
        assert await run_verb(environ, "healthcheck") == (1, said, "")


async def test_healthcheck_works_with_a_broken_file(environ: dict[str, str], where: str, tmp_path: Path) -> None:
    """Fault 26: settings that are broken on disk do not make a running process unhealthy."""
    file = tmp_path / "broken.yaml"
    file.write_text("log_level: info")
    environ["REGISTRAR_CONFIG"] = str(file)
    async with registrar(environ), admin(where) as client:
        await until(client, "/healthcheck", 200)
        file.write_text("services: [")
        assert (await run_verb(environ | {"REGISTRAR_WEIGHT": "heavy"}, "healthcheck"))[0] == 0


async def test_status_is_for_people_and_programs(environ: dict[str, str], asked: httpx.AsyncClient) -> None:
    """Text by default, the whole document with --json; 0 while every endpoint is in rotation."""
    await until(asked, "/readyz", 200)
    status, text, _ = await run_verb(environ, "status")
    assert (status, text.splitlines()[0]) == (0, "ready     1 of 1 endpoints in rotation")
    assert "HEALTHY, published as HEALTHY" in text
    status, text, _ = await run_verb(environ, "status", "--json")
    assert json.loads(text)["ready"] is True


@pytest.mark.parametrize("verb", ["healthcheck", "drain", "status"])
async def test_nobody_there_is_exit_status_1(environ: dict[str, str], verb: str) -> None:
    """The message says where was asked and what to look at."""
    status, out, err = await run_verb(environ, verb)
    assert (status, out) == (1, "")
    assert "no registrar answers at unix:" in err
    off = await run_verb(environ | {"REGISTRAR_ADMIN_LISTEN": "off"}, verb)
    assert (off[0], "is off" in off[2]) == (1, True)


async def test_apps_push_their_health(registry: FakeRegistry, app: FakeApp, where: str, tmp_path: Path) -> None:
    """PUT /checks/{service} is heard by the push check, and anything else is refused with the reason."""
    file = tmp_path / "push.yaml"
    file.write_text(PUSHED.format(port=app.port))
    environ = {
        name: text
        for name, text in environment(registry, app, REGISTRAR_CONFIG=str(file), REGISTRAR_ADMIN_LISTEN=where).items()
        if name not in ("REGISTRAR_SERVICE", "REGISTRAR_ENDPOINT") and "CHECK" not in name
    }
    async with registrar(environ), admin(where) as client:
        assert (await client.put("/checks/shop", json={"state": "passed"})).status_code == 204
        await registry.until(lambda: registry.heartbeats)
        assert registry.last.registration.health is Report.HEALTHY
        said = {"state": "failed", "detail": "no disk"}
        assert (await client.put("/checks/shop", json=said)).status_code == 204
        await registry.until(lambda: registry.last.registration.health is Report.UNHEALTHY)
        assert (await client.put("/checks/other", json=said)).status_code == 404
        for wrong in ({"state": "great"}, {"state": "unknown"}, {}, {"state": "passed", "more": 1}):
            refused = await client.put("/checks/shop", json=wrong)
            assert (refused.status_code, refused.json()["title"]) == (422, "not understood")


async def test_a_fenced_endpoint_shows(asked: httpx.AsyncClient, registry: FakeRegistry) -> None:
    """A registrar that lost its address to a newer start is not ready, and says why."""
    await until(asked, "/readyz", 200)
    registry.refuse = lambda _: fenced("i-2", 9)
    await until(asked, "/readyz", 503)
    (endpoint,) = (await asked.get("/status")).json()["endpoints"]
    assert (endpoint["fenced"], endpoint["published"]) == (True, Health.HEALTHY)
    assert endpoint["problem"].startswith("409")
    assert "registrar_fenced{" in (await asked.get("/metrics")).text


async def test_a_default_place_that_is_taken_is_no_reason_to_fail(registry: FakeRegistry, app: FakeApp) -> None:
    """A second registrar of a machine goes on without its admin interface; a place that was named must be had."""
    taken = f"127.0.0.1:{app.port}"
    status, _, err = await run_verb(environment(registry, app, REGISTRAR_ADMIN_LISTEN=taken), "run")
    assert (status, f"cannot listen on {taken}" in err) == (2, True)


@pytest.mark.parametrize("verb", ["healthcheck", "drain", "status"])
async def test_a_verb_that_reaches_another_registrar_does_nothing(
    environ: dict[str, str], asked: httpx.AsyncClient, registry: FakeRegistry, app: FakeApp, verb: str
) -> None:
    """The message names both and the setting that tells them apart; nothing was drained."""
    await until(asked, "/healthcheck", 200)
    for name, other in (
        ("SERVICE", "admin"),
        ("ENDPOINT", ":9090"),
        ("INSTANCE_ID", "i-other"),
        ("CONFIG", "/etc/registrar/other.yaml"),
    ):
        status, out, err = await run_verb(environ | {f"REGISTRAR_{name}": other}, verb)
        assert (status, out) == (1, "")
        assert f"this is the registrar of shop 127.0.0.1:{app.port}, instance " in err
        assert f"; the request names {name.lower()} {other}, and its own is " in err
        assert "set REGISTRAR_ADMIN_LISTEN to an address of its own" in err
    assert not registry.last.registration.draining
    own = {"REGISTRAR_SERVICE": "shop", "REGISTRAR_ENDPOINT": f"127.0.0.1:{app.port}"}
    assert (await run_verb(environ | own, verb))[0] == 0


async def test_registrars_of_two_files_are_told_apart(
    registry: FakeRegistry, app: FakeApp, where: str, tmp_path: Path
) -> None:
    """By the file, whichever way it is written; its content may have changed since it was read."""
    (tmp_path / "one.yaml").write_text(PUSHED.format(port=app.port))
    settings = {"REGISTRAR_CONFIG": str(tmp_path / "one.yaml"), "REGISTRAR_ADMIN_LISTEN": where}
    environ = {
        name: text
        for name, text in environment(registry, app, **settings).items()
        if name not in ("REGISTRAR_SERVICE", "REGISTRAR_ENDPOINT") and "CHECK" not in name
    }
    async with registrar(environ), admin(where):
        other = await run_verb(environ | {"REGISTRAR_CONFIG": str(tmp_path / "two.yaml")}, "drain", "--no-wait")
        assert (other[0], "two.yaml, and its own is " in other[2]) == (1, True)
        same = {"REGISTRAR_CONFIG": f"{tmp_path}/../{tmp_path.name}/one.yaml"}
        assert await run_verb(environ | same, "drain", "--no-wait") == (
            0,
            "draining: `registrar status` shows when it is over\n",
            "",
        )


async def test_a_place_that_is_taken_is_named_with_its_owner(
    environ: dict[str, str], asked: httpx.AsyncClient, app: FakeApp
) -> None:
    """The second registrar says at its start who has the place."""
    status, _, err = await run_verb(environ | {"REGISTRAR_SERVICE": "admin"}, "run")
    assert "Address already in use by" in err
    assert (status, f" by the registrar of shop 127.0.0.1:{app.port}, instance " in err) == (2, True)


async def test_only_loopback_is_listened_on(registry: FakeRegistry, app: FakeApp) -> None:
    """The interface asks nobody who they are."""
    status, _, err = await run_verb(environment(registry, app, REGISTRAR_ADMIN_LISTEN="0.0.0.0:9902"), "validate")
    assert status == 2
    status, _, err = await run_verb(environment(registry, app, REGISTRAR_ADMIN_LISTEN="10.0.0.5:9902"), "validate")
    assert (status, "not a loopback address" in err) == (2, True)


async def test_a_killed_registrar_leaves_no_socket_in_the_way(environ: dict[str, str], where: str) -> None:
    """The next start takes the path over; one that is still answered is left alone."""
    async with registrar(environ) as first, admin(where):
        status, _, err = await run_verb(environ, "run")
        assert (status, "cannot listen" in err) == (2, True)
        first.kill()
        await first.wait()
        async with registrar(environ), admin(where) as client:
            assert (await client.get("/livez")).status_code == 200


async def test_a_health_check_loads_next_to_nothing() -> None:
    """It runs every few seconds beside every app: no client library, no event loop, no checks."""
    code = (
        "import sys\nfrom registrar.cli import main\nmain(['healthcheck', '--admin-listen', 'off'])\n"
        "heavy = {'h11', 'asyncio', 'yaml', 'registrar.config.settings'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={"PYTHONPATH": SOURCES}, stdout=PIPE, stderr=DEVNULL
    )
    out, _ = await process.communicate()
    assert out == b"[]\n"


async def test_a_signal_during_the_search_for_an_address_is_heard(registry: FakeRegistry, app: FakeApp) -> None:
    """A task that is stopped while its metadata still keeps the registrar waiting is not held up by it."""
    async with FakeApp(None) as silent:
        metadata = f"http://127.0.0.1:{silent.port}/v4/x"
        environ = environment(registry, app, ECS_CONTAINER_METADATA_URI_V4=metadata, REGISTRAR_ENDPOINT=":8080")
        async with registrar(environ) as process:
            async with asyncio.timeout(10):
                while not silent.requests:
                    await asyncio.sleep(0.02)
            process.terminate()
            async with asyncio.timeout(3):
                assert await process.wait() == 0
