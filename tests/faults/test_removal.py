"""Two-phase removal, on a real Envoy that checks its endpoints by itself and is not told to ignore that."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.envoy import Envoy, envoy
from harness.figures import Figures
from harness.fleet import fleet
from harness.process import eventually
from harness.registry import Registry, registry

_REQUESTS = 40


@contextlib.contextmanager
def _two_endpoints(found: Registry, workplace: Path, service: str, **polls: Any) -> Iterator[tuple[Envoy, str, str]]:
    with fleet(workplace, 2) as (kept, removed):
        found.register(service, kept, ttl=600)
        found.register(service, removed, ttl=600)
        with envoy(workplace, [found.port], [service], health_checks=True, **polls) as proxy:
            eventually(lambda: len(proxy.hosts(service)) == 2, within=5)
            eventually(lambda: len(_spread(proxy)) == 2, within=5)
            yield proxy, kept, removed


def _spread(proxy: Envoy) -> Counter[str]:
    return Counter(proxy.get() for _ in range(_REQUESTS))


def test_no_request_reaches_a_removed_endpoint_that_still_passes_its_checks(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """Out of rotation first and left out later, an endpoint gets nothing from Envoy in either phase."""
    with (
        registry(database, workplace, removal_delay="1s", sweep_interval="100ms") as found,
        _two_endpoints(found, workplace, service) as (proxy, kept, removed),
    ):
        found.client.delete(f"/v1/services/{service}/endpoints/{removed}")
        eventually(lambda: proxy.hosts(service).get(removed) == "DRAINING", within=3)
        figures.none_of("item 3", "requests to an endpoint out of rotation", _spread(proxy)[removed], _REQUESTS)
        eventually(lambda: removed not in found.statuses(service), within=5)
        time.sleep(1)
        spread = _spread(proxy)
        figures.none_of("item 3", "requests to a removed endpoint", spread[removed], _REQUESTS)
        assert spread[kept] == _REQUESTS
        assert proxy.counter(service, "update_rejected") == 0


def test_an_endpoint_that_just_vanishes_is_used_on(
    database: str, workplace: Path, service: str, figures: Figures
) -> None:
    """The counter-proof: left out in one step, between two polls, the endpoint goes on getting requests."""
    polls = {"refresh_delay": "1.5s", "request_timeout": "0.3s"}
    with (
        registry(database, workplace, removal_delay="0s", sweep_interval="50ms") as found,
        _two_endpoints(found, workplace, service, **polls) as (proxy, _, removed),
    ):
        attempts = proxy.counter(service, "update_attempt")
        eventually(lambda: proxy.counter(service, "update_attempt") > attempts, within=5)
        time.sleep(0.3)
        successes = proxy.counter(service, "update_success")
        found.client.delete(f"/v1/services/{service}/endpoints/{removed}")
        eventually(lambda: removed not in found.statuses(service), within=1)
        eventually(lambda: proxy.counter(service, "update_success") > successes, within=6)
        reached = _spread(proxy)[removed]
        figures.show("item 3", "the same with `REGISTRY_REMOVAL_DELAY=0s`", f"{reached} of {_REQUESTS}")
        assert reached > 0
