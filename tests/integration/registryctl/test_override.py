"""Operators who change the same endpoint's override at the same moment, by every way there is."""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from harness.registry import Registry

from registryctl.override import change_override
from registryctl.session import Session
from registryctl.settings import Settings

_PAIRS = 20
ENDPOINT = "10.0.0.1:80"


def path_of(service: str) -> str:
    """Return the path of the service's endpoint."""
    return f"/v1/services/{service}/endpoints/{ENDPOINT}"


def override(process: Registry, service: str) -> dict[str, Any] | None:
    """Return the override of the service's endpoint."""
    value: dict[str, Any] | None = process.client.get(path_of(service)).json()["override"]
    return value


def by_command(process: Registry, service: str, change: dict[str, Any]) -> None:
    """Change it as `registryctl` does."""
    session = Session(Settings((process.url,), 5.0, "ann"), "table")
    try:
        change_override(session, path_of(service), change)
    finally:
        session.close()


def by_form(process: Registry, service: str, change: dict[str, Any]) -> None:
    """Change it as the console does, by a page that shows no override yet."""
    fields = {name: {True: "true", False: ""}.get(value, str(value)) for name, value in change.items()}
    answer = process.client.post(f"/ui/services/{service}/endpoints/{ENDPOINT}/override", data=fields)
    assert answer.status_code == 303, answer.text


@pytest.mark.parametrize(
    "ways",
    [(by_command, by_command), (by_form, by_form), (by_command, by_form)],
    ids=["command-command", "form-form", "command-form"],
)
def test_of_two_changes_at_once_none_is_lost(
    shared_registry: Registry,
    service: str,
    ways: tuple[Callable[..., None], Callable[..., None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twenty pairs of a weight and a drain: both are in force each time."""
    wanted = ({"weight": 5, "reason": "slow"}, {"drain": True, "reason": "disk"})
    lost = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number in range(_PAIRS):
            shared_registry.register(f"{service}-{number}", ENDPOINT, ttl=600)
            together = threading.Barrier(2)

            def change(way: Callable[..., None], part: dict[str, Any], name: str, ready: threading.Barrier) -> None:
                ready.wait(10)
                way(shared_registry, name, part)

            for done in [
                pool.submit(change, way, part, f"{service}-{number}", together)
                for way, part in zip(ways, wanted, strict=True)
            ]:
                done.result(30)
            value = override(shared_registry, f"{service}-{number}")
            if value is None or (value["weight"], value["drain"]) != (5, True):
                lost.append(value)
    assert lost == []


def test_a_part_that_is_taken_back_takes_nothing_else_with_it(shared_registry: Registry, service: str) -> None:
    """PATCH keeps what it does not name; PUT replaces; the last part ends the override; then there is none: 404."""
    shared_registry.register(service, ENDPOINT, ttl=600)
    path = f"{path_of(service)}/override"
    patch = shared_registry.client.patch
    assert patch(path, json={"weight": 5, "reason": "slow", "expires_in": 3600}).json()["weight"] == 5
    value = patch(path, json={"canary": False, "drain": True}).json()["override"]
    assert (value["weight"], value["canary"], value["drain"], value["reason"]) == (5, False, True, "slow")
    assert 3500 < value["expires_at"] - time.time() < 3700
    value = patch(path, json={"drain": False, "weight": None}).json()["override"]
    assert (value["weight"], value["canary"], value["drain"]) == (None, False, False)
    shared_registry.client.put(path, json={"weight": 7}).raise_for_status()
    value = override(shared_registry, service)
    assert value is not None
    assert (value["weight"], value["canary"]) == (7, None)
    assert patch(path, json={"weight": None}).json()["override"] is None
    assert patch(path, json={"weight": None}).status_code == 404
    assert patch(path, json={}).status_code == 422
    assert patch(path, json={"weight": 0}).status_code == 422
    assert patch(path, json={"weihgt": 5}).status_code == 422
    assert patch(f"/v1/services/{service}/endpoints/10.0.0.9:80/override", json={"weight": 5}).status_code == 404


def test_a_form_changes_what_was_changed_in_it(shared_registry: Registry, service: str) -> None:
    """A page that is older than another's drain does not take it back; what was emptied in the form is."""
    shared_registry.register(service, ENDPOINT, ttl=600)
    by_command(shared_registry, service, {"weight": 5, "drain": True, "reason": "x"})
    # The page showed the weight alone.
    by_form(shared_registry, service, {"weight": 9, "shown_weight": 5})
    value = override(shared_registry, service)
    assert value is not None
    assert (value["weight"], value["drain"]) == (9, True)
    by_form(shared_registry, service, {"shown_weight": 9})
    value = override(shared_registry, service)
    assert value is not None
    assert (value["weight"], value["drain"]) == (None, True)
    by_form(shared_registry, service, {"shown_drain": True})
    assert override(shared_registry, service) is None
