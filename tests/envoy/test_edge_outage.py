"""Everything of ours is killed for minutes under traffic, while apps are deployed at a second registry."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from harness.edge_machine import EdgeMachine
from harness.envoy import Envoy, recommended_envoy
from harness.gate import listens
from harness.postgres import Postgres
from harness.process import Child, end, eventually, free_port, running
from harness.registry import Registry, registry
from harness.traffic import traffic

from meshconfig.definition.registry_client import RegistryClient
from meshconfig.recommended_bootstrap import registries
from registry_demo.traffic import Traffic

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

MINUTES = float(os.environ.get("OUTAGE_MINUTES", "2.5"))
"""Length of the outage. By default it passes the timers of leases, polls and subscribers; the longest has 120 s.

The 15 minutes after which names are forgotten have a test of their own, whose clock is made up.
"""
RATE = 30.0


def _app(port: int) -> list[str]:
    return [sys.executable, "-m", "registry_demo.app", "--listen", f"127.0.0.1:{port}", "--name", str(port)]


def _way(registry_address: str, machine: EdgeMachine) -> RegistryClient:
    return registries(registry_address, edge=f"127.0.0.1:{machine.edge}", token_directory=None)


def _register(found: Registry, service: str, port: int) -> None:
    assert found.register(service, f"127.0.0.1:{port}", ttl=36_000).status_code in (200, 201)


def _has(seen: Envoy, service: str, *ports: int, within: float = 30) -> None:
    names = {f"127.0.0.1:{port}" for port in ports}
    eventually(
        lambda: set(seen.hosts(service)) == names, within=within, said=lambda: f"{seen.hosts(service)}, not {names}"
    )


def _assert_served(load: Traffic, envoy: str, seconds: float) -> None:
    print(f"{envoy}: {load.sent} requests in {seconds:.0f} s, {load.failed} failed")  # noqa: T201  # a figure of the proof
    assert [outcome for outcome in load.outcomes if outcome.failure] == []
    assert load.failed == 0
    assert load.sent > seconds * RATE / 2


def _deploy(second: Registry, follower: Envoy, service: str, kept: int, leaving: int, new: tuple[int, int]) -> None:
    """Bring two apps and take one away, at a registry that an Envoy follows."""
    _register(second, service, new[0])
    # The lease of the killed registrar's app lapses.
    _has(follower, service, kept, leaving, new[0], within=90)
    _register(second, service, new[1])
    gone = f"127.0.0.1:{leaving}"
    who: dict[str, str | int] = {"instance_id": f"i-{gone}", "incarnation": 1}
    second.client.post(f"/v1/services/{service}/endpoints/{gone}/drain", params=who).raise_for_status()
    eventually(lambda: follower.hosts(service).get(gone) == "DRAINING", within=30)
    second.client.delete(f"/v1/services/{service}/endpoints/{gone}", params=who).raise_for_status()
    _has(follower, service, kept, *new)


def _until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


@contextlib.contextmanager
def _apps(ports: Sequence[int], log: Path) -> Iterator[dict[int, Child]]:
    with contextlib.ExitStack() as stack:
        started: dict[int, Child] = {port: stack.enter_context(running(_app(port), log=log)) for port in ports}
        eventually(lambda: all(map(listens, ports)), within=30, said=log.read_text)
        yield started


def test_minutes_without_anything_of_ours(server: Postgres, tmp_path: Path, service: str) -> None:
    """No request fails, also where one of the hosts that Envoy still has stops; in the end it has the deployed ones."""
    database, listen = server.migrated_database(), f"127.0.0.1:{free_port()}"
    machine, other = EdgeMachine(tmp_path, "machine"), EdgeMachine(tmp_path, "other")
    own, stays, leaves, *new = ports = [free_port() for _ in range(5)]
    with contextlib.ExitStack() as stack:
        apps = stack.enter_context(_apps(ports, tmp_path / "apps.log"))
        ours = stack.enter_context(registry(database, tmp_path, listen=listen))
        for port in (stays, leaves):
            _register(ours, service, port)
        of_own = {"service": service, "endpoint": f"127.0.0.1:{own}", "on_sigterm": "keep"}
        beside = stack.enter_context(machine.registrar(ours.url, **of_own))
        seen = stack.enter_context(recommended_envoy(tmp_path, _way(listen, machine), service))
        _has(seen, service, own, stays, leaves)
        eventually(lambda: machine.holds(service), within=20)
        load = stack.enter_context(traffic(seen.listener, RATE))
        eventually(lambda: load.sent > 2 * RATE, within=20)
        changes = seen.counter(service, "membership_change")

        beside.kill()
        ours.process.kill()
        ours.process.wait(10)
        began = time.monotonic()
        # The second registry has the same database, and an Envoy that follows it.
        second = stack.enter_context(registry(database, tmp_path))
        stack.enter_context(other.registrar(second.url))
        way = _way(f"127.0.0.1:{second.port}", other)
        follower = stack.enter_context(recommended_envoy(tmp_path, way, service))
        eventually(lambda: len(follower.hosts(service)) >= 2, within=30)
        followed_from, followed = time.monotonic(), stack.enter_context(traffic(follower.listener, RATE))
        _deploy(second, follower, service, stays, leaves, (new[0], new[1]))
        _until(began + MINUTES * 30)
        # Nobody tells the Envoy without a registry that this host goes: it retries elsewhere, and ejects it.
        end(apps[leaves])
        _until(began + MINUTES * 60)
        _has(seen, service, own, stays, leaves)
        away = time.monotonic() - began

        # The registrar comes back before the registry, with what was true before the outage.
        stack.enter_context(machine.registrar(f"http://{listen}", **of_own))
        time.sleep(5)
        assert seen.counter(service, "membership_change") == changes
        stack.enter_context(registry(database, tmp_path, listen=listen))
        back = time.monotonic()
        for each in (seen, follower):
            _has(each, service, own, stays, *new)
        took, sent = time.monotonic() - back, load.sent
        # The new hosts are used.
        eventually(lambda: load.sent > sent + RATE, within=20)
        retried = seen.counter(service, "upstream_rq_retry_success")
        print(f"away for {away:.0f} s; all hosts {took:.1f} s after the registry is back; {retried} retries")  # noqa: T201
        _assert_served(load, "the Envoy without anything of ours", away)
        _assert_served(followed, "the Envoy of the second registry", time.monotonic() - followed_from)
