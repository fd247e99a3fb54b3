"""A real Envoy whose management cluster is an aggregate of the edge and the registry."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.envoy import Envoy, envoy
from harness.process import eventually, free_port
from harness.registrar import Registrar, registrar
from harness.registry import Registry

pytestmark = pytest.mark.envoy

HOSTS = {"10.0.0.1:80": "HEALTHY", "10.0.0.2:80": "HEALTHY"}


class Machine:
    """A machine with an app, a registrar with an edge, and the state that outlives the registrar."""

    def __init__(self, workplace: Path, state: Path) -> None:
        self.workplace = workplace
        self.state = state
        self.edge = free_port()
        self.app = free_port()

    @contextlib.contextmanager
    def registrar(self, url: str) -> Iterator[Registrar]:
        """Run its registrar, whose own app is of no importance."""
        with registrar(
            self.workplace,
            url,
            "beside",
            f"127.0.0.1:{self.app}",
            edge_listen=f"127.0.0.1:{self.edge}",
            state_directory=str(self.state),
            admin_listen="off",
        ) as started:
            eventually(self._listens, within=20, said=started.log.read_text)
            yield started

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.edge)) == 0

    @contextlib.contextmanager
    def envoy(self, registries: list[int], *services: str) -> Iterator[Envoy]:
        """Run its Envoy."""
        with envoy(self.workplace, registries, services, edge=self.edge, request_timeout="3s") as started:
            yield started


@pytest.fixture
def machine(workplace: Path, tmp_path: Path) -> Machine:
    """A machine whose disk is empty."""
    return Machine(workplace, tmp_path / "state")


def _hosts(seen: Envoy, service: str, hosts: dict[str, str], within: float = 20) -> None:
    eventually(
        lambda: seen.hosts(service) == hosts, within=within, said=lambda: f"{seen.hosts(service)} in place of {hosts}"
    )


def _register(registry: Registry, service: str, *endpoints: str) -> None:
    for endpoint in endpoints:
        assert registry.register(service, endpoint).status_code in (200, 201)


def test_the_edge_serves_and_the_registry_takes_over(shared_registry: Registry, machine: Machine, service: str) -> None:
    """Hosts and changes come through the edge; when it is killed the registry is polled, and no host is lost."""
    _register(shared_registry, service, *HOSTS)
    with machine.registrar(shared_registry.url) as beside, machine.envoy([shared_registry.port], service) as seen:
        _hosts(seen, service, HOSTS)
        assert seen.counter("edge", "upstream_rq_total") > 0
        before = seen.counter("registry-direct", "upstream_rq_total")
        _register(shared_registry, service, "10.0.0.3:80")
        _hosts(seen, service, HOSTS | {"10.0.0.3:80": "HEALTHY"})
        changes = seen.counter(service, "membership_change")
        beside.kill()
        _register(shared_registry, service, "10.0.0.4:80")
        _hosts(seen, service, HOSTS | {"10.0.0.3:80": "HEALTHY", "10.0.0.4:80": "HEALTHY"})
        assert seen.counter(service, "membership_change") == changes + 1
        assert seen.counter("registry-direct", "upstream_rq_total") > before
        with machine.registrar(shared_registry.url):
            polled = seen.counter("edge", "upstream_rq_total")
            eventually(lambda: seen.counter("edge", "upstream_rq_total") > polled, within=20)
            _register(shared_registry, service, "10.0.0.5:80")
            eventually(lambda: len(seen.hosts(service)) == 5, within=20)


def test_a_new_envoy_starts_from_disk(shared_registry: Registry, machine: Machine, service: str) -> None:
    """With every registry away and a registrar that was killed, an Envoy that starts has all hosts."""
    _register(shared_registry, service, *HOSTS)
    with machine.registrar(shared_registry.url) as beside, machine.envoy([shared_registry.port], service) as seen:
        _hosts(seen, service, HOSTS)
        eventually((machine.state / "edge" / service).exists, within=10)
        beside.kill()
    away = free_port()
    with machine.registrar(f"http://127.0.0.1:{away}"), machine.envoy([away], service, "unheard-of") as seen:
        assert seen.hosts(service) == HOSTS
        assert seen.hosts("unheard-of") == {}


def test_a_frozen_registry_keeps_nobody_waiting(shared_registry: Registry, machine: Machine, service: str) -> None:
    """It accepts connections and answers nothing; the edge serves what it has, and catches up afterwards."""
    _register(shared_registry, service, *HOSTS)
    with machine.registrar(shared_registry.url):
        with machine.envoy([shared_registry.port], service) as seen:
            _hosts(seen, service, HOSTS)
        os.kill(shared_registry.process.pid, signal.SIGSTOP)
        try:
            with machine.envoy([shared_registry.port], service) as seen:
                assert seen.hosts(service) == HOSTS
                os.kill(shared_registry.process.pid, signal.SIGCONT)
                _register(shared_registry, service, "10.0.0.3:80")
                eventually(lambda: len(seen.hosts(service)) == 3, within=40)
        finally:
            os.kill(shared_registry.process.pid, signal.SIGCONT)
