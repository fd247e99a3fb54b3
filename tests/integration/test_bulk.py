"""Changes of several endpoints with one reason, by API, command and console: each decided and done for itself."""

from typing import Any

import httpx
from harness.operator import registryctl
from harness.registry import Registry

ENDPOINTS = [f"10.0.0.{number}:80" for number in range(1, 6)]
UNKNOWN = "10.0.9.9:80"


def fill(process: Registry, service: str) -> None:
    """Register five endpoints."""
    for endpoint in ENDPOINTS:
        process.register(service, endpoint, ttl=600)


def change(process: Registry, service: str, action: str, *endpoints: str, **more: Any) -> httpx.Response:
    """Change endpoints by the API."""
    body = {"action": action, "endpoints": endpoints, "reason": "kernel update"} | more
    return process.client.post(f"/v1/services/{service}/bulk", json=body, headers={"x-actor": "ann"})


def done(answer: httpx.Response) -> list[bool]:
    """Return for each endpoint whether it was changed."""
    return [result["done"] for result in answer.json()["results"]]


def reasons(process: Registry, service: str, kind: str) -> dict[str, str]:
    """Return the newest reason of each endpoint's events of a kind."""
    events = process.client.get("/v1/events", params={"service": service, "kind": kind}).json()["events"]
    return {event["endpoint"]: event["reason"] for event in reversed(events)}


def test_each_endpoint_is_changed_for_itself(shared_registry: Registry, service: str) -> None:
    """One that is not registered, or is no endpoint at all, refuses nothing to the others."""
    fill(shared_registry, service)
    mixed = (ENDPOINTS[0], UNKNOWN, "nonsense", ENDPOINTS[1])
    answer = change(shared_registry, service, "drain", *mixed, expires_in=60)
    assert done(answer) == [True, False, False, True]
    drained, unknown, nonsense, _ = answer.json()["results"]
    assert drained["status"] == "DRAINING"
    assert (unknown["problem"]["status"], nonsense["problem"]["status"]) == (404, 422)
    assert list(shared_registry.statuses(service).values()).count("DRAINING") == 2
    assert reasons(shared_registry, service, "overridden") == dict.fromkeys(ENDPOINTS[:2], "drain: kernel update")
    assert done(change(shared_registry, service, "undrain", *ENDPOINTS[:3])) == [True, True, False]
    assert all(done(change(shared_registry, service, "weight", *ENDPOINTS, weight=7)))
    assert {endpoint["weight"] for endpoint in shared_registry.endpoints(service)} == {7}
    assert all(done(change(shared_registry, service, "weight", *ENDPOINTS, weight=None)))
    assert change(shared_registry, service, "drain", ENDPOINTS[0], weight=5).status_code == 422
    assert change(shared_registry, service, "drain").status_code == 422
    assert change(shared_registry, service, "drain", *(["10.0.0.1:80"] * 201)).status_code == 422
    assert change(shared_registry, service, "drain", ENDPOINTS[0], reason="").status_code == 422


def test_the_guard_holds_for_several_deregistrations(shared_registry: Registry, service: str) -> None:
    """Of five one may go in a minute; the others say so, and go by force."""
    fill(shared_registry, service)
    answer = change(shared_registry, service, "deregister", *ENDPOINTS[:3])
    assert done(answer) == [True, False, False]
    assert answer.json()["results"][1]["problem"]["title"] == "Too many at once"
    assert all(done(change(shared_registry, service, "deregister", *ENDPOINTS[1:3], force=True)))
    assert set(reasons(shared_registry, service, "expelled")) == set(ENDPOINTS[:3])


def test_the_command_takes_several_endpoints(shared_registry: Registry, service: str) -> None:
    """With a line for each, and exit status 4 when one was refused."""
    fill(shared_registry, service)
    url, two = shared_registry.url, ENDPOINTS[:2]
    drained = registryctl(url, "drain", service, *two, UNKNOWN, "--reason", "kernel", "--for", "10m")
    assert drained.status == 4
    lines = drained.out.splitlines()
    assert lines[0] == f"{service} {ENDPOINTS[0]}  DRAINING"
    assert lines[2].startswith(f"{service} {UNKNOWN}  refused: {UNKNOWN} is not registered")
    assert registryctl(url, "undrain", service, *two).status == 2
    assert registryctl(url, "undrain", service, *two, "--reason", "done").status == 0
    gone = registryctl(url, "deregister", service, *two, "--reason", "gone", "--force", "-o", "json")
    assert [result["done"] for result in gone.json["results"]] == [True, True]
    alone = registryctl(url, "drain", service, ENDPOINTS[4], "--reason", "kernel")
    assert f"{service} {ENDPOINTS[4]}  DRAINING" in alone.out


def test_the_console_says_what_was_done_and_what_was_refused(shared_registry: Registry, service: str) -> None:
    """One form, and a page with the result of each."""
    fill(shared_registry, service)
    fields = {"action": "drain", "endpoints": f"{ENDPOINTS[0]} {UNKNOWN}", "reason": "kernel", "who": "Ann"}
    answer = shared_registry.client.post(f"/ui/services/{service}/bulk", data=fields)
    assert answer.status_code == 200, answer.text
    assert "1 of 2 endpoints were drained" in answer.text
    assert f"{UNKNOWN} is not registered" in answer.text
    assert reasons(shared_registry, service, "overridden") == {ENDPOINTS[0]: "drain: kernel"}
    nothing = shared_registry.client.post(f"/ui/services/{service}/bulk", data=fields | {"endpoints": ""})
    assert nothing.status_code == 422
