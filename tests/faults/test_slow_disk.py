"""PostgreSQL's disk takes two seconds an fsync: the dead expire, the live stay, and one process keeps the lead."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness.cluster import Cluster, cluster
from harness.figures import Figures
from harness.fleet import fleet
from harness.process import eventually
from harness.registrar import registrar
from harness.registry import Registry, registry
from harness.slow_disk import SlowDisk, slow_disk

pytestmark = pytest.mark.faults

_TTL = 8.0
_FSYNC = 2.0
_WRITE = 3 * _FSYNC
"""Seconds that a commit takes at most: it may wait for two fsyncs that began before it, and for its own."""
_WRITES = 4
"""Writes by which a lapse is later: two that a heartbeat may wait for, that of the sweep before, and its own."""


@pytest.fixture
def slowed() -> Iterator[tuple[Cluster, SlowDisk]]:
    """A PostgreSQL whose disk can be slowed down."""
    with slow_disk() as disk, cluster(env=disk.env) as server:
        yield server, disk


def _metric(found: Registry, name: str) -> float:
    lines = found.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def test_a_slow_disk(slowed: tuple[Cluster, SlowDisk], workplace: Path, service: str, figures: Figures) -> None:
    """Three live endpoints and a dead one, two registries."""
    server, disk = slowed
    database = server.migrated_database()
    with ExitStack() as stack:
        told = {"lease_ttl": f"{_TTL}s", "removal_delay": "2s", "database_timeout": "10s"}
        found = [stack.enter_context(registry(database, workplace, **told)) for _ in range(2)]
        live = stack.enter_context(fleet(workplace, 3))
        for endpoint in live:
            stack.enter_context(registrar(workplace, found[0].url, service, endpoint))
        eventually(lambda: found[0].statuses(service) == dict.fromkeys(live, "HEALTHY"), within=20)
        dead = f"{service}-dead"
        disk.slow_down(_FSYNC)
        time.sleep(_FSYNC)
        assert found[0].register(dead, "10.0.0.1:80", ttl=_TTL).is_success
        lapsed = eventually(lambda: found[0].statuses(dead) == {"10.0.0.1:80": "TIMEOUT"}, within=60)
        time.sleep(max(0.0, 30 - lapsed))
        events = found[0].client.get(f"/v1/events?service={service}").json()["events"]
        leads = sum(one.log.read_text().count("sweep_lead_gained") for one in found)
        credited = sum(_metric(one, "registry_credited_seconds_total") for one in found)
        disk.slow_down(0.0)
    bound = _TTL + 1 + _WRITES * _WRITE
    fault = f"disk of {_FSYNC:g} s an fsync"
    figures.at_most("A5", f"{fault}, lease of {_TTL:g} s: a silent endpoint is not routable", bound, lapsed)
    figures.equal("A5", f"{fault} for 30 s: kinds of events of live endpoints", {"registered"}, _kinds(events))
    figures.equal("A5", f"{fault} for 30 s: processes that led the sweeping", 1, leads)
    figures.at_most("A5", f"{fault} for 30 s: time credited to leases", 0, credited)


def _kinds(events: list[dict[str, str]]) -> set[str]:
    return {event["kind"] for event in events}
