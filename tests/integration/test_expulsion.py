"""Operators who deregister endpoints: fault 24, a script that deletes a whole service."""

from typing import Any

import httpx
import pytest
from harness.process import eventually
from harness.registry import Registry

TEN = [f"10.0.0.{number}:80" for number in range(1, 11)]


def fill(found: Registry, service: str, endpoints: list[str] | None = None) -> None:
    """Register endpoints of a service."""
    for endpoint in TEN if endpoints is None else endpoints:
        assert found.register(service, endpoint, ttl=600).status_code == 200


def delete(found: Registry, path: str, **told: Any) -> httpx.Response:
    """Ask for a deregistration as an operator, by name."""
    return found.client.delete(f"/v1/services/{path}", params=told, headers={"x-actor": "ann"})


def routable(found: Registry, service: str) -> list[str]:
    """Return the endpoints that may have traffic."""
    return sorted(name for name, status in found.statuses(service).items() if status == "HEALTHY")


def test_a_loop_over_a_service_stops_at_the_guards_share(shared_registry: Registry, service: str) -> None:
    """Two of ten in a minute; then it is 409, says why and how to go on, and changes nothing."""
    fill(shared_registry, service)
    answers = [delete(shared_registry, f"{service}/endpoints/{one}") for one in TEN]
    assert [one.status_code for one in answers] == [204] * 2 + [409] * 8
    problem = answers[-1].json()
    assert (problem["title"], problem["pointer"]) == ("Too many at once", "query:force")
    assert "1 of 8 routable endpoints" in problem["detail"]
    assert "deregistered 2 within 60 s" in problem["detail"]
    assert "force=true" in problem["detail"]
    assert routable(shared_registry, service) == sorted(TEN[2:])
    assert delete(shared_registry, f"{service}/endpoints/{TEN[2]}", force=True).status_code == 204
    assert delete(shared_registry, f"{service}/endpoints/{TEN[3]}").status_code == 409


def test_an_instance_that_deregisters_itself_is_never_kept(shared_registry: Registry, service: str) -> None:
    """It names itself, or its incarnation: a fleet that stops may stop."""
    fill(shared_registry, service)
    for number, one in enumerate(TEN):
        named = {"instance_id": f"i-{one}"} if number % 2 else {"incarnation": 1}
        assert delete(shared_registry, f"{service}/endpoints/{one}", **named).status_code == 204
    assert routable(shared_registry, service) == []


def test_the_drop_in_clients_are_never_kept(shared_registry: Registry, service: str) -> None:
    """Their contract knows no such answer."""
    for number in range(1, 6):
        tags = {"az": "a", "region": "r", "instance_id": f"i-{number}"}
        body = {"ip": f"10.0.0.{number}", "port": 80, "revision": "r1", "tags": tags}
        assert shared_registry.client.post(f"/v1/registration/{service}", json=body).status_code == 202
    for number in range(1, 6):
        answer = shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.{number}:80")
        assert answer.status_code == 202
    assert routable(shared_registry, service) == []


def test_what_is_out_of_rotation_may_go(shared_registry: Registry, service: str) -> None:
    """To clear away who drains costs nobody traffic; once gone it is gone."""
    fill(shared_registry, service, TEN[:4])
    for one in TEN[:4]:
        assert shared_registry.client.post(f"/v1/services/{service}/endpoints/{one}/drain").status_code == 200
    for one in TEN[:4]:
        assert delete(shared_registry, f"{service}/endpoints/{one}").status_code == 204
    again = delete(shared_registry, f"{service}/endpoints/{TEN[0]}", force=True)
    assert again.status_code == 404
    assert "has left already" in again.json()["detail"]


def test_a_whole_service_needs_force_and_goes_in_two_phases(shared_registry: Registry, service: str) -> None:
    """409 says whom it would be; by force all drain, then an empty assignment, and the version goes on."""
    fill(shared_registry, service)
    before = int(shared_registry.poll(service).json()["version_info"].partition(":")[2])
    refused = delete(shared_registry, service, reason="shut down")
    assert refused.status_code == 409
    assert f"10 of 10 routable endpoints of {service} would be deregistered (10.0.0.1:80, " in refused.json()["detail"]
    assert routable(shared_registry, service) == sorted(TEN)
    done = delete(shared_registry, service, reason="shut down", force=True)
    assert done.status_code == 200
    assert sorted(done.json()["endpoints"]) == sorted(TEN)
    assert shared_registry.statuses(service) == dict.fromkeys(TEN, "DRAINING")
    eventually(lambda: shared_registry.statuses(service) == {}, within=8)
    after = shared_registry.poll(service).json()
    assert after["resources"][0]["endpoints"] == []
    assert int(after["version_info"].partition(":")[2]) > done.json()["version"] > before
    again = delete(shared_registry, service, reason="shut down")
    assert (again.status_code, again.json()["endpoints"]) == (200, [])
    events = shared_registry.client.get(f"/v1/events?service={service}&kind=expelled").json()["events"]
    assert {(one["reason"], one["actor"].partition(" ")[0]) for one in events} == {
        ("an operator deregistered it: shut down", "ann")
    }
    refused = shared_registry.register(service, TEN[0])
    assert refused.status_code == 409
    assert shared_registry.register(service, TEN[0], incarnation=2).status_code == 200


def test_a_single_endpoint_is_within_the_share(shared_registry: Registry, service: str) -> None:
    """The guard always lets one go, and so an operator needs no force for a service of one."""
    fill(shared_registry, service, TEN[:1])
    assert delete(shared_registry, service, reason="r").status_code == 200
    assert shared_registry.statuses(service) == {TEN[0]: "DRAINING"}


@pytest.mark.parametrize(("told", "status"), [({}, 422), ({"reason": ""}, 422), ({"reason": "r"}, 404)])
def test_a_service_that_never_was_or_no_reason(
    shared_registry: Registry, service: str, told: dict[str, str], status: int
) -> None:
    """Who deletes a service says why; a mistyped name is told from one that is empty."""
    assert delete(shared_registry, service, **told).status_code == status
