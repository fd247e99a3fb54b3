"""Registrars die, freeze, vanish in numbers, contradict one another and have a wrong clock."""

import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness.app import app
from harness.envoy import Envoy, envoy
from harness.faketime import Clock, clock_of, faked
from harness.figures import Figures
from harness.fleet import fleet
from harness.process import eventually
from harness.registrar import registrar, registrar_of
from harness.registry import Registry, registry
from harness.watch import load, watch

pytestmark = pytest.mark.faults

_N = 0.2
_TTL = 4.0


def _statuses(found: Registry, service: str, count: int, status: str = "HEALTHY") -> bool:
    return list(found.statuses(service).values()).count(status) == count


def _in_envoy(found: Envoy, service: str, count: int) -> bool:
    return list(found.hosts(service).values()) == ["HEALTHY"] * count


def _events(found: Registry, service: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = found.client.get(f"/v1/events?service={service}").json()["events"]
    return events


def test_a_registrar_that_is_killed_and_starts_again_changes_nothing(
    shared_registry: Registry, workplace: Path, service: str, figures: Figures
) -> None:
    """The same instance goes on: the answer keeps its bytes, and Envoy is told nothing at all."""
    found = shared_registry
    with fleet(workplace, 1) as (endpoint,), ExitStack() as stack:
        first = stack.enter_context(registrar(workplace, found.url, service, endpoint))
        eventually(partial(_statuses, found, service, 1), within=15)
        proxy = stack.enter_context(envoy(workplace, [found.port], [service], request_timeout="1s"))
        eventually(partial(_in_envoy, proxy, service, 1), within=5)
        before = found.poll(service).content
        updates = proxy.counter(service, "update_success")
        first.kill()
        stack.enter_context(registrar(workplace, found.url, service, endpoint))
        eventually(lambda: len(_events(found, service)) == 2, within=10)
        time.sleep(2)
        changed = proxy.counter(service, "update_success") - updates
        figures.equal("4", "registrar killed and restarted: changes that Envoy was told", 0, changed)
        assert found.poll(service).content == before


def test_a_lost_host_is_gone_after_its_lease(database: str, workplace: Path, service: str, figures: Figures) -> None:
    """Registrar and app killed together: nobody reports, and the lease ends it."""
    with ExitStack() as stack:
        found = stack.enter_context(registry(database, workplace, lease_ttl=f"{_TTL}s", removal_delay="2s"))
        lost, other = stack.enter_context(app(workplace)), stack.enter_context(app(workplace))
        sidecar = stack.enter_context(registrar(workplace, found.url, service, lost.endpoint))
        stack.enter_context(registrar(workplace, found.url, service, other.endpoint))
        proxy = stack.enter_context(envoy(workplace, [found.port], [service]))
        eventually(partial(_in_envoy, proxy, service, 2), within=15)
        at = time.monotonic()
        sidecar.kill()
        lost.process.kill()
        took = eventually(lambda: found.statuses(service).get(lost.endpoint) != "HEALTHY", within=10)
        figures.at_most("5", f"host lost, lease of {_TTL:g} s: not routable", _TTL + 1, took)
        eventually(lambda: proxy.hosts(service).get(lost.endpoint) != "HEALTHY", within=5)
        label = f"host lost, lease of {_TTL:g} s: not routable in Envoy"
        figures.at_most("5", label, _TTL + 1 + 2 * _N, time.monotonic() - at)
        eventually(lambda: lost.endpoint not in proxy.hosts(service), within=8)
        assert proxy.hosts(service) == {other.endpoint: "HEALTHY"}


def test_a_frozen_registrar_changes_nothing_or_returns_once(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """Frozen for half a lease nothing happens; for three leases the endpoint expires, and comes back once."""
    with ExitStack() as stack:
        found = stack.enter_context(registry(database, workplace, lease_ttl=f"{_TTL}s", removal_delay="2s"))
        frozen, other = stack.enter_context(fleet(workplace, 2))
        sidecar = stack.enter_context(registrar(workplace, found.url, service, frozen))
        stack.enter_context(registrar(workplace, found.url, service, other))
        eventually(partial(_statuses, found, service, 2), within=15)
        seen = stack.enter_context(watch(partial(found.statuses, service)))
        sidecar.send(signal.SIGSTOP)
        time.sleep(_TTL / 2)
        sidecar.send(signal.SIGCONT)
        time.sleep(1)
        figures.equal("6", "registrar frozen for half a lease: changes", 0, len(seen.states()) - 1)
        sidecar.send(signal.SIGSTOP)
        time.sleep(3 * _TTL)
        sidecar.send(signal.SIGCONT)
        took = eventually(partial(_statuses, found, service, 2), within=10)
        figures.at_most("6", "registrar frozen for three leases: back after it thawed", _TTL / 4 + 1, took)
        time.sleep(2)
        life = [state.get(frozen) for state in seen.states()]
        figures.equal(
            "6", "registrar frozen for three leases: its states", "HEALTHY TIMEOUT none HEALTHY", _words(life)
        )
        assert {state.get(other) for state in seen.states()} == {"HEALTHY"}


def _words(life: list[str | None]) -> str:
    return " ".join(str(one or "none") for one in life)


def test_registrars_cut_off_in_numbers_are_suspects(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """30 % at once: at most 15 % leave rotation, the others stay served as suspects, and all of it ends cleanly."""
    count, cut = 10, 3
    with ExitStack() as stack:
        found = stack.enter_context(registry(database, workplace, lease_ttl=f"{_TTL}s", removal_delay="60s"))
        endpoints = stack.enter_context(fleet(workplace, 2 * count))
        sidecars = [
            stack.enter_context(registrar_of(workplace, found.url, _pair(workplace, service, number, endpoints)))
            for number in range(count)
        ]
        eventually(partial(_statuses, found, service, 2 * count), within=30)
        proxy = stack.enter_context(envoy(workplace, [found.port], [service]))
        eventually(partial(_in_envoy, proxy, service, 2 * count), within=5)
        seen = stack.enter_context(watch(partial(found.statuses, service)))
        with load(proxy.listener, rate=100) as traffic:
            for sidecar in sidecars[:cut]:
                sidecar.send(signal.SIGSTOP)
            eventually(lambda: len(found.client.get("/v1/expiry").json()["suspects"]) == 3, within=10)
            time.sleep(3)
            for sidecar in sidecars[:cut]:
                sidecar.send(signal.SIGCONT)
            took = eventually(partial(_statuses, found, service, 2 * count), within=10)
            eventually(lambda: not found.client.get("/v1/expiry").json()["suspects"], within=5)
            time.sleep(1)
        most = max(list(state.values()).count("TIMEOUT") for state in seen.states())
        figures.at_most("16", "30 % of 20 endpoints silent at once: out of rotation", 3, most, "endpoints")
        figures.at_most("16", "30 % silent at once: all back after their return", _TTL / 4 + 1, took)
        label = "30 % silent at once under 100 requests/s: failed requests"
        figures.none_of("16", label, traffic.failed, traffic.sent)
        assert {len(state) for state in seen.states()} == {2 * count}


def _pair(workplace: Path, service: str, number: int, endpoints: list[str]) -> Path:
    """Write the configuration of a registrar with two endpoints."""
    lines = [f"instance_id: {service}-{number}", "services:"]
    for endpoint in endpoints[2 * number : 2 * number + 2]:
        lines += [
            f"- service: {service}",
            f"  endpoint: {endpoint}",
            "  checks: [{type: http, path: /healthz, interval: 1s}]",
        ]
    path = workplace / f"{service}-{number}.yaml"
    path.write_text("\n".join(lines))
    return path


def test_an_address_that_another_service_took_over_is_left(
    shared_registry: Registry, workplace: Path, service: str, figures: Figures
) -> None:
    """The newer owner wins although the older one's checks still pass; the older one gets 409 and stops."""
    found, newer = shared_registry, f"{service}-newer"
    with fleet(workplace, 1) as (endpoint,), ExitStack() as stack:
        older = stack.enter_context(registrar(workplace, found.url, service, endpoint, instance_id="older"))
        eventually(partial(_statuses, found, service, 1), within=15)
        proxy = stack.enter_context(envoy(workplace, [found.port], [service]))
        eventually(partial(_in_envoy, proxy, service, 1), within=5)
        stack.enter_context(registrar(workplace, found.url, newer, endpoint, instance_id="newer"))
        eventually(partial(_statuses, found, newer, 1), within=15)
        took = eventually(lambda: proxy.hosts(service).get(endpoint) != "HEALTHY", within=5, every=0.005)
        figures.at_most("20", "address reused: the older service's Envoy stops using it", 1 + 2 * _N, took)
        eventually(partial(older.said, '"endpoint_fenced"'), within=12)
        time.sleep(6)
        kinds = [event["kind"] for event in _events(found, newer)]
        figures.equal("20", "address reused: events of the newer owner", "registered", " ".join(kinds))
        assert found.statuses(newer) == {endpoint: "HEALTHY"}
        assert found.statuses(service) == {}
        assert _events(found, service)[-2]["kind"] == "taken_over"


def test_of_two_clones_the_newer_start_wins(
    shared_registry: Registry, workplace: Path, service: str, figures: Figures
) -> None:
    """Two registrars with one instance id do not take the endpoint from each other in turns."""
    found = shared_registry
    with fleet(workplace, 1) as (endpoint,), ExitStack() as stack:
        older = stack.enter_context(registrar(workplace, found.url, service, endpoint, instance_id="clone"))
        eventually(partial(_statuses, found, service, 1), within=15)
        seen = stack.enter_context(watch(partial(found.statuses, service)))
        stack.enter_context(registrar(workplace, found.url, service, endpoint, instance_id="clone"))
        eventually(partial(older.said, '"endpoint_fenced"'), within=15)
        time.sleep(6)
        figures.equal("21", "clone: registrations in all, after both have run on", 2, len(_events(found, service)))
        figures.equal("21", "clone: published states", "HEALTHY", _words([s.get(endpoint) for s in seen.states()]))


@pytest.mark.parametrize("direction", [1, -1], ids=["forwards", "backwards"])
def test_a_wall_clock_that_jumps_an_hour_changes_nothing(
    direction: int, database: str, workplace: Path, tmp_path: Path, service: str, figures: Figures
) -> None:
    """The registry's and a registrar's wall clock jump an hour apart: nobody expires, and a restart is accepted."""
    registry_clock, registrar_clock = Clock(tmp_path / "registry"), Clock(tmp_path / "registrar")
    with ExitStack() as stack:
        endpoint, other = stack.enter_context(fleet(workplace, 2))
        found = stack.enter_context(
            registry(database, workplace, env=faked(registry_clock), lease_ttl=f"{_TTL}s", removal_delay="1s")
        )
        wrong = stack.enter_context(registrar(workplace, found.url, service, endpoint, env=faked(registrar_clock)))
        stack.enter_context(registrar(workplace, found.url, service, other))
        eventually(partial(_statuses, found, service, 2), within=15)
        seen = stack.enter_context(watch(partial(found.statuses, service)))
        registry_clock.jump(direction * 3600)
        registrar_clock.jump(direction * -3600)
        assert abs(clock_of(registrar_clock) - time.time() + direction * 3600) < 60
        time.sleep(2 * _TTL + 1)
        wrong.kill()
        stack.enter_context(registrar(workplace, found.url, service, endpoint, env=faked(registrar_clock)))
        eventually(lambda: len(_events(found, service)) == 3, within=10)
        time.sleep(1)
        word = "+1 h" if direction > 0 else "-1 h"
        figures.equal("22", f"registry's clock {word}, registrar's the other way: changes", 0, len(seen.states()) - 1)
        assert [event["kind"] for event in _events(found, service)] == ["registered"] * 3
