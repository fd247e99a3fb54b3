"""`registryctl check` tells healthy systems from broken ones, and names the cause: real parts, really broken."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness.app import app
from harness.cluster import Cluster, cluster
from harness.envoy import Envoy, envoy
from harness.mangler import mangler
from harness.operator import Said, registryctl
from harness.postgres import Postgres
from harness.process import eventually, free_port
from harness.registrar import registrar
from harness.registry import Registry, registry

pytestmark = pytest.mark.envoy


@pytest.fixture(scope="module")
def own_database(server: Postgres) -> str:
    """A database of these tests."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def own_registry(own_database: str, workplace: Path) -> Iterator[Registry]:
    """A registry on it."""
    with registry(own_database, workplace, sweep_interval="200ms", removal_delay="1s", lease_ttl="4s") as process:
        yield process


def examine(url: str, *words: str) -> dict[str, dict[str, Any]]:
    """Return what `check -o json` found, by the ids of the checks."""
    said = registryctl(url, "check", "-o", "json", *words)
    report = said.json
    checks = {check["id"]: check for category in report["categories"] for check in category["checks"]}
    failing = [check["id"] for check in checks.values() if check["result"] == "failure"]
    assert said.status == (1 if failing else 0), said
    assert report["ok"] is (not failing)
    return checks


def troubles(checks: dict[str, dict[str, Any]], of: str = "") -> dict[str, str]:
    """Return what is not well and how bad it is, of all checks or of those whose ids begin so."""
    bad = ("warning", "failure")
    return {name: check["result"] for name, check in checks.items() if check["result"] in bad and name.startswith(of)}


def admin_of(balancer: Envoy) -> str:
    """Return the URL of an Envoy's admin interface."""
    return str(balancer._client.base_url).rstrip("/")


def test_a_healthy_system_is_told_to_be(own_registry: Registry, tmp_path: Path, service: str) -> None:
    """A registry, an endpoint and an Envoy that follows it: nothing to complain of, and every part was looked at."""
    own_registry.register(service, "127.0.0.1:9", ttl=600)
    with envoy(tmp_path, [own_registry.port], [service]) as balancer:
        eventually(lambda: bool(balancer.hosts(service)), within=10)
        checks = examine(own_registry.url, "--envoy", admin_of(balancer))
    assert troubles(checks) == {}
    assert {name for name, check in checks.items() if check["result"] == "skipped"} == {
        "access-refuses-nobody",
        "replicas-one-database",
        "replicas-agree",
        "tls-certificate",
    }
    assert checks["envoy-polls"]["said"] == [service]
    assert checks["registry-reachable"]["see"] == "docs/checks.md#registry-reachable"


def test_the_report_for_people_has_a_mark_and_a_hint_a_line(own_registry: Registry, service: str) -> None:
    """A check that passes has one line; any other has its cause and a link; short shows only those."""
    own_registry.register(service, "127.0.0.2:9", ttl=600, health="UNHEALTHY")
    try:
        said = registryctl(own_registry.url, "check")
        assert said.status == 1
        lines = said.out.splitlines()
        assert "√ PostgreSQL answers the registry  " in said.out
        index = lines.index("\N{MULTIPLICATION SIGN} 1 service has no routable endpoint")
        assert lines[index + 1] == f"    {service}: no endpoint may have traffic (1 UNHEALTHY)"
        assert lines[index + 2] == "    see docs/checks.md#services-routable for what to do"
        short = registryctl(own_registry.url, "check", "-o", "short").out
        assert "√" not in short
        assert "services-routable" in short
    finally:
        own_registry.register(service, "127.0.0.2:9", ttl=600)


@pytest.mark.proof
def test_an_envoy_that_rejects_answers_is_named_from_both_sides(
    own_registry: Registry, tmp_path: Path, service: str
) -> None:
    """A poisoned cluster: the registry sees it stuck, its own admin interface that it rejects; healed, a warning."""
    own_registry.register(service, "127.0.0.1:91", ttl=600)
    with mangler(own_registry.url) as between, envoy(tmp_path, [between.port], [service]) as balancer:
        eventually(lambda: bool(balancer.hosts(service)), within=10)
        between.poisoned = True
        own_registry.register(service, "127.0.0.1:91", ttl=600, zone="zz")
        eventually(lambda: balancer.counter(service, "update_rejected") > 2, within=10)
        eventually(lambda: _is_stuck(own_registry, service), within=20, every=0.5)
        checks = examine(own_registry.url, "--envoy", admin_of(balancer))
        assert troubles(checks, "envoy") == {"envoy-rejects-nothing": "failure", "envoy-current": "failure"}
        assert checks["subscribers-not-stuck"]["result"] == "failure"
        assert "brings version 1 all the same" in checks["subscribers-not-stuck"]["said"][0]
        assert f"{service}: rejected" in checks["envoy-rejects-nothing"]["said"][0]
        assert checks["envoy-current"]["said"] == [f"{service}: it holds version 1, the registry serves 2"]
        between.poisoned = False
        eventually(lambda: not _is_stuck(own_registry, service), within=20, every=0.5)
        healed = examine(own_registry.url, "--envoy", admin_of(balancer))
        assert troubles(healed, "envoy") == {"envoy-rejects-nothing": "warning"}


def _is_stuck(own_registry: Registry, service: str) -> bool:
    stuck = registryctl(own_registry.url, "subscribers", service, "--state", "stuck", "-o", "json").json["subscribers"]
    return bool(stuck)


def test_an_envoy_that_is_set_up_wrongly_is_named(own_registry: Registry, tmp_path: Path, service: str) -> None:
    """Polls in a loop that cannot be held, and clusters that keep removed endpoints, are told with what to write."""
    own_registry.register(service, "127.0.0.1:9", ttl=600)
    with envoy(
        tmp_path, [own_registry.port], [service], refresh_delay="0.005s", request_timeout="1s", health_checks=True
    ) as balancer:
        eventually(lambda: bool(balancer.hosts(service)), within=10)
        checks = examine(own_registry.url, "--envoy", admin_of(balancer))
    assert checks["envoy-refresh"]["result"] == "failure"
    assert "refresh_delay of 5 ms" in checks["envoy-refresh"]["said"][0]
    assert "request_timeout of 1 s is too short" in checks["envoy-refresh"]["said"][1]
    assert checks["envoy-host-removal"]["result"] == "failure"
    assert "active health checks keep removed endpoints in use" in checks["envoy-host-removal"]["said"][0]


@pytest.mark.proof
def test_an_envoy_whose_polls_fail_is_named(own_registry: Registry, tmp_path: Path, service: str) -> None:
    """Its management cluster leads to nobody: its polls fail, and it holds nothing of what is served."""
    own_registry.register(service, "127.0.0.1:9", ttl=600)
    with envoy(tmp_path, [free_port()], [service]) as balancer:
        checks = examine(own_registry.url, "--envoy", admin_of(balancer))
    assert troubles(checks, "envoy") == {"envoy-polls-succeed": "failure", "envoy-current": "failure"}
    assert "it has taken no answer yet" in checks["envoy-current"]["said"][0]


def test_an_envoy_in_panic_is_named(own_registry: Registry, tmp_path: Path, service: str) -> None:
    """One of three endpoints is well: Envoy sends to all of them, and check says so."""
    for number, health in ((1, "HEALTHY"), (2, "UNHEALTHY"), (3, "UNHEALTHY")):
        own_registry.register(service, f"127.0.0.{number}:92", ttl=600, health=health)
    with envoy(tmp_path, [own_registry.port], [service]) as balancer:
        eventually(lambda: len(balancer.hosts(service)) == 3, within=10)
        checks = examine(own_registry.url, "--envoy", admin_of(balancer))
    assert troubles(checks, "envoy") == {"envoy-no-panic": "failure"}
    assert "1 of 3 endpoints are well" in checks["envoy-no-panic"]["said"][0]


def test_what_is_no_envoy_is_told(own_registry: Registry) -> None:
    """A URL with nobody behind it, and one with something else."""
    nobody = examine(own_registry.url, "--envoy", f"http://127.0.0.1:{free_port()}")
    assert nobody["envoy-reachable"]["said"] == ["Connection refused"]
    assert nobody["envoy-live"]["result"] == "skipped"
    other = examine(own_registry.url, "--envoy", own_registry.url)
    assert other["envoy-reachable"]["result"] == "failure"


@pytest.mark.proof
def test_a_registrar_that_stopped_is_named(own_registry: Registry, tmp_path: Path, service: str) -> None:
    """While its lease runs out it is late; then it has fallen silent, with its service and its instance."""
    with app(tmp_path) as listening:
        with registrar(tmp_path, own_registry.url, service, listening.endpoint) as sidecar:
            eventually(lambda: own_registry.statuses(service) == {listening.endpoint: "HEALTHY"}, within=20)
            sidecar.kill()
        eventually(lambda: "heartbeats-punctual" in troubles(examine(own_registry.url)), within=20, every=0.5)
        eventually(lambda: own_registry.statuses(service) == {listening.endpoint: "TIMEOUT"}, within=40, every=0.5)
        checks = examine(own_registry.url)
        said = [line for line in checks["registrars-heard"]["said"] if service in line]
        assert said[0].startswith(
            f"{service} {listening.endpoint} of instance i-{listening.endpoint}: its lease lapsed"
        )
        assert "its registrar or machine has stopped" in said[0]
        assert any(service in line for line in checks["services-routable"]["said"])
        own_registry.client.delete(f"/v1/services/{service}/endpoints/{listening.endpoint}")
        eventually(lambda: own_registry.statuses(service) == {}, within=10)


def test_a_pause_is_a_warning_and_no_failure(own_registry: Registry, service: str) -> None:
    """Warnings alone leave the exit status 0."""
    own_registry.register(service, "127.0.0.1:9", ttl=600)
    registryctl(own_registry.url, "pause", service, "-r", "switch", "--for", "10m")
    # A verdict is made of what PostgreSQL said a quarter of a second ago at most, which is before the pause.
    eventually(lambda: examine(own_registry.url)["expiry-not-paused"]["result"] == "warning", within=5)
    checks = examine(own_registry.url)
    registryctl(own_registry.url, "resume", service)
    assert "switch" in checks["expiry-not-paused"]["said"][0]


def test_a_registry_that_is_away_is_one_failure(own_registry: Registry) -> None:
    """Nobody answers: that is said once, and nothing is claimed of what could not be looked at."""
    checks = examine(f"http://127.0.0.1:{free_port()}")
    assert troubles(checks) == {"registry-reachable": "failure"}
    assert {check["result"] for name, check in checks.items() if name != "registry-reachable"} == {"skipped"}


@pytest.mark.proof
def test_replicas_are_compared(own_registry: Registry, own_database: str, server: Postgres, workplace: Path) -> None:
    """Two processes of one registry agree; one that answers no more is named; one of another registry is none."""
    own_registry.register("compared", "127.0.0.1:9", ttl=600)
    with registry(own_database, workplace) as other:
        checks = examine(f"{own_registry.url},{other.url}")
        assert checks["replicas-agree"]["result"] == "ok"
        assert checks["replicas-one-database"]["said"] == ["2 were asked"]
        eventually(lambda: examine(own_registry.url)["replicas-working"]["said"] == ["2 report"], within=10)
        psutil.Process(other.process.pid).suspend()
        try:
            frozen = examine(f"{own_registry.url},{other.url}", "--timeout", "1s")
            eventually(lambda: examine(own_registry.url)["replicas-heard"]["result"] == "failure", within=30, every=0.5)
            heard = examine(own_registry.url)["replicas-heard"]
        finally:
            psutil.Process(other.process.pid).resume()
        assert frozen["registry-reachable"]["said"] == [f"{other.url}: no answer in time"]
        assert heard["headline"] == "1 registry process is silent"
        assert f":{other.process.pid} has not reported for " in heard["said"][0]
        assert "1 of them is connected to PostgreSQL and hangs" in heard["said"][1]
        eventually(lambda: examine(own_registry.url)["replicas-heard"]["result"] == "ok", within=20, every=0.5)
    with registry(server.migrated_database(), workplace) as stranger:
        apart = examine(f"{own_registry.url},{stranger.url}")
        assert apart["replicas-one-database"]["result"] == "failure"


@contextlib.contextmanager
def frozen(database: Cluster) -> Iterator[None]:
    """Stop every process of a PostgreSQL for the length of the block, as a machine that hangs does."""
    assert database._postmaster is not None
    postmaster = psutil.Process(database._postmaster.pid)
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for process in stopped:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.mark.proof
def test_a_postgresql_that_hangs_or_stops_is_named(tmp_path: Path, service: str) -> None:
    """Frozen or shut down, it is the one failure at first; --wait says when it is back."""
    with cluster() as database, registry(database.url, tmp_path, database_timeout="1s") as process:
        process.register(service, "127.0.0.1:9", ttl=600)
        assert troubles(examine(process.url, "--wait", "20s")) == {}
        with frozen(database):
            checks = examine(process.url)
            assert checks["postgresql-answers"]["result"] == "failure"
            assert "reads go on from memory, writes are refused" in checks["postgresql-answers"]["said"][0]
        assert troubles(examine(process.url, "--wait", "30s")) == {}
        database.stop()
        checks = examine(process.url)
        assert {name for name, bad in troubles(checks).items() if bad == "failure"} <= {
            "postgresql-answers",
            "snapshot-fresh",
        }
        assert "PostgreSQL is away" in checks["postgresql-answers"]["said"][0]
        assert checks["sweeps-happen"]["result"] == "skipped"
        waited: list[Said] = []
        waiting = threading.Thread(target=lambda: waited.append(registryctl(process.url, "check", "--wait", "40s")))
        waiting.start()
        database.start()
        waiting.join(60)
        assert waited[0].status == 0, waited[0]
        assert "all is well" in waited[0].out or "warning" in waited[0].out
