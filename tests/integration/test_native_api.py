"""The native API, through a real registry process on a real PostgreSQL."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

DRAIN = {"drain": True, "reason": "maintenance"}


@pytest.fixture(scope="module")
def own_database(server: Postgres) -> str:
    """A database whose tables the tests look into."""
    return server.migrated_database()


@pytest.fixture(scope="module")
def own_registry(own_database: str, workplace: Path) -> Iterator[Registry]:
    """A registry on it that removes quickly."""
    with registry(own_database, workplace, removal_delay="300ms", sweep_interval="100ms") as found:
        yield found


def kinds(found: Registry, service: str) -> list[str]:
    """Return what happened, in order."""
    events = found.client.get("/v1/events", params={"service": service}).json()["events"]
    return [event["kind"] for event in reversed(events)]


def path_of(service: str, endpoint: str = "10.0.0.1:80") -> str:
    """Return the path of an endpoint."""
    return f"/v1/services/{service}/endpoints/{endpoint}"


def test_registering_twice_changes_nothing(shared_registry: Registry, service: str) -> None:
    """A second identical registration renews the lease and leaves the version alone."""
    first = shared_registry.register(service, "10.0.0.1:80").json()
    second = shared_registry.register(service, "10.0.0.1:80").json()
    assert first == second
    assert first["version"] == 1
    assert (first["ttl"], first["interval"], first["drain_wait"]) == (20.0, 5.0, 12.0)


REQUESTS: dict[str, tuple[str, str, Any]] = {
    "deregister": ("DELETE", "/v1/services/{}/endpoints/10.0.0.1:80", None),
    "drain": ("POST", "/v1/services/{}/endpoints/10.0.0.1:80/drain", None),
    "override": ("PUT", "/v1/services/{}/endpoints/10.0.0.1:80/override", DRAIN),
    "clear override": ("DELETE", "/v1/services/{}/endpoints/10.0.0.1:80/override", None),
    "explain": ("GET", "/v1/services/{}/endpoints/10.0.0.1:80/explain", None),
    "history": ("GET", "/v1/services/{}/history?at=1", None),
    "service": ("GET", "/v1/services/{}", None),
}


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_for_what_is_unknown_leaves_no_trace(
    own_registry: Registry, own_database: str, server: Postgres, method: str, path: str, body: Any
) -> None:
    """A mistyped name is 404 and no service: neither in the list nor in the database, where it would stay for good."""
    names = [f"typo-{uuid.uuid4().hex[:8]}" for _ in range(20)]
    for name in names:
        answer = own_registry.client.request(method, path.format(name), json=body)
        assert answer.status_code == 404
        assert answer.json()["title"] == "Not found"
    assert server.execute("SELECT name FROM services WHERE name = ANY($1)", names, url=own_database) == []


DROP_IN: dict[str, tuple[str, str, Any]] = {
    "deregister ip:port": ("DELETE", "/v1/registration/{}/10.0.0.1:80", None),
    "deregister ip": ("DELETE", "/v1/registration/{}/10.0.0.1", None),
    "weight": ("POST", "/v1/loadbalancing/{}/10.0.0.1", {"load_balancing_weight": "5"}),
    "weight of all": ("POST", "/v1/loadbalancing/{}", {"load_balancing_weight": "5"}),
    "an incomplete form": ("POST", "/v1/registration/{}", {"ip": "10.0.0.1", "port": "80", "tags": "{}"}),
}


@pytest.mark.parametrize(("method", "path", "form"), DROP_IN.values(), ids=DROP_IN)
def test_a_drop_in_request_for_what_is_unknown_leaves_no_trace(
    own_registry: Registry, own_database: str, server: Postgres, method: str, path: str, form: Any
) -> None:
    """Whichever contract it came by."""
    names = [f"typo-{uuid.uuid4().hex[:8]}" for _ in range(5)]
    for name in names:
        assert own_registry.client.request(method, path.format(name), data=form).status_code in (204, 400, 404)
    assert server.execute("SELECT name FROM services WHERE name = ANY($1)", names, url=own_database) == []


def test_a_refused_registration_changes_nothing(
    own_registry: Registry, own_database: str, server: Postgres, service: str
) -> None:
    """409, and the service's numbers and history are as they were; a bad one makes no service at all."""
    own_registry.register(service, "10.0.1.1:80", incarnation=5)
    before = server.execute("SELECT version, change FROM services WHERE name = $1", service, url=own_database)
    refused = own_registry.register(service, "10.0.1.1:80", incarnation=4)
    assert (refused.status_code, refused.json()["incarnation"]) == (409, 5)
    assert server.execute("SELECT version, change FROM services WHERE name = $1", service, url=own_database) == before
    assert kinds(own_registry, service) == ["registered"]
    assert own_registry.register(f"{service}-bad", "10.0.1.2:80", weight=0).status_code == 422
    assert server.execute("SELECT 1 FROM services WHERE name = $1", f"{service}-bad", url=own_database) == []


def test_a_second_drain_makes_no_second_event(own_registry: Registry, service: str) -> None:
    """It is answered as the first one, and says nothing new to Envoys or to the history."""
    own_registry.register(service, "10.0.0.1:80")
    drain = path_of(service) + "/drain"
    first, second = (own_registry.client.post(drain, params={"incarnation": 1}) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["status"] == second.json()["status"] == "DRAINING"
    assert own_registry.client.post(drain).json()["changed_at"] == first.json()["changed_at"]
    assert kinds(own_registry, service) == ["registered", "drained"]


def test_an_override_is_taken_back_once(own_registry: Registry, service: str) -> None:
    """204 with nothing in it, then 404: an operator who mistypes an address is not told that it is done."""
    path = path_of(service) + "/override"
    own_registry.register(service, "10.0.0.1:80")
    missing = own_registry.client.delete(path)
    assert (missing.status_code, missing.json()["status"]) == (404, 404)
    assert "no override is set" in missing.json()["detail"]
    assert own_registry.client.put(path, json=DRAIN).status_code == 200
    assert own_registry.statuses(service) == {"10.0.0.1:80": "DRAINING"}
    taken = own_registry.client.delete(path)
    assert (taken.status_code, taken.content) == (204, b"")
    assert own_registry.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
    assert own_registry.client.delete(path).status_code == 404
    assert kinds(own_registry, service) == ["registered", "overridden", "override_cleared"]


def lb_metadata(found: Registry, service: str) -> dict[str, Any]:
    """Return what Envoy's subsets can match of a service's only endpoint."""
    (resource,) = found.poll(service).json()["resources"]
    metadata: dict[str, Any] = resource["endpoints"][0]["lb_endpoints"][0]["metadata"]["filter_metadata"]["envoy.lb"]
    return metadata


def test_an_operator_says_what_a_canary_is(own_registry: Registry, service: str) -> None:
    """Over the registration, to Envoys of every version and to lists, until it is taken back; the weight stays."""
    path = path_of(service) + "/override"
    own_registry.register(service, "10.0.0.1:80", canary=True, weight=7)
    set_one = own_registry.client.put(path, json={"canary": False, "reason": "bad build"}).json()
    assert (set_one["canary"], set_one["weight"], set_one["override"]["canary"]) == (False, 7, False)
    assert lb_metadata(own_registry, service)["canary"] is False
    host = own_registry.client.get(f"/v1/registration/{service}").json()["hosts"][0]
    assert host["tags"]["canary"] is False
    listed = f"/v1/services/{service}/endpoints"
    assert own_registry.client.get(listed, params={"canary": True}).json()["endpoints"] == []
    own_registry.client.delete(path)
    assert lb_metadata(own_registry, service)["canary"] is True
    assert own_registry.client.put(path, json={"reason": "nothing"}).status_code == 422


def test_the_history_is_asked_for_by_who_did_it(own_registry: Registry, service: str) -> None:
    """By a part of the name, in which % and _ mean themselves."""
    own_registry.register(service, "10.0.0.1:80")
    for actor in ("ann", "bert"):
        own_registry.client.put(path_of(service) + "/override", json=DRAIN, headers={"x-actor": actor})

    def actors(wanted: str) -> list[str]:
        found = own_registry.client.get("/v1/events", params={"service": service, "actor": wanted})
        return [event["actor"].partition(" ")[0] for event in found.json()["events"]]

    assert (actors("ann"), actors("a%n"), actors("_ert")) == (["ann"], [], [])


def test_an_override_waits_for_its_own_instance(
    own_registry: Registry, own_database: str, server: Postgres, service: str
) -> None:
    """Who is given the address next is not drained by what was said of another instance."""
    own_registry.register(service, "10.0.0.1:80", instance_id="i-1")
    own_registry.client.put(path_of(service) + "/override", json=DRAIN)
    _deregister(own_registry, service)
    own_registry.register(service, "10.0.0.1:80", instance_id="i-1", incarnation=2)
    assert own_registry.statuses(service) == {"10.0.0.1:80": "DRAINING"}
    _deregister(own_registry, service)
    own_registry.register(service, "10.0.0.1:80", instance_id="i-2")
    assert own_registry.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
    assert server.execute("SELECT 1 FROM overrides WHERE service = $1", service, url=own_database) == []


def test_an_override_passes_on_with_no_takeover(own_registry: Registry, service: str) -> None:
    """Nor when the next instance takes the address over while the first is still listed."""
    own_registry.register(service, "10.0.0.1:80", instance_id="i-1")
    own_registry.client.put(path_of(service) + "/override", json=DRAIN)
    own_registry.register(service, "10.0.0.1:80", instance_id="i-2")
    assert own_registry.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
    assert own_registry.client.get(path_of(service)).json()["override"] is None


def test_an_override_of_who_left_can_be_taken_back(own_registry: Registry, service: str) -> None:
    """It waits in the database; there is a way to end it before its instance returns."""
    own_registry.register(service, "10.0.0.1:80", instance_id="i-1")
    own_registry.client.put(path_of(service) + "/override", json=DRAIN)
    _deregister(own_registry, service)
    assert own_registry.client.put(path_of(service) + "/override", json=DRAIN).status_code == 404
    assert own_registry.client.delete(path_of(service) + "/override").status_code == 204
    assert own_registry.client.delete(path_of(service) + "/override").status_code == 404
    own_registry.register(service, "10.0.0.1:80", instance_id="i-1", incarnation=3)
    assert own_registry.statuses(service) == {"10.0.0.1:80": "HEALTHY"}


def _deregister(found: Registry, service: str) -> None:
    assert found.client.delete(path_of(service)).status_code == 204
    eventually(lambda: found.statuses(service) == {}, within=8)


def test_a_cursor_of_endpoints_is_read_last(shared_registry: Registry, service: str) -> None:
    """An unknown service is answered first; an ETag counts only as it was sent, in its quotes."""
    shared_registry.register(service, "10.0.0.1:80")
    client, bad = shared_registry.client, {"cursor": "no"}
    url = f"/v1/services/{service}/endpoints"
    assert client.get(f"/v1/services/{service}-unknown/endpoints", params=bad).status_code == 404
    assert client.get(url, params=bad).status_code == 422

    def current() -> list[int]:
        etag = client.get(url).headers["etag"]
        held = (etag, etag.removeprefix("W/"), etag.removeprefix("W/").strip('"'))
        return [client.get(url, headers={"if-none-match": each}).status_code for each in held]

    # The leases may be read between two requests, which changes the ETag.
    eventually(lambda: current() == [304, 304, 200])
