"""A sweep goes on where PostgreSQL refuses one change, and is given up where its clock is set meanwhile."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness.cluster import Cluster, cluster
from harness.event_log import was_logged
from harness.faketime import Clock, clock_for_all, faked
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

_OPTIONS: dict[str, Any] = {"sweep_interval": "500ms", "removal_delay": "1s", "database_timeout": "3s"}
_LEASE = 2.0
_SWEEPS_IN_LEASE = 5
"""So many begin at most while a lease of two seconds lasts, one each half second."""

_CHECK = "ALTER TABLE events ADD CONSTRAINT refused CHECK (service <> '{0}' OR actor <> 'sweeper') NOT VALID"
_CHECK_OF_ALL = "ALTER TABLE events ADD CONSTRAINT refused CHECK (service <> '{0}') NOT VALID"
_RAISES = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF NEW.service = '{0}' AND NEW.actor = 'sweeper' THEN RAISE EXCEPTION 'refused' USING ERRCODE = '{1}'; END IF;"
    " RETURN NULL; END $$"
)
_AT_ONCE = "CREATE TRIGGER refused AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION refuse()"
_AT_COMMIT = (
    "CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION refuse()"
)
_REFUSALS: dict[str, tuple[str, ...]] = {
    "a CHECK on events": (_CHECK,),
    "a trigger that raises": (_RAISES.replace("{1}", "P0001"), _AT_ONCE),
    "a commit refused as too large": (_RAISES.replace("{1}", "54000"), _AT_COMMIT),
    "an encoding": (_RAISES.replace("{1}", "22P05"), _AT_ONCE),
    "a version at its limit": ("UPDATE services SET version = 9223372036854775807 WHERE name = '{0}'",),
}


def _refuse(server: Postgres, database: str, service: str, statements: tuple[str, ...]) -> None:
    for statement in statements:
        server.execute(statement.replace("{0}", service), url=database)


def _metric(found: Registry, name: str) -> float:
    lines = found.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def _sweeps_before_lapse(found: Registry, service: str, endpoint: str) -> int:
    """Return how many sweeps were made since now when the endpoint was seen to be in rotation for the last time."""
    counts = [_metric(found, "registry_sweeps_total")]

    def lapsed() -> bool:
        swept = _metric(found, "registry_sweeps_total")
        if found.statuses(service) == {endpoint: "TIMEOUT"}:
            return True
        counts.append(swept)
        return False

    eventually(lapsed, within=30)
    return int(counts[-1] - counts[0])


@pytest.mark.parametrize("statements", _REFUSALS.values(), ids=_REFUSALS.keys())
def test_a_service_that_cannot_be_changed_stops_no_other(
    statements: tuple[str, ...], database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Others lapse in the first sweep after their lease, none is credited, the lead is kept, the service is named."""
    with registry(database, workplace, **_OPTIONS) as found:
        for number in range(20):
            # So many that the guard lets more than one lapse.
            found.register(f"{service}-crowd", f"10.1.0.{number + 1}:80", ttl=600)
        found.register(service, "10.0.0.1:80", ttl=1)
        _refuse(server, database, service, statements)
        eventually(lambda: _metric(found, "registry_services_not_swept") == 1, within=5)
        for name, endpoint in ((f"{service}-other", "10.0.1.1:80"), (f"{service}-another", "10.0.1.2:80")):
            found.register(name, endpoint, ttl=_LEASE)
            assert _sweeps_before_lapse(found, name, endpoint) <= _SWEEPS_IN_LEASE
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        assert _metric(found, "registry_credited_seconds_total") == 0
        metrics = found.client.get("/metrics").text
        assert f'registry_sweep_refusals_total{{service="{service}"}}' in metrics
    log = found.log.read_text()
    assert not was_logged("sweep_lead_lost", found.log)
    assert log.count("sweep_refused") == 1
    # The driver cannot send a number beyond the limit: that is told as a defect, with one traceback.
    assert ("Traceback" in log) == (statements == _REFUSALS["a version at its limit"])


def test_a_removal_and_an_override_that_are_refused_stop_no_other(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Of two services the one loses its departed endpoint and its override, and what is refused is mended later."""
    other = f"{service}-other"
    with registry(database, workplace, **_OPTIONS) as found:
        for name, subnet in ((service, "10.0.0"), (other, "10.0.1")):
            for number in (1, 2):
                found.register(name, f"{subnet}.{number}:80", ttl=600)
            path = f"/v1/services/{name}/endpoints/{subnet}"
            found.client.put(f"{path}.1:80/override", json={"drain": True, "reason": "x", "expires_in": 1})
            assert found.client.delete(f"{path}.2:80").status_code == 204
        _refuse(server, database, service, _REFUSALS["a CHECK on events"])
        eventually(lambda: found.statuses(other) == {"10.0.1.1:80": "HEALTHY"}, within=5)
        assert found.statuses(service) == {"10.0.0.1:80": "DRAINING", "10.0.0.2:80": "DRAINING"}
        eventually(lambda: _metric(found, "registry_services_not_swept") == 1, within=2)
        server.execute("ALTER TABLE events DROP CONSTRAINT refused", url=database)
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}, within=5)
        eventually(lambda: _metric(found, "registry_services_not_swept") == 0, within=2)
    log = found.log.read_text()
    assert (log.count("sweep_refused"), log.count("sweep_resumed")) == (2, 2)


def test_a_new_leader_holds_what_the_one_before_was_refused(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Heartbeats were refused with the sweep, so those whose leases expired are suspects until they have come again."""
    with registry(database, workplace, **_OPTIONS) as found:
        for number in (1, 2):
            found.register(service, f"10.0.0.{number}:80", ttl=1)
        _refuse(server, database, service, (_CHECK_OF_ALL,))
        eventually(lambda: _metric(found, "registry_services_not_swept") == 1, within=5)
        # Longer than a sweep may be late.
        time.sleep(4)
    server.execute("ALTER TABLE events DROP CONSTRAINT refused", url=database)
    with registry(database, workplace, **_OPTIONS) as found:
        eventually(lambda: _metric(found, "registry_sweeps_total") >= 4, within=10)
        assert set(found.statuses(service).values()) == {"HEALTHY"}
        suspects = found.client.get("/v1/expiry").json()["suspects"]
        assert [one["endpoint"] for one in suspects] == ["10.0.0.1:80", "10.0.0.2:80"]
        found.register(service, "10.0.0.1:80", ttl=60)
        gone = {"10.0.0.1:80": "HEALTHY", "10.0.0.2:80": "TIMEOUT"}
        eventually(lambda: found.statuses(service) == gone, within=12)
        events = found.client.get(f"/v1/events?service={service}").json()["events"]
        assert [event["endpoint"] for event in events if event["kind"] == "lapsed"] == ["10.0.0.2:80"]


@pytest.fixture(scope="module")
def clocked() -> Iterator[tuple[Cluster, Clock]]:
    """A PostgreSQL whose clock can be set."""
    with ExitStack() as stack:
        clock = stack.enter_context(clock_for_all())
        yield stack.enter_context(cluster(env=faked(clock))), clock


@pytest.mark.parametrize("step", [300, -300])
@pytest.mark.parametrize("held", ["leases", "services"])
def test_a_clock_that_is_set_within_a_sweep_expires_nobody(
    held: str, step: int, clocked: tuple[Cluster, Clock], workplace: Path, service: str
) -> None:
    """A lock holds the sweep up between its statements; PostgreSQL's clock is set; the live stay, the dead go."""
    server, clock = clocked
    clock.jump(0)
    database = server.migrated_database()
    with registry(database, workplace, **_OPTIONS) as found:
        for number in range(20):
            found.register(service, f"10.0.0.{number + 1}:80", ttl=120)
        found.register(f"{service}-dead", "10.0.1.1:80", ttl=1)
        found.register(f"{service}-left", "10.0.2.1:80", ttl=600)
        found.register(f"{service}-left", "10.0.2.2:80", ttl=600)
        time.sleep(0.2)
        with server.holding(f"LOCK TABLE {held} IN ACCESS EXCLUSIVE MODE", url=database):
            time.sleep(1)
            clock.jump(step)
        # A write that was held up allows renewals twice its time: 6 s here. The credit of a step is a lease more.
        eventually(lambda: found.statuses(f"{service}-dead") == {"10.0.1.1:80": "TIMEOUT"}, within=20)
        eventually(lambda: "sweep_given_up" in found.log.read_text() or _credited(found) > 0, within=3)
        assert found.statuses(service) == {f"10.0.0.{number + 1}:80": "HEALTHY" for number in range(20)}
        events = found.client.get(f"/v1/events?service={service}").json()["events"]
        assert {event["kind"] for event in events} == {"registered"}


def _credited(found: Registry) -> float:
    return _metric(found, "registry_credited_seconds_total")
