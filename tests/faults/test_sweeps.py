"""Sweeps under faults of one service and of clocks: the others expire in time, and healthy endpoints stay."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.cluster import cluster
from harness.event_log import was_logged
from harness.faketime import Clock, clock_for_all, faked
from harness.figures import Figures
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

pytestmark = pytest.mark.faults

_LEASE = 2.0
_CROWD = 30
"""So many live endpoints that the guard lets a few lapse in one minute."""
_REFUSED = "ALTER TABLE events ADD CONSTRAINT refused CHECK (service <> '{0}' OR actor <> 'sweeper') NOT VALID"


def _crowd(found: Registry, service: str) -> None:
    for number in range(_CROWD):
        found.register(service, f"10.1.0.{number + 1}:80", ttl=600)


def _lapsed(found: Registry, service: str) -> Callable[[], bool]:
    return lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}


def _expires(found: Registry, service: str) -> float:
    found.register(service, "10.0.0.1:80", ttl=_LEASE)
    return eventually(_lapsed(found, service), within=30)


def _credited(found: Registry) -> float:
    lines = found.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("registry_credited_seconds_total"))


def test_one_service_is_refused(
    database: str, server: Postgres, workplace: Path, service: str, figures: Figures
) -> None:
    """A CHECK refuses what sweeps write for one service; the silent endpoints of the others expire in time."""
    with registry(database, workplace) as found:
        _crowd(found, f"{service}-crowd")
        found.register(service, "10.0.0.1:80", ttl=1)
        server.execute(_REFUSED.format(service), url=database)
        eventually(lambda: bool(found.client.get("/v1/state").json()["sweeper"]["refused"]), within=10)
        took = max(_expires(found, f"{service}-{number}") for number in range(3))
        fault = f"sweeps refused for one service, lease of {_LEASE:g} s"
        figures.at_most("A1", f"{fault}: the others expire", _LEASE + 1.5, took)
        figures.at_most("A1", f"{fault}: leases credited", 0.0, _credited(found))
        figures.equal("A1", f"{fault}: the lead was lost", False, was_logged("sweep_lead_lost", found.log))


def test_the_clock_of_postgresql_steps_inside_sweeps(workplace: Path, service: str, figures: Figures) -> None:
    """Steps of 300 s forth and back, each while a lock holds a sweep up: the live stay."""
    with clock_for_all() as clock, cluster(env=faked(clock)) as server:
        database = server.migrated_database()
        with registry(database, workplace) as found:
            _crowd(found, service)
            # Whatever is held up has something to judge.
            found.register(f"{service}-silent", "10.0.0.1:80", ttl=1)
            now = itertools.accumulate([300, -300, 300, -300])
            for seconds, table in zip(now, ("leases", "services", "leases", "services"), strict=True):
                with server.holding(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", url=database):
                    time.sleep(1.2)
                    clock.jump(seconds)
                time.sleep(3)
            kinds = {event["kind"] for event in found.client.get(f"/v1/events?service={service}").json()["events"]}
            statuses = set(found.statuses(service).values())
    fault = "PostgreSQL's clock stepped by 300 s inside 4 sweeps"
    figures.equal("A2", f"{fault}: kinds of events of live endpoints", {"registered"}, kinds)
    figures.equal("A2", f"{fault}: their states", {"HEALTHY"}, statuses)


def test_the_wall_clock_of_a_registry_steps(
    database: str, workplace: Path, service: str, figures: Figures, tmp_path: Path
) -> None:
    """An hour back and an hour forth, with a time zone that names no file."""
    clock = Clock(tmp_path / "clock")
    with registry(database, workplace, env=faked(clock) | {"TZ": "JST-9"}) as found:
        _crowd(found, f"{service}-crowd")
        took = []
        for number, seconds in enumerate((-3600, 3600, 0)):
            clock.jump(seconds)
            took.append(_expires(found, f"{service}-{number}"))
    fault = f"a registry's clock an hour back and forth, TZ=JST-9, lease of {_LEASE:g} s"
    figures.at_most("A3", f"{fault}: expired", _LEASE + 1.5, max(took))
