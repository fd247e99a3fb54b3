"""cookpad/sds to the letter: its clients work with only their URL changed."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.dropin import FORM_TYPE, TAGS, hosts, post_raw, register_json, tags
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

HOST_NOT_FOUND = {"id": "HostNotFound", "reason": "Not found the entry"}
V2 = "type.googleapis.com/envoy.api.v2.ClusterLoadAssignment"


@pytest.fixture(scope="module")
def expiring_registry(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry whose drop-in leases last a second, and that believes each expiry at once."""
    paces = {"sweep_interval": "100ms", "resync_interval": "200ms"}
    with registry(
        server.migrated_database(), workplace, compat_lease_ttl="1s", last_endpoint_hold="0s", **paces
    ) as found:
        yield found


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_root_and_health_check_answer_three_methods(shared_registry: Registry, method: str) -> None:
    """`/` tells the usage and `/hc` says ok, whichever of the three methods asks."""
    usage = shared_registry.client.request(method, "/")
    assert (usage.status_code, "/v1/registration/" in usage.text) == (200, True)
    health = shared_registry.client.request(method, "/hc")
    assert (health.status_code, health.text) == (200, "ok")


def test_root_leads_a_browser_to_the_console_and_nobody_else(shared_registry: Registry) -> None:
    """Only who asks for HTML is sent on; curl, Envoy and sds's clients get the usage, as text."""
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    sent_on = shared_registry.client.get("/", headers={"accept": browser})
    assert (sent_on.status_code, sent_on.headers["location"]) == (303, "/ui")
    page = shared_registry.client.get("/", headers={"accept": browser}, follow_redirects=True)
    assert (page.status_code, "<h1" in page.text) == (200, True)
    for accept in ("*/*", "application/json", "text/plain"):
        assert shared_registry.client.get("/", headers={"accept": accept}).status_code == 200
    assert shared_registry.client.post("/", headers={"accept": browser}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/v1/registration"),
        ("GET", "/v1/registration/"),
        ("GET", "/v1/registration/a/10.0.0.1:80"),
        ("GET", "/v2/discovery:endpoints"),
        ("PUT", "/v1/registration/a"),
        ("PATCH", "/v1/registration/a"),
        ("DELETE", "/v1/registration/a"),
        ("POST", "/v1/registration/a/10.0.0.1:80"),
        ("PUT", "/"),
        ("PUT", "/hc"),
        # Beside the first segments of the project's own paths, and not below them.
        ("GET", "/uix"),
        ("GET", "/v3x"),
        ("POST", "/v3x/discovery:endpoints"),
        ("GET", "/livezx"),
        ("GET", "/v1/servicesx"),
        ("GET", "/v1/services-old/shop"),
    ],
)
def test_unknown_paths_and_methods_are_404_without_a_body(shared_registry: Registry, method: str, path: str) -> None:
    """An unknown path or method is 404, with an empty body."""
    answer = shared_registry.client.request(method, path)
    assert (answer.status_code, answer.content) == (404, b"")


def test_unknown_service_has_no_hosts(shared_registry: Registry, service: str) -> None:
    """A service that never registered is 200 with an empty list, never 404."""
    answer = shared_registry.client.get(f"/v1/registration/{service}")
    assert answer.status_code == 200
    assert answer.json() == {"service": service, "env": "production", "hosts": []}


def test_host_object_has_the_keys_and_types_of_sds(shared_registry: Registry, service: str) -> None:
    """Every key that a client of sds reads is there, in its type; the weight is absent when unset."""
    assert register_json(shared_registry, service).status_code == 202
    (host,) = hosts(shared_registry, service)
    checked_in = dt.datetime.strptime(host["last_check_in"], "%Y-%m-%d %H:%M:%S%z")
    assert host["last_check_in"].endswith("+00:00")
    assert abs(host["expire_time"] - checked_in.timestamp() - 600) <= 1
    assert host | {"last_check_in": "", "expire_time": 0} == {
        "ip_address": "10.0.0.1",
        "port": 80,
        "last_check_in": "",
        "expire_time": 0,
        "revision": "r1",
        "service": service,
        "service_repo_name": None,
        "tags": {"az": "zone-a", "region": "region-1", "instance_id": "i-1", "canary": False},
    }


def test_a_renewal_moves_the_times_of_the_host(expiring_registry: Registry, service: str) -> None:
    """`last_check_in` and `expire_time` follow the heartbeats, although nothing else changes."""
    register_json(expiring_registry, service)
    (before,) = hosts(expiring_registry, service)

    def renewed() -> bool:
        register_json(expiring_registry, service)
        (host,) = hosts(expiring_registry, service)
        later = host["last_check_in"] > before["last_check_in"]
        return later and bool(host["expire_time"] > before["expire_time"])

    eventually(renewed, within=10, every=0.2)


@pytest.mark.parametrize("slash", ["", "/"])
def test_trailing_slash_is_optional(shared_registry: Registry, service: str, slash: str) -> None:
    """Registering, reading and deregistering work with and without a trailing slash."""
    client, body = shared_registry.client, {"ip": "10.0.0.1", "port": 80, "revision": "r1", "tags": TAGS}
    assert client.post(f"/v1/registration/{service}{slash}", json=body).status_code == 202
    assert len(client.get(f"/v1/registration/{service}{slash}").json()["hosts"]) == 1
    assert client.delete(f"/v1/registration/{service}/10.0.0.1:80{slash}").status_code == 202


@pytest.mark.parametrize("headers", [FORM_TYPE, {"content-type": "application/json"}, {"content-type": "text/plain"}])
def test_content_type_is_not_looked_at(shared_registry: Registry, service: str, headers: dict[str, str]) -> None:
    """A JSON body is read as JSON under any content type, also behind white space; the answer is 202 and empty."""
    body = b" \n" + json.dumps({"ip": "10.0.0.1", "port": 80, "revision": "r1", "tags": TAGS}).encode()
    answer = shared_registry.client.post(f"/v1/registration/{service}", content=body, headers=headers)
    assert (answer.status_code, answer.content) == (202, b"")
    assert len(hosts(shared_registry, service)) == 1


def test_unknown_fields_are_ignored(shared_registry: Registry, service: str) -> None:
    """A field that nobody knows does no harm."""
    assert register_json(shared_registry, service, ttl="soon", health=[1, 2]).status_code == 202


def test_a_registration_overwrites_the_one_before(shared_registry: Registry, service: str) -> None:
    """A weight, a canary mark and a free tag that are not sent again are gone."""
    register_json(shared_registry, service, tags=TAGS | {"canary": True, "load_balancing_weight": 7, "stage": "blue"})
    assert tags(shared_registry, service) == TAGS | {"canary": True, "load_balancing_weight": 7, "stage": "blue"}
    register_json(shared_registry, service, revision="r2", tags=TAGS | {"az": "zone-b"})
    assert tags(shared_registry, service) == TAGS | {"az": "zone-b", "canary": False}
    assert hosts(shared_registry, service)[0]["revision"] == "r2"


@pytest.mark.parametrize(
    "changes",
    [
        {"ip": "app.example.com"},
        {"ip": "10.0.0.1:80"},
        {"ip": "0.0.0.0"},
        {"ip": 1},
        {"port": 0},
        {"port": 65536},
        {"port": -1},
        {"port": "80"},
        {"port": 80.5},
        {"revision": None},
        {"revision": "x" * 256},
        {"tags": None},
        {"tags": []},
        {"tags": {}},
        {"tags": TAGS | {"canary": "true"}},
        {"tags": TAGS | {"load_balancing_weight": 0}},
        {"tags": TAGS | {"load_balancing_weight": 101}},
        {"tags": TAGS | {"load_balancing_weight": "5"}},
    ],
)
def test_impossible_values_are_400_text(shared_registry: Registry, service: str, changes: dict[str, Any]) -> None:
    """What cannot be a host is refused with the text of sds, and nothing is registered."""
    answer = register_json(shared_registry, service, **changes)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (400, "text/plain")
    assert answer.text.startswith("Invalid JSON string: ")
    assert hosts(shared_registry, service) == []


@pytest.mark.parametrize("body", ["{", '{"ip"', '{"ip": "10.0.0.1"}', "{}{}", '{"a":' * 10_000])
def test_malformed_json_is_400_text(shared_registry: Registry, service: str, body: str) -> None:
    """A body that begins like JSON and is none gets the reader's own words."""
    answer = post_raw(shared_registry, service, body)
    assert answer.status_code == 400
    assert answer.text.startswith("Invalid JSON string: ")
    assert answer.text != "Invalid JSON string: "


@pytest.mark.parametrize("place", ["revision", "unknown"])
def test_invalid_utf8_is_400_text(shared_registry: Registry, service: str, place: str) -> None:
    """Bytes that are no UTF-8 are refused wherever they stand, also in a field that nobody reads."""
    body = {"ip": "10.0.0.1", "port": 80, "revision": "r1", "tags": TAGS} | {place: "HERE"}
    answer = post_raw(shared_registry, service, json.dumps(body).encode().replace(b"HERE", b"\xff\xfe"))
    assert (answer.status_code, answer.text) == (400, "Invalid UTF-8 string")
    assert hosts(shared_registry, service) == []


def test_deregistering_twice_is_not_found(shared_registry: Registry, service: str) -> None:
    """The first deregistration is 202 and empty and takes the host off the list; the second is HostNotFound."""
    register_json(shared_registry, service)
    first = shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1:80")
    assert (first.status_code, first.content) == (202, b"")
    assert hosts(shared_registry, service) == []
    second = shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1:80")
    assert (second.status_code, second.json()) == (400, HOST_NOT_FOUND)


@pytest.mark.parametrize("host", ["10.0.0.9:80", "10.0.0.1:81", "10.0.0.1:99999", "10.0.0.1:0", "app:80", "%00:80"])
def test_deregistering_an_unknown_host_is_not_found(shared_registry: Registry, service: str, host: str) -> None:
    """Another address, another port, or what can be neither, is HostNotFound and leaves the others alone."""
    register_json(shared_registry, service)
    answer = shared_registry.client.delete(f"/v1/registration/{service}/{host}")
    assert (answer.status_code, answer.json()) == (400, HOST_NOT_FOUND)
    assert len(hosts(shared_registry, service)) == 1


@pytest.mark.parametrize("name", ["%00", "a%0ab", "%F0%9F%98%80", "x" * 300])
def test_no_host_is_found_under_an_impossible_name(shared_registry: Registry, name: str) -> None:
    """A name that no service can have has no hosts to deregister."""
    answer = shared_registry.client.delete(f"/v1/registration/{name}/10.0.0.1:80")
    assert (answer.status_code, answer.json()) == (400, HOST_NOT_FOUND)


def test_an_expired_host_is_gone(expiring_registry: Registry, service: str) -> None:
    """A host whose time is over is not listed, and deregistering it is HostNotFound; registering brings it back."""
    register_json(expiring_registry, service)
    eventually(lambda: hosts(expiring_registry, service) == [], within=10)
    answer = expiring_registry.client.delete(f"/v1/registration/{service}/10.0.0.1:80")
    assert (answer.status_code, answer.json()) == (400, HOST_NOT_FOUND)
    assert register_json(expiring_registry, service).status_code == 202
    assert len(hosts(expiring_registry, service)) == 1


@pytest.mark.parametrize("port", ["http", "-1", "8 0", "80x", "%C2%B2"])
def test_a_port_that_is_no_integer_is_named(shared_registry: Registry, service: str, port: str) -> None:
    """Deregistering with a port that is no integer repeats that port."""
    answer = shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1:{port}")
    told = port.replace("%C2%B2", "²")
    assert (answer.status_code, answer.text) == (400, f"Given port is invalid as integer: {told}")


def test_v2_answers_every_name_in_order(shared_registry: Registry, service: str) -> None:
    """A first poll of v2 gets one resource a name in the order asked, unknown ones without endpoints."""
    register_json(shared_registry, service)
    names = [f"{service}-z", service, f"{service}-a"]
    answer = shared_registry.poll(*names, api="v2").json()
    assert [one["cluster_name"] for one in answer["resources"]] == names
    assert [bool(one["endpoints"]) for one in answer["resources"]] == [False, True, False]
    assert {one["@type"] for one in answer["resources"]} == {V2}


def test_v2_endpoints_carry_locality_metadata_and_weight(shared_registry: Registry, service: str) -> None:
    """Endpoints are grouped by region and zone, with sds's metadata; a weight is there only where one is set."""
    told = TAGS | {"canary": True, "load_balancing_weight": 9}
    register_json(shared_registry, service, ip="10.0.0.1", tags=told)
    register_json(shared_registry, service, ip="10.0.0.2", tags=TAGS | {"instance_id": "i-2"})
    register_json(shared_registry, service, ip="10.0.0.3", tags=TAGS | {"instance_id": "i-3", "az": "zone-b"})
    (resource,) = shared_registry.poll(service, api="v2").json()["resources"]
    assert [(one["locality"], len(one["lb_endpoints"])) for one in resource["endpoints"]] == [
        ({"region": "region-1", "zone": "zone-a"}, 2),
        ({"region": "region-1", "zone": "zone-b"}, 1),
    ]
    heavy, light = resource["endpoints"][0]["lb_endpoints"]
    assert heavy == {
        "endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}},
        "health_status": "HEALTHY",
        "metadata": {"filter_metadata": {"envoy.lb": {"canary": True, "revision": "r1", "instance_id": "i-1"}}},
        "load_balancing_weight": 9,
    }
    assert "load_balancing_weight" not in light


def test_v2_version_is_stable_across_polls(shared_registry: Registry, service: str) -> None:
    """Polls between two changes get equal answers, and a renewal is no change."""
    register_json(shared_registry, service)
    first = shared_registry.poll(service, api="v2")
    register_json(shared_registry, service)
    second = shared_registry.poll(service, api="v2")
    assert first.content == second.content
    assert shared_registry.poll(service, api="v2", version=first.json()["version_info"]).status_code == 304


@pytest.mark.parametrize("told", ["2001:db8::5", "2001:0DB8:0:0::5"])
@pytest.mark.parametrize("host", ["[2001:db8::5]:80", "2001:db8::5:80"])
def test_ipv6_hosts_work_throughout(shared_registry: Registry, service: str, told: str, host: str) -> None:
    """An IPv6 host is listed in its canonical form, reaches Envoy, and leaves with or without brackets."""
    assert register_json(shared_registry, service, ip=told).status_code == 202
    assert [(one["ip_address"], one["port"]) for one in hosts(shared_registry, service)] == [("2001:db8::5", 80)]
    (resource,) = shared_registry.poll(service, api="v2").json()["resources"]
    (endpoint,) = resource["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {"address": "2001:db8::5", "port_value": 80}
    assert shared_registry.client.delete(f"/v1/registration/{service}/{host}").status_code == 202
    assert hosts(shared_registry, service) == []
