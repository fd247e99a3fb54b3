"""Shifts through a real Envoy that merely polls: a canary that fails is taken back, and users lose almost nothing."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from harness.app import Turned
from harness.envoy import Envoy, envoy
from harness.no_tls import NO_TLS
from harness.process import eventually
from harness.registrar import registrar
from harness.registry import Registry

from registry_demo.bootstrap import ENDPOINT_HEADER

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

_RATE = 80.0
"""Requests a second, of which the canary gets its share."""


class Users(threading.Thread):
    """Requests through an Envoy at a steady rate: when each was sent, which endpoint answered it, and how."""

    def __init__(self, found: Envoy) -> None:
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{found.listener}/"
        self._over = threading.Event()
        self.answers: list[tuple[float, str, int]] = []

    def run(self) -> None:
        """Send until the end."""
        begun, number = time.monotonic(), 0
        with httpx.Client(trust_env=False, verify=NO_TLS, timeout=10) as client:
            while not self._over.is_set():
                number += 1
                time.sleep(max(0.0, begun + number / _RATE - time.monotonic()))
                at = time.monotonic()
                answer = client.get(self._url)
                self.answers.append((at, answer.headers.get(ENDPOINT_HEADER, ""), answer.status_code))

    def since(self, at: float) -> list[tuple[str, int]]:
        """Return endpoint and status of the requests since a moment."""
        return [(endpoint, status) for sent, endpoint, status in list(self.answers) if sent >= at]

    @property
    def lost(self) -> int:
        """The requests that failed."""
        return sum(status != 200 for _, _, status in list(self.answers))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self.join(20)


@contextlib.contextmanager
def _apps(process: Registry, service: str) -> Iterator[list[Turned]]:
    """Run three apps of a revision and a last one of the next."""
    apps = [Turned() for _ in range(4)]
    try:
        for app in apps:
            process.register(service, app.endpoint, ttl=600, revision="b" if app is apps[-1] else "a")
        yield apps
    finally:
        for app in apps:
            app.stop()


def _enough(users: Users, since: float) -> bool:
    return len(users.since(since)) >= 50


def _shift(process: Registry, service: str) -> dict[str, Any]:
    found: dict[str, Any] = process.client.get(f"/v1/services/{service}/shift").json()
    return found


@pytest.mark.parametrize(("bad_every", "outcome", "last_step"), [(2, "aborted", 1), (20, "aborted", 3), (0, "done", 3)])
def test_a_canary_is_taken_back_as_soon_as_it_surely_fails(
    shared_registry: Registry, workplace: Path, service: str, bad_every: int, outcome: str, last_step: int
) -> None:
    """50 % bad: in the first step; 5 % bad: by the third; good: never, and it gets all requests."""
    with (
        _apps(shared_registry, service) as apps,
        envoy(workplace, [shared_registry.port], [service], refresh_delay="0.02s") as found,
    ):
        apps[-1].bad_every = bad_every
        eventually(lambda: len(found.hosts(service)) == 4, within=10)
        plan = {"to": "revision=b", "steps": [10, 40, 100], "every": 6, "min_requests": 30}
        shared_registry.client.post(f"/v1/services/{service}/shift", json=plan).raise_for_status()
        beside = registrar(
            workplace,
            shared_registry.url,
            f"front-{service}",
            f"127.0.0.1:{found.listener}",
            envoy_admin=f"http://127.0.0.1:{found.admin}",
            traffic_interval="2s",
        )
        with beside, Users(found) as users:
            eventually(lambda: _shift(shared_registry, service)["state"] != "running", within=60)
        shift = _shift(shared_registry, service)
        assert shift["state"] == outcome, shift
        assert shift["step"] <= last_step, shift
        took = f"{outcome} in step {shift['step']}, {users.lost} of {len(users.answers)} requests lost"
        print(f"a canary with each {bad_every}-th request bad: {took}")  # noqa: T201  # a figure of the proof
        # Errors of the canary alone, which has a tenth, without a retry of Envoy's.
        assert users.lost <= len(users.answers) * (0 if outcome == "done" else 0.1), users.lost


def test_a_share_of_0_and_an_abort_empty_the_group_within_a_second(
    shared_registry: Registry, workplace: Path, service: str
) -> None:
    """And no request is lost by any of the changes."""
    with (
        _apps(shared_registry, service) as apps,
        envoy(workplace, [shared_registry.port], [service], refresh_delay="0.02s") as found,
        Users(found) as users,
    ):
        canary, client = apps[-1].endpoint, shared_registry.client
        url = f"/v1/services/{service}"

        def share(percent: float) -> None:
            client.put(f"{url}/shares", json={"shares": [{"selector": "revision=b", "percent": percent}]})

        def abort() -> None:
            client.delete(f"{url}/shares")
            client.post(f"{url}/shift", json={"to": "revision=b", "steps": [50, 100]}).raise_for_status()
            eventually(lambda: canary in dict(users.since(time.monotonic() - 1)), within=10)
            client.post(f"{url}/shift/abort").raise_for_status()

        orders: list[tuple[Callable[[], None], bool]] = [
            (lambda: share(0), False),
            (lambda: share(100), True),
            (abort, False),
        ]
        for order, to_canary in orders:
            order()
            eventually(lambda: found.weights(service) != {}, within=5)
            time.sleep(1)
            since = time.monotonic()
            eventually(partial(_enough, users, since), within=20)
            endpoints = {endpoint for endpoint, _ in users.since(since)}
            assert (endpoints == {canary}) if to_canary else (canary not in endpoints), endpoints
    assert users.lost == 0
