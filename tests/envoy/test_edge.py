"""A real Envoy whose management cluster is an aggregate of the edge and the registry."""

from pathlib import Path

import pytest
from harness.edge_machine import EdgeMachine
from harness.envoy import Envoy
from harness.process import eventually, free_port
from harness.registry import Registry

pytestmark = pytest.mark.envoy

HOSTS = {"10.0.0.1:80": "HEALTHY", "10.0.0.2:80": "HEALTHY"}


@pytest.fixture
def machine(tmp_path: Path) -> EdgeMachine:
    """A machine whose disk is empty."""
    return EdgeMachine(tmp_path)


def _hosts(seen: Envoy, service: str, hosts: dict[str, str], within: float = 20) -> None:
    eventually(
        lambda: seen.hosts(service) == hosts, within=within, said=lambda: f"{seen.hosts(service)} in place of {hosts}"
    )


def _register(registry: Registry, service: str, *endpoints: str) -> None:
    for endpoint in endpoints:
        assert registry.register(service, endpoint, ttl=3600).status_code in (200, 201)


def _subscribers(registry: Registry, service: str) -> list[tuple[str, bool, bool, bool]]:
    """Return the state of each subscriber, and whether it is held, has the newest version, and is behind an edge."""
    listed = registry.client.get(f"/v1/subscribers?service={service}").json()["subscribers"]
    return [
        (each["state"], each["held"], each["version"] == each["current_version"], bool(each["edge"])) for each in listed
    ]


def test_an_edge_is_killed_and_so_is_everything(shared_registry: Registry, machine: EdgeMachine, service: str) -> None:
    """Hosts and changes come through the edge; when it is killed the registry is polled, and no host is lost.

    With every registry away too, an Envoy that starts has all hosts from the disk.
    """
    _register(shared_registry, service, *HOSTS)
    three, four = HOSTS | {"10.0.0.3:80": "HEALTHY"}, HOSTS | {"10.0.0.3:80": "HEALTHY", "10.0.0.4:80": "HEALTHY"}
    five = four | {"10.0.0.5:80": "HEALTHY"}
    with machine.registrar(shared_registry.url) as beside, machine.envoy([shared_registry.port], service) as seen:
        _hosts(seen, service, HOSTS)
        # One subscriber, as true as without an edge; it stays the same one when it polls the registry itself.
        eventually(
            lambda: _subscribers(shared_registry, service) == [("current", True, True, True)],
            within=20,
            said=lambda: str(_subscribers(shared_registry, service)),
        )
        before = seen.counter("registry-direct", "upstream_rq_total")
        _register(shared_registry, service, "10.0.0.3:80")
        _hosts(seen, service, three)
        changes = seen.counter(service, "membership_change")
        beside.kill()
        _register(shared_registry, service, "10.0.0.4:80")
        _hosts(seen, service, four)
        eventually(lambda: _subscribers(shared_registry, service) == [("current", True, True, False)], within=20)
        assert seen.counter(service, "membership_change") == changes + 1
        assert seen.counter("registry-direct", "upstream_rq_total") > before
        with machine.registrar(shared_registry.url) as again:
            polled = seen.counter("edge", "upstream_rq_total")
            eventually(lambda: seen.counter("edge", "upstream_rq_total") > polled, within=20)
            _register(shared_registry, service, "10.0.0.5:80")
            _hosts(seen, service, five)
            eventually(lambda: b"10.0.0.5" in (machine.state / "edge" / service).read_bytes(), within=20)
            again.kill()
    away = free_port()
    with machine.registrar(f"http://127.0.0.1:{away}"), machine.envoy([away], service, "unheard-of") as seen:
        _hosts(seen, service, five)
        assert seen.hosts("unheard-of") == {}
