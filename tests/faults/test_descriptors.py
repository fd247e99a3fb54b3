"""File descriptors run out: those of a registry, by clients that hold polls, and those of a registrar."""

import asyncio
import re
import resource
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from harness.app import turned
from harness.figures import Figures
from harness.process import eventually, script
from harness.registrar import registrar
from harness.registry import Registry, registry
from harness.scarcity import Heard, beat, limited, pollers

pytestmark = pytest.mark.faults

_TTL = 4.0


def _kinds(found: Registry, service: str) -> str:
    events = found.client.get(f"/v1/events?service={service}").json()["events"]
    return " ".join(sorted({event["kind"] for event in events}))


def _metric(found: Registry, name: str) -> float:
    told = re.search(rf"^{name}(?:{{.*}})? (\S+)$", found.client.get("/metrics").text, re.MULTILINE)
    return float(told[1]) if told else 0.0


async def _crowd(found: Registry, service: str, endpoints: Iterable[str], count: int) -> Heard:
    heard = Heard()
    version = found.poll(service).json()["version_info"]
    async with pollers(found.port, service, version, count, heard):
        await asyncio.sleep(1)
        await beat(found.port, service, list(endpoints), _TTL, 3 * _TTL, heard)
    return heard


@pytest.mark.parametrize(("descriptors", "count"), [(200, 260), (1024, 1100)])
def test_more_polls_than_descriptors(
    database: str, workplace: Path, service: str, figures: Figures, descriptors: int, count: int
) -> None:
    """Envoys hold more polls than there are descriptors, while 20 endpoints connect for each heartbeat."""
    program = limited(descriptors, script("registry"))
    settings = {"lease_ttl": f"{_TTL}s", "removal_delay": "1s"}
    with registry(database, workplace, program=program, **settings) as found:
        endpoints = [f"10.0.0.{number}:80" for number in range(1, 21)]
        for endpoint in endpoints:
            found.register(service, endpoint, ttl=_TTL)
        heard = asyncio.run(_crowd(found, service, endpoints, count))
        # One that was suspected or lapsed meanwhile is told of here.
        kinds = _kinds(found, service)
        suspects = _metric(found, "registry_suspects")
        listed = len(found.statuses(service))
        refused = _metric(found, "registry_accepts_refused_total")
    fault = f"{descriptors:,} descriptors, {count:,} held polls, for three leases"
    figures.none_of("A4", f"{fault}: heartbeats over new connections that failed", heard.failed_beats, heard.beats)
    figures.at_most("A4", f"{fault}: slowest heartbeat", _TTL / 4, heard.slowest_beat)
    figures.equal("A4", f"{fault}: endpoints listed", len(endpoints), listed)
    figures.equal("A4", f"{fault}: suspected", 0, int(suspects))
    figures.equal("A4", f"{fault}: kinds of events", "registered", kinds)
    figures.show("A4", f"{fault}: accepts that were refused", f"{refused:,.0f}")
    assert heard.polls > count


def test_a_registrar_without_descriptors(database: str, workplace: Path, service: str, figures: Figures) -> None:
    """A registrar that cannot open a connection to its app says nothing of it, and goes on renewing."""
    with (
        registry(database, workplace, lease_ttl=f"{_TTL}s") as found,
        turned() as app,
        registrar(workplace, found.url, service, app.endpoint) as sidecar,
    ):
        eventually(lambda: found.statuses(service) == {app.endpoint: "HEALTHY"}, within=20)
        hard = resource.prlimit(sidecar.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(sidecar.process.pid, resource.RLIMIT_NOFILE, (3, hard))
        time.sleep(3 * _TTL)
        figures.equal(
            "A4",
            "registrar without descriptors for three leases: kinds of events",
            "registered",
            _kinds(found, service),
        )
        resource.prlimit(sidecar.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        app.status = 503
        took = eventually(lambda: found.statuses(service) == {app.endpoint: "UNHEALTHY"}, within=20)
        figures.at_most("A4", "registrar with descriptors again: a failing app is found", 7, took)
