"""Leases lapse, endpoints are removed in two phases, and one process does it for all."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest
from harness.cluster import hold
from harness.event_log import was_logged
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

_LOCK = "SELECT 1 FROM services WHERE name = $1 FOR UPDATE"
_LEADER = "registry_sweep_leader 1.0"


def _leads(found: Registry) -> bool:
    return _LEADER in found.client.get("/metrics").text


def test_a_lapsed_endpoint_is_published_as_timeout_then_removed(database: str, workplace: Path, service: str) -> None:
    """TIMEOUT first, left out only after the removal delay; the others are not touched."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="1s") as found:
        found.register(service, "10.0.0.1:80", ttl=60)
        found.register(service, "10.0.0.2:80", ttl=1)
        eventually(lambda: found.statuses(service).get("10.0.0.2:80") == "TIMEOUT", within=4)
        lapsed_at = time.monotonic()
        eventually(lambda: "10.0.0.2:80" not in found.statuses(service), within=5)
        assert time.monotonic() - lapsed_at >= 0.8
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        kinds = [event["kind"] for event in found.client.get(f"/v1/events?service={service}").json()["events"]]
        assert kinds == ["removed", "lapsed", "registered", "registered"]


def test_the_last_endpoints_stay_listed_when_they_lapse(database: str, workplace: Path, service: str) -> None:
    """A service that lost contact keeps its last endpoint as TIMEOUT, up to the hold."""
    options = {"sweep_interval": "100ms", "removal_delay": "300ms", "last_endpoint_hold": "3s"}
    with registry(database, workplace, **options) as found:
        found.register(service, "10.0.0.1:80", ttl=1)
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=4)
        time.sleep(1.5)
        assert found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}
        eventually(lambda: found.statuses(service) == {}, within=5)
        answer = found.poll(service).json()
        assert answer["resources"][0]["endpoints"] == []


def test_a_heartbeat_brings_a_lapsed_endpoint_back(database: str, workplace: Path, service: str) -> None:
    """What merely lapsed returns with its next heartbeat, by the same incarnation."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        found.register(service, "10.0.0.1:80", ttl=1)
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=4)
        found.register(service, "10.0.0.1:80", ttl=1)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}


def test_many_that_lapse_at_once_are_kept_as_suspects(database: str, workplace: Path, service: str) -> None:
    """Of ten endpoints, all there are, that fall silent together one lapses: 15 % of all; the rest stay served."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        for number in range(10):
            found.register(service, f"10.0.0.{number + 1}:80", ttl=1)
        eventually(lambda: "registry_suspects 9.0" in found.client.get("/metrics").text, within=8)
        text = found.client.get("/metrics").text
        assert f'registry_silent_endpoints{{service="{service}"}} 9.0' in text
        assert f'registry_silent_seconds{{service="{service}"}}' in text
        assert 'registry_endpoints{status="SILENT"} 9.0' in text
        assert 'registry_endpoints{status="HEALTHY"} 0.0' in text
        time.sleep(1)
        assert sorted(found.statuses(service).values()).count("TIMEOUT") == 1


def test_another_process_takes_the_lead(database: str, workplace: Path, service: str) -> None:
    """When the process that sweeps is killed, another one sweeps within seconds."""
    options = {"sweep_interval": "200ms", "removal_delay": "60s"}
    with registry(database, workplace, **options) as first, registry(database, workplace, **options) as second:
        eventually(lambda: _leads(first) or _leads(second), within=5)
        assert _leads(first) != _leads(second)
        leader, other = (first, second) if _leads(first) else (second, first)
        leader.process.send_signal(signal.SIGKILL)
        leader.process.wait(5)
        eventually(lambda: _leads(other), within=5)
        other.register(service, "10.0.0.1:80", ttl=1)
        eventually(lambda: other.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=8)


def test_an_override_ends_by_itself(database: str, workplace: Path, service: str) -> None:
    """An override with an expiry is taken back when its time is over."""
    with registry(database, workplace, sweep_interval="100ms") as found:
        found.register(service, "10.0.0.1:80")
        path = f"/v1/services/{service}/endpoints/10.0.0.1:80/override"
        found.client.put(path, json={"drain": True, "reason": "maintenance", "expires_in": 1})
        assert found.statuses(service) == {"10.0.0.1:80": "DRAINING"}
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}, within=4)


def test_a_frozen_leader_loses_the_lead(database: str, workplace: Path, service: str) -> None:
    """It keeps its connections open, but is silent: another process leads within seconds, and leases expire again."""
    options = {"sweep_interval": "500ms", "removal_delay": "60s"}
    with registry(database, workplace, **options) as first, registry(database, workplace, **options) as second:
        eventually(lambda: _leads(first) or _leads(second), within=5)
        leader, other = (first, second) if _leads(first) else (second, first)
        leader.process.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: _leads(other), within=15)
            assert other.register(service, "10.0.0.1:80", ttl=1).status_code == 200
            eventually(lambda: other.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=10)
        finally:
            leader.process.send_signal(signal.SIGCONT)
        # Back from the freeze it finds out that it leads no more, and goes on as one of the others.
        eventually(lambda: not _leads(leader), within=10)
        assert _leads(other)
        eventually(lambda: leader.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=10)
        assert leader.register(service, "10.0.0.1:80", ttl=600).status_code == 200


@pytest.mark.proof
def test_a_freeze_of_the_leader_expires_nobody(database: str, workplace: Path, service: str) -> None:
    """Who goes on renewing through the other process meanwhile is served throughout."""
    options = {"sweep_interval": "500ms", "removal_delay": "60s"}
    with registry(database, workplace, **options) as first, registry(database, workplace, **options) as second:
        eventually(lambda: _leads(first) or _leads(second), within=5)
        leader, other = (first, second) if _leads(first) else (second, first)
        leader.process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(24):
                other.register(service, "10.0.0.1:80", ttl=3)
                assert other.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
                time.sleep(0.5)
        finally:
            leader.process.send_signal(signal.SIGCONT)
        assert _leads(other)


def test_a_service_that_is_locked_holds_up_no_other_sweep(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Who falls silent elsewhere is found although one service cannot be changed, which is swept when it can again."""
    other = f"{service}-other"
    options = {"sweep_interval": "200ms", "removal_delay": "60s", "database_timeout": "1s"}
    with registry(database, workplace, **options) as found:
        for number in range(20):
            # So many that the guard lets more than one lapse.
            found.register(f"{service}-others", f"10.1.0.{number + 1}:80", ttl=600)
        found.register(service, "10.0.0.1:80", ttl=1)
        with server.holding(_LOCK, service, url=database):
            time.sleep(1.5)
            found.register(other, "10.0.1.1:80", ttl=1)
            eventually(lambda: found.statuses(other) == {"10.0.1.1:80": "TIMEOUT"}, within=15)
            assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        # Ten seconds more than at once: heartbeats may have waited for the same lock, and come again.
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=16)
        assert not was_logged("sweep_lead_lost", found.log)


def test_an_override_that_cannot_be_ended_makes_nobody_immortal(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """A sweep that stopped at it would never count as one, and its time would be credited to every lease for ever."""
    other = f"{service}-other"
    options = {"sweep_interval": "200ms", "removal_delay": "60s", "database_timeout": "3s"}
    with registry(database, workplace, **options) as found:
        found.register(service, "10.0.0.1:80", ttl=600)
        path = f"/v1/services/{service}/endpoints/10.0.0.1:80/override"
        found.client.put(path, json={"drain": True, "reason": "x", "expires_in": 1})
        with server.holding(_LOCK, service, url=database):
            time.sleep(2)
            found.register(other, "10.0.1.1:80", ttl=6)
            eventually(lambda: found.statuses(other) == {"10.0.1.1:80": "TIMEOUT"}, within=30)
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}, within=10)


@pytest.mark.proof
def test_who_does_not_lead_loses_no_connection(database: str, workplace: Path, service: str) -> None:
    """A process that asks for the lead, and is refused, again and again, answers every write all the same."""
    with registry(database, workplace) as first, registry(database, workplace) as second:
        eventually(lambda: _leads(first) or _leads(second), within=10)
        other = second if _leads(first) else first
        with ThreadPoolExecutor(12) as pool:
            # So that its pool is full, and each connection is silent for a while between two uses.
            assert {one.status_code for one in pool.map(partial(_register, other, service), range(40))} == {200}
            for start in range(40, 64, 4):
                time.sleep(2)
                told = [
                    (one.status_code, one.text) for one in pool.map(partial(_register, other, service), range(start))
                ]
                assert {status for status, _ in told} == {200}, told
        assert "lost" not in other.log.read_text()


def _register(found: Registry, service: str, number: int) -> httpx.Response:
    return found.register(f"{service}-{number % 6}", f"10.0.{number}.1:80", ttl=600, detail=str(time.monotonic()))


def test_a_lease_that_was_locked_is_not_lapsed_at_once(database: str, workplace: Path, service: str) -> None:
    """Whoever could not renew because the lease was locked gets the time to do so; whoever is gone still lapses."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        found.register(service, "10.0.0.1:80", ttl=1)
        hold(database, "SELECT FROM leases FOR UPDATE", 3)
        time.sleep(1)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=15)


def test_a_lease_that_is_locked_takes_no_share_of_the_guard(
    database: str, server: Postgres, workplace: Path, service: str
) -> None:
    """Of a service that may lose one at a time, another one lapses in time while the first cannot be judged."""
    with registry(database, workplace, sweep_interval="200ms", removal_delay="60s") as found:
        for number in range(20):
            found.register(f"{service}-others", f"10.1.0.{number + 1}:80", ttl=600)
        found.register(service, "10.0.0.2:80", ttl=600)
        found.register(service, "10.0.0.1:80", ttl=1)
        held = "SELECT FROM leases WHERE endpoint_id = (SELECT id FROM endpoints WHERE host(address) = $1) FOR UPDATE"
        with server.holding(held, "10.0.0.1", url=database):
            time.sleep(1.5)
            found.register(service, "10.0.0.3:80", ttl=1)
            eventually(lambda: found.statuses(service)["10.0.0.3:80"] == "TIMEOUT", within=4)
            assert found.statuses(service)["10.0.0.1:80"] == "HEALTHY"
