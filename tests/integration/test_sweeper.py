"""Leases lapse, endpoints are removed in two phases, and one process does it for all."""

import signal
import time
from pathlib import Path

from harness.process import eventually
from harness.registry import Registry, registry

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
    """Of ten endpoints that fall silent together two lapse; the rest stay served."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        for number in range(10):
            found.register(service, f"10.0.0.{number + 1}:80", ttl=1)
        eventually(lambda: "registry_suspects 9.0" in found.client.get("/metrics").text, within=5)
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
