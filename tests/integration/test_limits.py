"""What may not come into the registry, by every way of registering; and what is there already."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

ALLOWED = "10.0.0.0/8"
FORBIDDEN = [
    "127.0.0.1:80",
    "169.254.169.254:80",
    "[fe80::1]:80",
    "[::ffff:127.0.0.1]:80",
    "[2002:7f00:1::1]:80",
    "11.0.0.1:80",
]


@pytest.fixture(scope="module")
def strict(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry that takes endpoints of one network alone."""
    with registry(server.migrated_database(), workplace, endpoint_networks=ALLOWED, max_metadata=200) as found:
        yield found


def native(found: Registry, service: str, endpoint: str, **told: Any) -> httpx.Response:
    """Register through the native API."""
    return found.register(service, endpoint, **told)


def batch(found: Registry, service: str, endpoint: str, **told: Any) -> httpx.Response:
    """Register by a heartbeat in a batch; return its own answer as if it had been alone."""
    registration = {"instance_id": f"i-{endpoint}", "incarnation": 1} | told
    beat = {"service": service, "endpoint": endpoint, "registration": registration}
    answer = found.client.post("/v1/heartbeats", json={"heartbeats": [beat]})
    assert answer.status_code == 200
    (one,) = answer.json()["results"]
    problem = one.get("problem")
    return httpx.Response(problem["status"] if problem else 200, json=problem or one["grant"])


def cookpad(found: Registry, service: str, endpoint: str, **told: Any) -> httpx.Response:
    """Register as cookpad/sds."""
    ip, _, port = endpoint.rpartition(":")
    tags = {"az": "a", "region": "r", "instance_id": "i", **told.get("metadata", {})}
    body = {"ip": ip.strip("[]"), "port": int(port), "revision": "1", "tags": tags}
    return found.client.post(f"/v1/registration/{service}", json=body)


def lyft(found: Registry, service: str, endpoint: str, **told: Any) -> httpx.Response:
    """Register as lyft/discovery."""
    ip, _, port = endpoint.rpartition(":")
    tags = {"az": "a", "region": "r", "instance_id": "i", **told.get("metadata", {})}
    form = {"ip": ip.strip("[]"), "port": port, "revision": "1", "tags": json.dumps(tags)}
    return found.client.post(f"/v1/registration/{service}", data=form)


Register = Callable[..., httpx.Response]
WAYS_IN = pytest.mark.parametrize("register", [native, batch, cookpad, lyft])


@WAYS_IN
@pytest.mark.parametrize("endpoint", FORBIDDEN)
def test_an_address_that_is_not_allowed_is_refused(
    strict: Registry, service: str, register: Register, endpoint: str
) -> None:
    """With 422, by each way to register; the problem says what was received, what is allowed, and how to mend it."""
    answer = register(strict, service, endpoint)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["pointer"] == "path:endpoint"
    assert f"allowed is {ALLOWED}" in problem["detail"]
    assert "REGISTRY_ENDPOINT_NETWORKS" in problem["detail"]
    assert register(strict, service, "10.0.0.1:80").status_code in (200, 202)


@WAYS_IN
def test_metadata_has_a_size(strict: Registry, service: str, register: Register) -> None:
    """Beyond it 422 with size and limit; what is known already is renewed and may change in all else."""
    assert register(strict, service, "10.0.0.1:80", metadata={"a": "x" * 150}).status_code in (200, 202)
    answer = register(strict, service, "10.0.0.1:80", metadata={"a": "x" * 300})
    assert answer.status_code == 422
    assert "REGISTRY_MAX_METADATA allows 200" in answer.json()["detail"]
    assert answer.json()["pointer"] == "$.metadata"


def test_the_address_of_a_takeover_is_judged_too(strict: Registry, service: str) -> None:
    """Another instance at the same address is new."""
    strict.register(service, "10.0.0.1:80")
    answer = strict.register(service, "10.0.0.1:80", instance_id="other", metadata={"a": "x" * 300})
    assert answer.status_code == 422


@pytest.mark.parametrize("register", [native, batch])
def test_an_incarnation_of_the_future_is_refused(strict: Registry, service: str, register: Register) -> None:
    """Whoever knows an instance's id cannot keep the instance out."""
    assert register(strict, service, "10.0.0.1:80", instance_id="i").status_code == 200
    answer = register(strict, service, "10.0.0.1:80", instance_id="i", incarnation=2**53)
    assert (answer.status_code, answer.json()["pointer"]) == (422, "$.incarnation")
    assert register(strict, service, "10.0.0.1:80", instance_id="i", incarnation=2).status_code == 200
    path = f"/v1/services/{service}/endpoints/10.0.0.1:80"
    told = {"instance_id": "i", "incarnation": str(2**53)}
    assert strict.client.post(f"{path}/drain", params=told).status_code == 422
    assert strict.client.delete(path, params=told).status_code == 422


def test_what_was_stored_before_goes_on(server: Postgres, workplace: Path, service: str) -> None:
    """Endpoints that the limits would not let in any more are served, renewed, changed and found by `check`."""
    database = server.migrated_database()
    with registry(database, workplace, max_metadata=10_000) as before:
        before.register(service, "127.0.0.1:80", metadata={"a": "x" * 500}, ttl=600)
        before.register(service, "127.0.0.2:80", ttl=600)
    settings: dict[str, Any] = {
        "endpoint_networks": ALLOWED,
        "max_metadata": 100,
        "max_endpoints": 1,
        "max_services": 1,
    }
    with registry(database, workplace, **settings) as after:
        assert set(after.statuses(service)) == {"127.0.0.1:80", "127.0.0.2:80"}
        renewed = after.register(service, "127.0.0.1:80", metadata={"a": "x" * 500}, ttl=600)
        changed = after.register(service, "127.0.0.1:80", metadata={"a": "x" * 500}, ttl=600, weight=3)
        restarted = after.register(service, "127.0.0.1:80", metadata={"a": "x" * 500}, ttl=600, incarnation=2)
        assert [one.status_code for one in (renewed, changed, restarted)] == [200, 200, 200]
        assert (
            after.register(service, "127.0.0.1:80", metadata={"b": "x" * 500}, ttl=600, incarnation=2).status_code
            == 422
        )
        assert after.register(service, "127.0.0.3:80").status_code == 422
        found = registryctl(after.url, "check", "-o", "json").json["categories"]
        said = {one["id"]: one["said"] for category in found for one in category["checks"]}
        assert sorted(said["endpoints-allowed"]) == [f"{service} 127.0.0.1:80", f"{service} 127.0.0.2:80"]
        assert "2 endpoints of 1 (REGISTRY_MAX_ENDPOINTS): new ones are refused" in said["services-within-limits"]


@WAYS_IN
def test_there_may_be_so_many_endpoints_and_services(
    database: str, workplace: Path, service: str, register: Register
) -> None:
    """Beyond it 429, with the numbers and the settings; who is listed is renewed; whoever leaves makes room."""
    with registry(database, workplace, max_services=2, max_endpoints=3, removal_delay="0s") as found:
        for number in (1, 2, 3):
            assert register(found, f"{service}-{number % 2}", f"10.0.0.{number}:80").status_code in (200, 202)
        more = register(found, f"{service}-1", "10.0.0.4:80")
        assert more.status_code == 429
        assert "3 endpoints are listed, and REGISTRY_MAX_ENDPOINTS allows 3" in more.json()["detail"]
        other = register(found, f"{service}-2", "10.0.0.1:81")
        assert other.status_code == 429
        assert "there are 2, and REGISTRY_MAX_SERVICES allows 2" in other.json()["detail"]
        for number in (1, 2, 3):
            assert register(found, f"{service}-{number % 2}", f"10.0.0.{number}:80").status_code in (200, 202)
        found.client.delete(f"/v1/services/{service}-1/endpoints/10.0.0.1:80", params={"force": "true"})
        eventually(lambda: register(found, f"{service}-1", "10.0.0.5:80").status_code in (200, 202), within=10)
        metrics = found.client.get("/metrics").text
        assert 'registry_registrations_not_admitted_total{limit="services"} 1.0' in metrics


def test_a_refused_registration_leaves_no_service(server: Postgres, workplace: Path, service: str) -> None:
    """Its name would stay in the database for ever."""
    database = server.migrated_database()
    with registry(database, workplace, endpoint_networks=ALLOWED) as found:
        assert found.register(service, "127.0.0.1:80").status_code == 422
        assert server.execute("SELECT name FROM services", url=database) == []
        assert found.register(service, "10.0.0.1:80").status_code == 200
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
