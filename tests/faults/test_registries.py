"""Registry processes restart, die, freeze and are flooded, while a real Envoy has traffic."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness.envoy import Envoy, envoy
from harness.figures import Figures
from harness.fleet import fleet
from harness.process import end, eventually, free_port
from harness.registrar import registrar
from harness.registry import Registry, registry
from harness.swarm import swarm
from harness.watch import load, watch

pytestmark = pytest.mark.faults

_LEADS = "registry_sweep_leader 1.0"


def _in_envoy(found: Envoy, service: str, count: int) -> bool:
    return list(found.hosts(service).values()) == ["HEALTHY"] * count


def _kinds(found: Registry, service: str) -> str:
    events = found.client.get(f"/v1/events?service={service}").json()["events"]
    return " ".join(sorted({event["kind"] for event in events}))


def _leads(found: Registry) -> bool:
    return _LEADS in found.client.get("/metrics").text


@contextmanager
def _served(workplace: Path, service: str, ports: Sequence[int], count: int) -> Iterator[Envoy]:
    """Run apps with their registrars and an Envoy in front of them, all of which know every registry."""
    urls = ",".join(f"http://127.0.0.1:{port}" for port in ports)
    with ExitStack() as stack:
        for endpoint in stack.enter_context(fleet(workplace, count)):
            stack.enter_context(registrar(workplace, urls, service, endpoint))
        proxy = stack.enter_context(envoy(workplace, ports, [service], request_timeout="2s"))
        eventually(partial(_in_envoy, proxy, service, count), within=20)
        yield proxy


def test_registries_that_restart_or_are_all_away_cost_nothing(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """One replica is stopped, then killed, then both are away for two leases: Envoy keeps its list throughout."""
    ttl = 4.0
    settings: dict[str, Any] = {"lease_ttl": f"{ttl}s", "removal_delay": "2s"}
    ports = [free_port(), free_port()]
    starts = [partial(registry, database, workplace, listen=f"127.0.0.1:{port}", **settings) for port in ports]
    with ExitStack() as stack:
        first, second = (stack.enter_context(start()) for start in starts)
        proxy = stack.enter_context(_served(workplace, service, ports, 3))
        changes = proxy.counter(service, "membership_change")
        with load(proxy.listener) as traffic:
            end(first.process)
            first = stack.enter_context(starts[0]())
            second.process.kill()
            second.process.wait(5)
            second = stack.enter_context(starts[1]())
            sent = traffic.sent
            figures.none_of("10", "one registry of two stopped, then killed: failed requests", traffic.failed, sent)
            for one in (first, second):
                one.process.kill()
                one.process.wait(5)
            time.sleep(2 * ttl)
            first, second = (stack.enter_context(start()) for start in starts)
            time.sleep(ttl + 3)
        away = traffic.sent - sent
        figures.none_of("10", "all registries away for two leases, and after: failed requests", traffic.failed, away)
        changed = proxy.counter(service, "membership_change") - changes
        figures.equal("10", "all of that: `membership_change` in Envoy", 0, changed)
        figures.equal("10", "all of that: kinds of events", "registered", _kinds(first, service))
        assert proxy.counter(service, "update_rejected") == 0


def test_a_frozen_registry_expires_nobody_when_it_goes_on(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """Frozen for six leases under traffic: Envoy keeps its list, and every lease is credited."""
    ttl = 2.0
    with (
        registry(database, workplace, lease_ttl=f"{ttl}s", removal_delay="1s") as found,
        _served(workplace, service, [found.port], 3) as proxy,
    ):
        changes = proxy.counter(service, "membership_change")
        with load(proxy.listener) as traffic:
            found.process.send_signal(signal.SIGSTOP)
            time.sleep(6 * ttl)
            found.process.send_signal(signal.SIGCONT)
            time.sleep(3 * ttl)
        figures.none_of("17", "registry frozen for six leases: failed requests", traffic.failed, traffic.sent)
        changed = proxy.counter(service, "membership_change") - changes
        figures.equal("17", "registry frozen for six leases: `membership_change` in Envoy", 0, changed)
        figures.equal("17", "registry frozen for six leases: kinds of events", "registered", _kinds(found, service))


def test_a_frozen_leader_loses_the_lead(database: str, workplace: Path, service: str, figures: Figures) -> None:
    """Another process expires leases while the one that did is frozen, and nothing happens when that goes on."""
    settings: dict[str, Any] = {"lease_ttl": "2s", "removal_delay": "60s"}
    with registry(database, workplace, **settings) as first, registry(database, workplace, **settings) as second:
        eventually(lambda: _leads(first) or _leads(second), within=5)
        leader, other = (first, second) if _leads(first) else (second, first)
        leader.process.send_signal(signal.SIGSTOP)
        took = eventually(partial(_leads, other), within=20)
        figures.at_most("17", "sweeping registry frozen: another one sweeps", 10, took)
        with fleet(workplace, 1) as (endpoint,), registrar(workplace, other.url, service, endpoint):
            eventually(lambda: other.statuses(service) == {endpoint: "HEALTHY"}, within=15)
            other.register(service, "10.0.0.1:80")
            gone = eventually(lambda: other.statuses(service)["10.0.0.1:80"] == "TIMEOUT", within=10)
            figures.at_most("17", "sweeping registry frozen: a silent endpoint is found, lease of 2 s", 3, gone)
            leader.process.send_signal(signal.SIGCONT)
            eventually(lambda: not _leads(leader), within=10)
            time.sleep(3)
            assert leader.statuses(service) == {endpoint: "HEALTHY", "10.0.0.1:80": "TIMEOUT"}
            assert _leads(other)


def test_a_swarm_is_accepted(database: str, workplace: Path, service: str, figures: Figures) -> None:
    """Thousands of registrars that start in the same moment are all registered within two intervals."""
    count = 5000
    with registry(database, workplace) as found:
        process = psutil.Process(found.process.pid)
        before = process.memory_info().rss
        with watch(lambda: process.memory_info().rss) as memory:
            result = swarm(found.port, service, count)
        figures.equal("18", f"{count:,} registrars at once: accepted", count, result.accepted)
        figures.at_most("18", f"{count:,} registrars at once: until the last one was", 10, result.seconds)
        most = (max(memory.states()) - before) / 2**20
        figures.at_most("18", f"{count:,} registrars at once: memory that the registry takes", 256, most, "MB")
        figures.show("18", f"{count:,} registrars at once: answers 503 or 429 on the way", f"{result.refused:,}")
        assert len(found.statuses(service)) == count
