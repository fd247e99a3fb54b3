"""PostgreSQL is killed, slow, locked, half open and full, while a real Envoy has traffic."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from harness.cluster import Cluster, cluster, hold
from harness.envoy import Envoy, envoy
from harness.figures import Figures
from harness.fleet import fleet
from harness.polls import Polls, Writer, polled
from harness.process import eventually
from harness.proxy import proxy
from harness.registrar import registrar
from harness.registry import Registry, registry
from harness.watch import load, watch

pytestmark = pytest.mark.faults

_TTL = 4.0
_TMPFS = "192m"


def _in_envoy(found: Envoy, service: str, count: int) -> bool:
    return list(found.hosts(service).values()) == ["HEALTHY"] * count


def _kinds(found: Registry, service: str) -> str:
    events = found.client.get(f"/v1/events?service={service}").json()["events"]
    return " ".join(sorted({event["kind"] for event in events}))


def _through(url: str, port: int) -> str:
    """Return the URL of a database by way of another port."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"postgres@127.0.0.1:{port}"))


@contextlib.contextmanager
def _apps(workplace: Path, service: str, found: Registry, count: int) -> Iterator[list[str]]:
    with ExitStack() as stack:
        endpoints = stack.enter_context(fleet(workplace, count))
        for endpoint in endpoints:
            stack.enter_context(registrar(workplace, found.url, service, endpoint))
        eventually(lambda: found.statuses(service) == dict.fromkeys(endpoints, "HEALTHY"), within=20)
        yield endpoints


def test_a_killed_postgres_loses_nothing_that_was_acknowledged(
    killable: Cluster, workplace: Path, service: str, figures: Figures
) -> None:
    """Kill -9 under writes and traffic, away for two leases: reads go on, writes are 503, all of it mends itself."""
    database, away = killable.create_database(), 2 * _TTL
    with ExitStack() as stack:
        found = stack.enter_context(registry(database, workplace, lease_ttl=f"{_TTL}s", removal_delay="2s"))
        stack.enter_context(_apps(workplace, service, found, 3))
        gateway = stack.enter_context(envoy(workplace, [found.port], [service]))
        eventually(partial(_in_envoy, gateway, service, 3), within=5)
        changes = gateway.counter(service, "membership_change")
        with load(gateway.listener) as traffic, Writer(found.url, f"{service}-written", pause=0.005) as writer:
            normal = polled(found.url, service)
            killable.kill()
            at = time.monotonic()
            time.sleep(1)
            without = polled(found.url, service)
            time.sleep(max(0.0, away - (time.monotonic() - at)))
            killable.start()
            acknowledged = len(writer.acknowledged)
            healed = eventually(lambda: len(writer.acknowledged) > acknowledged, within=30)
            time.sleep(_TTL + 3)
        figures.none_of("11", "PostgreSQL killed for two leases: failed requests", traffic.failed, traffic.sent)
        figures.equal("11", "PostgreSQL killed: answers to polls", {200}, without.statuses)
        figures.at_most(
            "11", "PostgreSQL killed: EDS p99, twice the normal one or 5 ms", _twice(normal), without.p99(), "ms"
        )
        statuses = {status for status, _ in writer.refused}
        figures.equal("11", f"PostgreSQL killed: answers to {len(writer.refused):,} writes", {503}, statuses)
        assert all(retry.isdigit() and int(retry) >= 1 for _, retry in writer.refused)
        figures.at_most("11", "PostgreSQL back: first write stored, nothing restarted", 5, healed)
        stored = {row["place"] for row in _written(killable, database, f"{service}-written")}
        lost = set(writer.acknowledged) - stored
        figures.none_of("11", "acknowledged writes that were lost", len(lost), len(writer.acknowledged))
        listed = found.statuses(f"{service}-written")
        assert set(writer.acknowledged) <= set(listed)
        changed = gateway.counter(service, "membership_change") - changes
        figures.equal("11", "PostgreSQL killed: `membership_change` in Envoy", 0, changed)
        figures.equal("11", "PostgreSQL killed: kinds of events", "registered", _kinds(found, service))
        assert gateway.counter(service, "update_rejected") == 0


def _written(server: Cluster, database: str, service: str) -> list[dict[str, str]]:
    statement = "SELECT host(address) || ':' || port AS place FROM endpoints WHERE service = $1"
    return server.execute(statement, service, url=database)


def test_a_slow_postgres_slows_no_poll(own_cluster: Cluster, workplace: Path, service: str, figures: Figures) -> None:
    """Each answer of PostgreSQL takes five seconds: polls do not notice, writes are 503, nobody expires."""
    database = own_cluster.create_database()
    with proxy(own_cluster.port) as slow, ExitStack() as stack:
        found = stack.enter_context(
            registry(
                _through(database, slow.port),
                workplace,
                lease_ttl=f"{_TTL}s",
                removal_delay="2s",
                database_timeout="2s",
            )
        )
        endpoints = stack.enter_context(_apps(workplace, service, found, 3))
        seen = stack.enter_context(watch(partial(found.statuses, service)))
        with Writer(found.url, f"{service}-written", pause=0.2) as writer:
            normal = polled(found.url, service)
            slow.delay = 5
            time.sleep(1)
            refused = len(writer.refused)
            during = polled(found.url, service)
            time.sleep(1)
            assert len(writer.refused) > refused
            slow.delay = 0
            acknowledged = len(writer.acknowledged)
            healed = eventually(lambda: len(writer.acknowledged) > acknowledged, within=30)
            time.sleep(_TTL + 3)
        figures.at_most(
            "13", "PostgreSQL slow by 5 s: EDS p99, twice the normal one or 5 ms", _twice(normal), during.p99(), "ms"
        )
        figures.equal("13", "PostgreSQL slow: answers to refused writes", {503}, {one for one, _ in writer.refused})
        figures.at_most("13", "PostgreSQL slow, time-out 2 s: longest wait of a write", 4.5, writer.slowest)
        figures.at_most("13", "PostgreSQL fast again: first write stored", 10, healed)
        states = [state for state in seen.states() if state != dict.fromkeys(endpoints, "HEALTHY")]
        figures.equal("13", "PostgreSQL slow for two leases: changes", [], states)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("LOCK TABLE leases IN ACCESS EXCLUSIVE MODE", "table `leases` locked"),
        ("SELECT FROM leases ORDER BY endpoint_id LIMIT 1 FOR UPDATE", "one lease locked"),
    ],
    ids=["table", "row"],
)
def test_a_lock_that_is_held_expires_nobody(
    statement: str, name: str, own_cluster: Cluster, workplace: Path, service: str, figures: Figures
) -> None:
    """Heartbeats that wait for a lock for two leases are 503 and credited; polls do not notice."""
    database = own_cluster.create_database()
    settings: dict[str, Any] = {"lease_ttl": f"{_TTL}s", "removal_delay": "2s", "database_timeout": "1s"}
    with ExitStack() as stack:
        found = stack.enter_context(registry(database, workplace, **settings))
        endpoints = stack.enter_context(_apps(workplace, service, found, 6))
        seen = stack.enter_context(watch(partial(found.statuses, service)))
        normal = polled(found.url, service)
        holder = threading.Thread(target=hold, args=(database, statement, 2 * _TTL))
        holder.start()
        time.sleep(1)
        during = polled(found.url, service)
        holder.join()
        time.sleep(_TTL + 3)
        failed = 'registry_heartbeats_total{outcome="failed"}'
        counted = [line for line in found.client.get("/metrics").text.splitlines() if line.startswith(failed)]
        assert counted, "no heartbeat met the lock"
        figures.at_most("13", f"{name}: EDS p99, twice the normal one or 5 ms", _twice(normal), during.p99(), "ms")
        states = [state for state in seen.states() if state != dict.fromkeys(endpoints, "HEALTHY")]
        figures.equal("13", f"{name} for two leases: changes", [], states)


def test_a_full_disk_stops_writes_only(workplace: Path, service: str, figures: Figures) -> None:
    """PostgreSQL has no space left: polls go on, writes are 503, and free space is all that it takes to recover."""
    with (
        _tmpfs() as disk,
        cluster(disk / "data", max_wal_size="48MB", min_wal_size="32MB") as server,
        ExitStack() as stack,
    ):
        database = server.migrated_database()
        found = stack.enter_context(registry(database, workplace, lease_ttl=f"{_TTL}s", removal_delay="2s"))
        endpoints = stack.enter_context(_apps(workplace, service, found, 3))
        seen = stack.enter_context(watch(partial(found.statuses, service)))
        stack.enter_context(_supervised(server))
        ballast = disk / "ballast"
        with Writer(found.url, f"{service}-written", pause=0.005) as writer:
            time.sleep(1)
            _fill(ballast)
            _use_up(server, database)
            full = eventually(lambda: bool(writer.refused), within=20)
            before = len(writer.acknowledged)
            during = polled(found.url, service)
            ballast.unlink()
            healed = eventually(lambda: len(writer.acknowledged) > before + 20, within=30)
            time.sleep(_TTL + 2)
        figures.show("14", "disk full: until the first write was refused", f"{full:.2g} s")
        figures.equal("14", "disk full: answers to polls", {200}, during.statuses)
        figures.equal("14", "disk full: answers to refused writes", {503}, {status for status, _ in writer.refused})
        figures.at_most("14", "space again: 20 writes stored, no manual step", 15, healed)
        stored = {row["place"] for row in _written(server, database, f"{service}-written")}
        lost = set(writer.acknowledged) - stored
        figures.none_of("14", "disk full: acknowledged writes that were lost", len(lost), len(writer.acknowledged))
        states = [state for state in seen.states() if state != dict.fromkeys(endpoints, "HEALTHY")]
        figures.equal("14", "disk full for a lease: changes", [], states)


@contextlib.contextmanager
def _tmpfs() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a small file system of the test's own needs root")
    disk = Path(tempfile.mkdtemp(prefix="headcount-disk-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_TMPFS},mode=755", "tmpfs", disk], check=False)
    try:
        if mounted.returncode != 0:
            pytest.skip("no tmpfs can be mounted here")
        yield disk
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", disk], check=True)
        shutil.rmtree(disk, ignore_errors=True)


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(65_536))


def _use_up(server: Cluster, database: str) -> None:
    """Use the space that PostgreSQL had set aside, until it says that there is no more."""
    with contextlib.suppress(Exception):
        for _ in range(200):
            server.execute("CREATE TABLE IF NOT EXISTS ballast (x text)", url=database)
            server.execute(
                "INSERT INTO ballast SELECT repeat(md5(n::text), 60) FROM generate_series(1, 2000) n", url=database
            )


@contextlib.contextmanager
def _supervised(server: Cluster) -> Iterator[None]:
    """Start PostgreSQL again when it has ended, as systemd does."""
    over = threading.Event()

    def supervise() -> None:
        while not over.wait(1):
            if not server.running():
                with contextlib.suppress(AssertionError):
                    server.start()

    thread = threading.Thread(target=supervise, name="supervisor")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(40)


def test_a_half_open_connection_is_found(own_cluster: Cluster, workplace: Path, service: str, figures: Figures) -> None:
    """Connections that stand and carry nothing: the feed, and the lead, are had again over new ones in time."""
    database = own_cluster.create_database()
    settings: dict[str, Any] = {"lease_ttl": "600s", "removal_delay": "60s"}
    with (
        proxy(own_cluster.port) as middle,
        registry(_through(database, middle.port), workplace, **settings) as far,
    ):
        eventually(lambda: "registry_sweep_leader 1.0" in far.client.get("/metrics").text, within=5)
        with registry(database, workplace, **settings) as near:
            near.register(service, "10.0.0.1:80")
            eventually(lambda: len(far.statuses(service)) == 1, within=2)
            assert middle.drop() >= 2
            at = time.monotonic()
            near.register(service, "10.0.0.2:80", ttl=1)
            near.register(service, "10.0.0.3:80")
            eventually(lambda: len(far.statuses(service)) == 3, within=15)
            # A question every 3 s, and 5 s until it is given up; the rest is the machine's.
            figures.at_most("15", "all connections half open: changes seen again", 10, time.monotonic() - at)
            eventually(lambda: near.statuses(service)["10.0.0.2:80"] == "TIMEOUT", within=25)
            figures.at_most("15", "all connections half open: leases expire again", 13, time.monotonic() - at)
            assert far.register(service, "10.0.0.4:80").status_code == 200
            assert _same(far, near, service)


def _twice(normal: Polls) -> float:
    """Return the bound of a p99, in milliseconds; below 5 ms it is the machine's own noise that doubles."""
    return max(2 * normal.p99(), 5.0)


def _same(far: Registry, near: Registry, service: str) -> bool:
    eventually(lambda: far.poll(service).content == near.poll(service).content, within=5)
    return True
