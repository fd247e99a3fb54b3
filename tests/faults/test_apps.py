"""Apps die, hang, flap, start slowly and stop: what Envoy gets to know of it, and how fast."""

import itertools
import signal
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness.app import app, turned
from harness.envoy import envoy
from harness.figures import Figures
from harness.fleet import fleet
from harness.process import eventually, free_port
from harness.registrar import registrar
from harness.registry import Registry, registry
from harness.watch import load, watch

pytestmark = pytest.mark.faults

_N = 0.2
"""Envoy's refresh delay in these tests."""
_DETECTION = 7.0
"""Three checks of the default interval, and one time-out."""
_FLAPS = 12
_FLAP = 3.0


def _all_healthy(found: Registry, service: str, count: int) -> bool:
    return list(found.statuses(service).values()) == ["HEALTHY"] * count


def test_a_dead_and_a_hanging_app_leave_rotation(
    shared_registry: Registry, workplace: Path, service: str, figures: Figures
) -> None:
    """With the registrar's defaults, killed and hanging apps are UNHEALTHY in time, and so is Envoy's view."""
    url = shared_registry.url
    with ExitStack() as stack:
        dead, hanging, *_others = apps = [stack.enter_context(app(workplace)) for _ in range(3)]
        sidecars = [
            stack.enter_context(registrar(workplace, url, service, one.endpoint, check_interval="2s")) for one in apps
        ]
        proxy = stack.enter_context(envoy(workplace, [shared_registry.port], [service]))
        eventually(lambda: list(proxy.hosts(service).values()) == ["HEALTHY"] * 3, within=15)
        in_envoy = stack.enter_context(watch(partial(proxy.hosts, service), every=0.02))
        at = time.monotonic()
        dead.process.kill()
        hanging.process.send_signal(signal.SIGSTOP)
        for sidecar, how in zip(sidecars, ("killed", "hanging"), strict=False):
            eventually(partial(sidecar.said, "UNHEALTHY"), within=12)
            figures.at_most("1", f"app {how}: found by its registrar", _DETECTION, time.monotonic() - at)
        for one, how in ((dead, "killed"), (hanging, "hanging")):
            gone = partial(_unhealthy, endpoint=one.endpoint)
            eventually(lambda: in_envoy.first(gone, at) is not None, within=5)  # noqa: B023  # called at once
            lag = (in_envoy.first(gone, at) or 0) - at
            figures.at_most("1", f"app {how}: UNHEALTHY in Envoy", _DETECTION + 1 + 2 * _N, lag)
        assert proxy.counter(service, "update_rejected") == 0


def _unhealthy(hosts: dict[str, str], endpoint: str) -> bool:
    return hosts.get(endpoint) == "UNHEALTHY"


def test_a_flapping_app_is_damped(shared_registry: Registry, workplace: Path, service: str, figures: Figures) -> None:
    """An app that turns every three seconds changes what is published at most four times a minute."""
    url = shared_registry.url
    with (
        turned() as default,
        turned() as fast,
        registrar(workplace, url, service, default.endpoint, check_interval="2s"),
        registrar(workplace, url, service, fast.endpoint, check_interval="500ms"),
    ):
        eventually(partial(_all_healthy, shared_registry, service, 2), within=15)
        with watch(partial(shared_registry.statuses, service)) as seen:
            for turn in range(_FLAPS):
                default.status = fast.status = (500, 200)[turn % 2]
                time.sleep(_FLAP)
        for one, name in ((default, "2 s"), (fast, "0.5 s")):
            told = [state.get(one.endpoint) for state in seen.states()]
            changes = sum(before != after for before, after in itertools.pairwise(told))
            label = f"app flaps every 3 s, checked every {name}, for {_FLAPS * _FLAP:.0f} s: published"
            figures.at_most("2", label, 4, changes, "transitions")


def test_a_slow_starter_is_not_published_before_it_passes(
    shared_registry: Registry, workplace: Path, service: str, figures: Figures
) -> None:
    """An app that takes its port late is listed only after its threshold, as HEALTHY at once."""
    endpoint = f"127.0.0.1:{free_port()}"
    interval = 0.5
    with (
        registrar(workplace, shared_registry.url, service, endpoint, check_interval=f"{interval}s"),
        watch(partial(shared_registry.statuses, service)) as seen,
    ):
        time.sleep(10)
        assert shared_registry.statuses(service) == {}
        with app(workplace, endpoint):
            bound = time.monotonic()
            eventually(partial(_all_healthy, shared_registry, service, 1), within=10)
            after = time.monotonic() - bound
    published = [state[endpoint] for state in seen.states() if endpoint in state]
    figures.equal("3", "app starts after 10 s: what was published of it", "HEALTHY", " ".join(published))
    # Two passes, and a heartbeat that waits for others a moment.
    figures.at_most("3", "app starts after 10 s: published after it took its port", 2 * interval + 1, after)


def test_a_deploy_under_traffic_fails_no_request(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """Registrars and then apps get SIGTERM, one after the other, while Envoy sends 150 requests a second."""
    settings: dict[str, Any] = {"on_sigterm": "drain", "drain_wait": "2s", "stop_timeout": "10s"}
    with ExitStack() as stack:
        found = stack.enter_context(registry(database, workplace, removal_delay="2s"))
        apps = [stack.enter_context(app(workplace)) for _ in range(3)]
        sidecars = [
            stack.enter_context(registrar(workplace, found.url, service, one.endpoint, **settings)) for one in apps
        ]
        proxy = stack.enter_context(envoy(workplace, [found.port], [service]))
        eventually(lambda: list(proxy.hosts(service).values()) == ["HEALTHY"] * 3, within=15)
        with load(proxy.listener) as traffic:
            time.sleep(2)
            for one, sidecar in list(zip(apps, sidecars, strict=True))[:2]:
                sidecar.process.send_signal(signal.SIGTERM)
                assert sidecar.process.wait(12) == 0
                one.process.send_signal(signal.SIGTERM)
                assert one.process.wait(12) == 0
                time.sleep(1)
        assert not traffic.failures(), traffic.failures()[:5]
        figures.none_of(
            "7", "SIGTERM under 150 requests/s, two of three: failed requests", traffic.failed, traffic.sent
        )
        assert proxy.counter(service, "update_rejected") == 0


def test_a_stop_while_the_registry_is_away_ends_in_time(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """The registrar gives up its drain before its deadline; the lease does the rest once the registry is back."""
    settings: dict[str, Any] = {"lease_ttl": "4s", "removal_delay": "1s"}
    deadline = 6
    with ExitStack() as stack:
        left, stays = stack.enter_context(fleet(workplace, 2))
        before = stack.enter_context(registry(database, workplace, **settings))
        stop: dict[str, Any] = {"on_sigterm": "drain", "stop_timeout": f"{deadline}s"}
        stack.enter_context(registrar(workplace, before.url, service, stays))
        sidecar = stack.enter_context(registrar(workplace, before.url, service, left, **stop))
        eventually(partial(_all_healthy, before, service, 2), within=15)
        before.process.kill()
        before.process.wait(5)
        at = time.monotonic()
        sidecar.send(signal.SIGTERM)
        sidecar.process.wait(15)
        figures.at_most("8", "SIGTERM without a registry: the registrar's end", deadline, time.monotonic() - at)
        after = stack.enter_context(registry(database, workplace, listen=f"127.0.0.1:{before.port}", **settings))
        back = time.monotonic()
        eventually(lambda: after.statuses(service).get(left) != "HEALTHY", within=15)
        # The lease, and three sweeps: the last one before, the first one after, the one that finds it.
        label = "SIGTERM without a registry, lease of 4 s: out of rotation after its return"
        figures.at_most("8", label, 4 + 3, time.monotonic() - back)
        assert after.statuses(service)[stays] == "HEALTHY"


def test_a_whole_service_drains(database: str, workplace: Path, service: str, figures: Figures) -> None:
    """All endpoints at once are listed as DRAINING until their removal; only then is the answer empty."""
    settings: dict[str, Any] = {"on_sigterm": "drain", "drain_wait": "1s", "stop_timeout": "10s"}
    with ExitStack() as stack:
        found = stack.enter_context(registry(database, workplace, removal_delay="2s"))
        endpoints = stack.enter_context(fleet(workplace, 3))
        sidecars = [stack.enter_context(registrar(workplace, found.url, service, one, **settings)) for one in endpoints]
        proxy = stack.enter_context(envoy(workplace, [found.port], [service]))
        eventually(lambda: list(proxy.hosts(service).values()) == ["HEALTHY"] * 3, within=15)
        seen = stack.enter_context(watch(partial(found.statuses, service), every=0.02))
        for sidecar in sidecars:
            sidecar.send(signal.SIGTERM)
        assert [sidecar.process.wait(12) for sidecar in sidecars] == [0, 0, 0]
        eventually(lambda: proxy.hosts(service) == {}, within=10)
        eventually(lambda: not seen.states()[-1], within=2)
        lives = [[state.get(one) for state in seen.states()] for one in endpoints]
        early = sum(["HEALTHY", None] in [life[at : at + 2] for at in range(len(life))] for life in lives)
        figures.none_of("23", "all endpoints drain at once: left out without DRAINING", early, len(endpoints))
        listed = (seen.first(lambda state: not state) or 0) - (seen.first(_drains) or 0)
        figures.at_least("23", "all endpoints drain at once: listed as DRAINING", 2, listed)
        assert proxy.counter(service, "update_rejected") == 0


def _drains(state: dict[str, str]) -> bool:
    return "DRAINING" in state.values()
