"""Two of five hosts of a service are lost at once: how soon evidence takes them out of rotation, and what it spares.

Machines are network namespaces, apps and registrars are processes there, and a real Envoy without retries sends
requests. Silence alone lets one of the five lapse; the guard holds the other one for 15 minutes.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from harness.app import App, app
from harness.ecs import Ecs
from harness.envoy import Envoy, envoy
from harness.figures import Figures
from harness.namespaces import Machine, Network, inside, network
from harness.process import eventually, free_port, script
from harness.registrar import Registrar, registrar_of
from harness.registry import Registry, registry
from harness.traffic import traffic

from registry_demo.traffic import Traffic

pytestmark = [
    pytest.mark.envoy,
    # The embedded PostgreSQL listens on a Unix socket, which a network namespace does not hide.
    pytest.mark.usefixtures("local_postgres"),
]

_HOSTS = 5
_LOST = 2
_LEASE = 4.0
_WATCHED = _LEASE + 16.0
"""Seconds after the loss in which failed requests are counted."""
_RATE = 40.0
_BASE_LINES = 8.0
"""Seconds until registrars have tried each other: the registries plan that every three seconds."""


@pytest.fixture
def local_postgres(database: str) -> None:
    """Skip where PostgreSQL is reached by an address."""
    host = urlsplit(database).hostname
    if host:
        pytest.skip(f"PostgreSQL is at {host}, which machines of a test's own do not reach")


@dataclass
class Host:
    """A machine with an app and its registrar."""

    machine: Machine
    app: App
    registrar: Registrar
    task: str

    @property
    def endpoint(self) -> str:
        """The endpoint that it registers."""
        return self.app.endpoint

    def kill(self) -> None:
        """Kill both processes; the machine goes on."""
        self.registrar.kill()
        self.app.process.kill()
        self.app.process.wait(5)


@dataclass
class Fleet:
    """The service: its hosts, the registries, and an Envoy with its load."""

    network: Network
    hosts: list[Host]
    registries: list[Registry]
    proxy: Envoy
    load: Traffic
    service: str
    ecs: Ecs | None

    def lose(self, how: Callable[[Host], None], *, until_out: bool = False) -> "Loss":
        """Lose two hosts, and watch for a while, or until they are out of rotation."""
        lost = self.hosts[:_LOST]
        at = time.monotonic()
        for host in lost:
            how(host)
        names = {host.endpoint for host in lost}
        out: float | None = None
        while time.monotonic() - at < _WATCHED and not (until_out and out is not None):
            if out is None and not any(self._routable(name) for name in names):
                out = time.monotonic() - at
            time.sleep(0.1)
        # On the machine's monotonic clock, as the load's own.
        failed = len(self.load.failures(at))
        kept = {host.endpoint for host in self.hosts[_LOST:]}
        return Loss(out, failed, self.load.total(at), all(map(self._routable, kept)))

    def _routable(self, name: str) -> bool:
        return self.registries[0].statuses(self.service).get(name) == "HEALTHY"


@dataclass
class Loss:
    """What a loss came to: when all that was lost was out of rotation (None: not while it was watched)."""

    out: float | None
    failed: int
    total: int
    others_stayed: bool

    @property
    def requests(self) -> str:
        """The failed requests, in words."""
        return f"{self.failed} of {self.total:,} requests failed in {_WATCHED:g} s"


@contextmanager
def fleet(
    database: str,
    directory: Path,
    service: str,
    *,
    probes: str = "off",
    registrars: str = "off",
    ecs_tasks: str = "off",
) -> Iterator[Fleet]:
    """Run a service of five hosts and two registries, each on a machine of its own, and wait until all is well."""
    with ExitStack() as stack:
        machines = stack.enter_context(network(_HOSTS + 2))
        first, second, *others = machines.machines
        stack.enter_context(inside(first))
        ecs = stack.enter_context(Ecs.running(first.address)) if ecs_tasks == "on" else None
        common = {
            "lease_ttl": f"{_LEASE:g}s",
            "removal_delay": "60s",
            "probes": probes,
            "ecs_tasks": ecs_tasks,
            "env": None if ecs is None else ecs.variables,
        }
        port = free_port()
        registries = [
            stack.enter_context(registry(database, directory, listen=f"0.0.0.0:{port}", **common)),
            stack.enter_context(
                registry(
                    database,
                    directory,
                    listen=f"{second.address}:{port + 1}",
                    program=[*second.within, *script("registry")],
                    **common,
                )
            ),
        ]
        url = f"http://{first.address}:{port},http://{second.address}:{port + 1}"
        hosts = []
        for machine in others:
            task = "" if ecs is None else ecs.run_task()
            keys = {} if ecs is None else {"ecs_cluster": ecs.cluster_arn, "ecs_task": task}
            endpoint = f"{machine.address}:8080"
            served = stack.enter_context(app(directory, endpoint, machine.within))
            config = directory / f"{service}-{machine.number}.yaml"
            check = {"type": "http", "path": "/healthz", "interval": "300ms"}
            described = {"service": service, "endpoint": endpoint, "metadata": keys, "checks": [check]}
            config.write_text(json.dumps({"services": [described]}))
            sidecar = stack.enter_context(
                registrar_of(
                    directory,
                    url,
                    config,
                    machine.within,
                    instance_id=f"i-{endpoint}",
                    probes=registrars,
                    admin_listen="off",
                )
            )
            hosts.append(Host(machine, served, sidecar, task))
        eventually(lambda: list(registries[0].statuses(service).values()) == ["HEALTHY"] * _HOSTS, within=30)
        proxy = stack.enter_context(envoy(directory, [port], [service]))
        eventually(lambda: list(proxy.hosts(service).values()) == ["HEALTHY"] * _HOSTS, within=10)
        if probes == "on":
            for each in registries:
                eventually(lambda each=each: _base_lines(each) == _HOSTS, within=20)  # type: ignore[misc]
        if registrars == "on":
            time.sleep(_BASE_LINES)
        load = stack.enter_context(traffic(proxy.listener, _RATE))
        time.sleep(0.5)
        yield Fleet(machines, hosts, registries, proxy, load, service, ecs)


def _base_lines(found: Registry) -> int:
    return int(found.client.get("/v1/state").json()["probes"]["reached"])


def _reasons(found: Registry, service: str, kind: str) -> list[str]:
    events: list[dict[str, Any]] = found.client.get(f"/v1/events?service={service}&kind={kind}").json()["events"]
    return [event["reason"] for event in events]


def test_two_of_five_apps_that_refuse_are_out_soon(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """Two registry processes on two machines are refused; the others stay, and the event has the evidence."""
    with fleet(database, workplace, service, probes="on") as found:
        loss = found.lose(Host.kill, until_out=True)
        label = "2 of 5 apps and registrars killed, hosts alive"
        assert loss.out is not None, _reasons(found.registries[0], service, "suspected")
        figures.at_most("16", f"{label}: out of rotation, lease of {_LEASE:g} s", _LEASE + 10, loss.out)
        assert loss.others_stayed
        assert any("refused 3 × by" in reason for reason in _reasons(found.registries[0], service, "lapsed"))


@pytest.mark.faults
def test_evidence_spares_requests_to_apps_that_refuse(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """The same, for as long as the run without evidence below."""
    with fleet(database, workplace, service, probes="on") as found:
        loss = found.lose(Host.kill)
        label = "2 of 5 apps and registrars killed, hosts alive: with probes of two registries"
        figures.show("16", label, loss.requests)
        assert (loss.out is not None, loss.others_stayed) == (True, True)


@pytest.mark.faults
def test_without_evidence_the_guard_holds_what_refuses(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """One of the two lapses by its lease; requests to the other one fail until the guard's hold is over."""
    with fleet(database, workplace, service) as found:
        loss = found.lose(Host.kill)
        figures.show("16", "2 of 5 apps and registrars killed, hosts alive: without evidence", loss.requests)
        assert (loss.out, loss.others_stayed) == (None, True)


@pytest.mark.faults
def test_two_of_five_hosts_that_vanish_are_out_by_the_word_of_ecs(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """Nothing answers, and ECS says that their tasks stopped."""
    label = "2 of 5 hosts vanish, ECS says that their tasks stopped"
    with fleet(database, workplace, service, ecs_tasks="on") as found:

        def vanish(host: Host) -> None:
            assert found.ecs is not None
            found.network.vanish(host.machine)
            found.ecs.stop_task(host.task, "Host EC2 (instance i-0abc) terminated.")

        loss = found.lose(vanish)
        figures.show("16", label, loss.requests)
        assert loss.out is not None, found.registries[0].client.get("/v1/state").json()["ecs_tasks"]
        figures.at_most("16", f"{label}: out of rotation, lease of {_LEASE:g} s", _LEASE + 10, loss.out)
        assert loss.others_stayed
        lapsed = _reasons(found.registries[0], service, "lapsed")
        assert any("is STOPPED: Host EC2 (instance i-0abc) terminated." in reason for reason in lapsed), lapsed


@pytest.mark.faults
def test_two_of_five_hosts_that_vanish_are_out_by_probes_alone(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """A registry and registrars on other hosts wait in vain: that doubles the guard's share, which is two of five."""
    label = "2 of 5 hosts vanish"
    with fleet(database, workplace, service, probes="on", registrars="on") as found:
        loss = found.lose(lambda host: found.network.vanish(host.machine))
        figures.show("16", f"{label}: with probes of registries and registrars", loss.requests)
        assert loss.out is not None, _reasons(found.registries[0], service, "suspected")
        figures.at_most("16", f"{label}, probes alone: out of rotation, lease of {_LEASE:g} s", _LEASE + 15, loss.out)
        assert loss.others_stayed
        assert any("timed out 3 × by" in reason for reason in _reasons(found.registries[0], service, "lapsed"))


@pytest.mark.faults
def test_without_evidence_the_guard_holds_what_vanished(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """One of the two lapses by its lease; Envoy waits for the other one until the guard's hold is over."""
    with fleet(database, workplace, service) as found:
        loss = found.lose(lambda host: found.network.vanish(host.machine))
        figures.show("16", "2 of 5 hosts vanish: without evidence", loss.requests)
        assert (loss.out, loss.others_stayed) == (None, True)
