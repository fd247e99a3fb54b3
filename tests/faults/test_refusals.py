"""PostgreSQL is there and refuses: to every process, to one of two, or for a moment."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from harness.cluster import Cluster
from harness.figures import Figures
from harness.process import eventually
from harness.registry import Registry, registry

from registry.store.migration import migrate_now

pytestmark = pytest.mark.faults

_LEASE = 4.0
_ENDPOINT = "10.0.0.1:80"


@contextlib.contextmanager
def _process(url: str, workplace: Path) -> Iterator[Registry]:
    options = {"migrate": "false", "lease_ttl": f"{_LEASE:g}s", "sweep_interval": "250ms"}
    with registry(url, workplace, **options) as found:
        yield found


def _role(server: Cluster, database: str, name: str) -> str:
    """Return the URL of a role that may read and write every table."""
    role = f"{urlsplit(database).path.removeprefix('/')}_{name}"
    server.execute(f"CREATE ROLE {role} LOGIN", url=database)
    server.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}", url=database)
    parts = urlsplit(database)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


def _lose_renewals(server: Cluster, database: str, url: str) -> None:
    server.execute(f"REVOKE UPDATE ON leases FROM {urlsplit(url).username}", url=database)


def _beat(found: Registry, service: str) -> int:
    return found.register(service, _ENDPOINT, ttl=_LEASE).status_code


def _state(found: Registry) -> dict[str, Any]:
    answer = found.client.get("/v1/state")
    assert answer.status_code == 200, answer.text
    state: dict[str, Any] = answer.json()
    return state


def _kinds(found: Registry, service: str) -> str:
    events = found.client.get(f"/v1/events?service={service}").json()["events"]
    return " ".join(sorted({event["kind"] for event in events}))


def test_a_right_that_every_process_lost_expires_nobody(
    killable: Cluster, workplace: Path, figures: Figures, service: str
) -> None:
    """For four lease times; it is given back, and a host that is lost then is found as ever."""
    database = killable.create_database()
    migrate_now(database, 10)
    url = _role(killable, database, "all")
    with _process(url, workplace) as found:
        assert _beat(found, service) == 200
        eventually(lambda: "registry_sweep_leader 1.0" in found.client.get("/metrics").text, within=10)
        _lose_renewals(killable, database, url)
        ended = time.monotonic() + 4 * _LEASE
        answers = set()
        while time.monotonic() < ended:
            answers.add(_beat(found, service))
            time.sleep(0.5)
        figures.equal("A8", "every process refused for four leases: answers to heartbeats", {503}, answers)
        figures.equal(
            "A8", "every process refused for four leases: kinds of events", "registered", _kinds(found, service)
        )
        killable.execute(f"GRANT UPDATE ON leases TO {urlsplit(url).username}", url=database)
        took = eventually(lambda: _beat(found, service) == 200, within=10)
        figures.at_most("A8", "the right given back: first heartbeat stored, nothing restarted", 2.0, took)
        took = eventually(lambda: found.statuses(service)[_ENDPOINT] == "TIMEOUT", within=20)
        figures.at_most("A8", "a host lost after it, lease of 4 s", _LEASE + 3, took)


def test_a_right_that_one_of_two_processes_lost_is_credited_for_two_leases(
    killable: Cluster, workplace: Path, figures: Figures, service: str
) -> None:
    """Then an alert says who is cut off, and expiry goes on; a lost host waits no longer than that."""
    database = killable.create_database()
    migrate_now(database, 10)
    well, ill = (_role(killable, database, name) for name in ("well", "ill"))
    with _process(well, workplace) as sweeping:
        eventually(lambda: "registry_sweep_leader 1.0" in sweeping.client.get("/metrics").text, within=10)
        with _process(ill, workplace) as failing:
            assert _beat(failing, service) == 200
            # Live endpoints that nothing is wrong with, so that the guard lets the one lapse.
            for number in range(2, 12):
                sweeping.register(service, f"10.0.0.{number}:80", ttl=600)
            eventually(lambda: len(_state(sweeping)["processes"]) == 2, within=10)
            assert _beat(failing, service) == 200
            _lose_renewals(killable, database, ill)
            begun, alerted = time.monotonic(), 0.0
            while sweeping.statuses(service)[_ENDPOINT] == "HEALTHY" and time.monotonic() - begun < 40:
                assert _beat(failing, service) == 503
                if not alerted and "registry_processes_cut_off 1.0" in sweeping.client.get("/metrics").text:
                    alerted = time.monotonic() - begun
                time.sleep(0.25)
            held = time.monotonic() - begun
            figures.at_least("A4, A8", "one process of two refused, lease of 4 s: its endpoints stay", 2 * _LEASE, held)
            figures.at_most("A4, A8", "one process of two refused: expiry goes on", 3 * _LEASE + 4, held)
            figures.at_most("A4, A8", "one process of two refused: the alert's metric", 2 * _LEASE + 4, alerted)
            assert alerted


def test_what_a_fresh_connection_mends_is_not_seen(
    killable: Cluster, workplace: Path, figures: Figures, service: str
) -> None:
    """Tables are altered under writes."""
    database = killable.create_database()
    with registry(database, workplace) as found:
        answers: set[int] = set()
        for size in range(900, 910):
            kind = f"varchar({size})"
            killable.execute(f"ALTER TABLE endpoints ALTER COLUMN revision TYPE {kind}", url=database)
            killable.execute(f"ALTER TABLE services ALTER COLUMN name TYPE {kind}", url=database)
            answers |= {
                found.register(service, f"10.0.0.{n}:80", weight=size, ttl=600).status_code for n in range(1, 9)
            }
        figures.equal("A8", "tables altered ten times: answers to 80 writes", {200}, answers)


def test_what_is_written_after_an_outage_is_listed(
    killable: Cluster, workplace: Path, figures: Figures, service: str
) -> None:
    """By the process that answered, at once."""
    database = killable.create_database()
    with registry(database, workplace, database_timeout="1s") as found:
        missing = 0
        for number in range(1, 4):
            killable.kill()
            time.sleep(4)
            killable.start()
            endpoint = f"10.0.0.{number}:80"
            eventually(lambda at=endpoint: found.register(service, at, ttl=600).status_code == 200, within=20)  # type: ignore[misc]  # bound to this turn
            missing += endpoint not in found.statuses(service)
        figures.none_of("A10", "stored after an outage, and not listed by that process", missing, 3)
