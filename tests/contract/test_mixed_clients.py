"""Clients of both old registries, native registrars and operators, on the same service and the same endpoint."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from harness.dropin import TAGS, hosts, post_raw, register_form, register_json, tags
from harness.registry import Registry

Register = Callable[..., httpx.Response]

TAGS_TEXT = json.dumps(TAGS)


def native(registry: Registry, service: str, **fields: Any) -> httpx.Response:
    """Register the endpoint of both old clients as its own registrar does."""
    told = {"instance_id": "i-1", "incarnation": 7, "zone": "zone-a", "region": "region-1", "revision": "r1"}
    return registry.register(service, "10.0.0.1:80", **(told | fields))


def override(registry: Registry, service: str, **wanted: Any) -> httpx.Response:
    """Set an override as an operator does."""
    return registry.client.put(f"/v1/services/{service}/endpoints/10.0.0.1:80/override", json=wanted)


def weights_told(registry: Registry, service: str) -> list[int | None]:
    """Return the weights that v3 Envoys are told."""
    (resource,) = registry.poll(service).json()["resources"]
    return [one.get("load_balancing_weight") for place in resource["endpoints"] for one in place["lb_endpoints"]]


def test_one_service_may_have_hosts_of_every_client(shared_registry: Registry, service: str) -> None:
    """Hosts that came by JSON, form and the native API stand side by side in v1, v2, v3 and the native API."""
    assert register_json(shared_registry, service, ip="10.0.0.1").status_code == 202
    assert register_form(shared_registry, service, ip="10.0.0.2").status_code == 200
    assert shared_registry.register(service, "10.0.0.3:80").status_code == 200
    every = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    assert [host["ip_address"] for host in hosts(shared_registry, service)] == every
    assert set(shared_registry.statuses(service)) == {f"{ip}:80" for ip in every}
    listed = shared_registry.endpoints(service)
    assert [one["address"] for one in listed] == every


@pytest.mark.parametrize("register", [register_json, register_form, native])
def test_what_an_operator_sets_survives_every_client(
    shared_registry: Registry, service: str, register: Register
) -> None:
    """An operator's weight and drain hold over registrations, whoever sends them, until they are taken back."""
    register(shared_registry, service)
    assert override(shared_registry, service, weight=3, drain=True).status_code == 200
    register(shared_registry, service)
    register(shared_registry, service, revision="r2")
    assert shared_registry.statuses(service) == {"10.0.0.1:80": "DRAINING"}
    assert hosts(shared_registry, service) == []
    override(shared_registry, service, weight=3)
    assert tags(shared_registry, service)["load_balancing_weight"] == 3
    shared_registry.client.delete(f"/v1/services/{service}/endpoints/10.0.0.1:80/override")
    assert "load_balancing_weight" not in tags(shared_registry, service)


def test_a_weight_of_loadbalancing_keeps_the_drain(shared_registry: Registry, service: str) -> None:
    """lyft/discovery's weight goes into the operator's override and leaves its drain as it is."""
    register_form(shared_registry, service)
    override(shared_registry, service, drain=True)
    shared_registry.client.post(f"/v1/loadbalancing/{service}", data={"load_balancing_weight": "9"})
    (endpoint,) = shared_registry.endpoints(service)
    assert (endpoint["status"], endpoint["weight"], endpoint["override"]["drain"]) == ("DRAINING", 9, True)


@pytest.mark.parametrize("register", [register_json, register_form])
def test_old_clients_do_not_fence_a_registrar_off(shared_registry: Registry, service: str, register: Register) -> None:
    """While both beat for one endpoint of one instance, neither is refused and the incarnation stays."""
    native(shared_registry, service)
    assert register(shared_registry, service).is_success
    assert native(shared_registry, service).status_code == 200
    (endpoint,) = shared_registry.endpoints(service)
    assert endpoint["incarnation"] == 7


@pytest.mark.parametrize("register", [register_json, register_form])
def test_a_drained_host_comes_back_after_it_left(shared_registry: Registry, service: str, register: Register) -> None:
    """A drain outlasts the heartbeats of an old client, but not its deregistration."""
    register(shared_registry, service)
    shared_registry.client.post(f"/v1/services/{service}/endpoints/10.0.0.1:80/drain")
    register(shared_registry, service)
    assert shared_registry.statuses(service) == {"10.0.0.1:80": "DRAINING"}
    shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1:80")
    register(shared_registry, service)
    assert shared_registry.statuses(service) == {"10.0.0.1:80": "HEALTHY"}


def test_either_old_client_deregisters_what_the_other_registered(shared_registry: Registry, service: str) -> None:
    """ip:port and bare ip end endpoints of every origin, each with the answer of its own registry."""
    native(shared_registry, service)
    assert shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1:80").status_code == 202
    register_json(shared_registry, service, ip="10.0.0.2")
    assert shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.2").status_code == 200
    assert hosts(shared_registry, service) == []


@pytest.mark.parametrize(
    ("fields", "listed"),
    [
        ({"health": "HEALTHY"}, True),
        ({"health": "DEGRADED"}, True),
        ({"health": "UNHEALTHY"}, False),
        ({"draining": True}, False),
    ],
)
def test_v1_lists_only_who_may_receive_traffic(
    shared_registry: Registry, service: str, fields: dict[str, Any], listed: bool
) -> None:
    """v1 has no health: healthy and degraded endpoints are listed, all others are not, but Envoys of v3 see them."""
    native(shared_registry, service, **fields)
    assert len(hosts(shared_registry, service)) == listed
    assert len(shared_registry.statuses(service)) == 1


@pytest.mark.parametrize(("told", "listed"), [(1, 1), (100, 100), (101, 100), (10_000, 100)])
def test_v1_weights_end_at_100(shared_registry: Registry, service: str, told: int, listed: int) -> None:
    """v1 never carries a weight that Envoy's v1 schema rejects, wherever it came from; v3 has it in full."""
    native(shared_registry, service, weight=told)
    assert tags(shared_registry, service)["load_balancing_weight"] == listed
    assert weights_told(shared_registry, service) == [told]
    native(shared_registry, service)
    override(shared_registry, service, weight=told)
    assert tags(shared_registry, service)["load_balancing_weight"] == listed


def test_a_form_renews_a_heavy_native_endpoint(shared_registry: Registry, service: str) -> None:
    """Tags that are merged into a native weight beyond 100 are not refused for it."""
    native(shared_registry, service, weight=10_000)
    assert register_form(shared_registry, service).status_code == 200
    assert tags(shared_registry, service)["load_balancing_weight"] == 100


def test_free_metadata_cannot_stand_for_the_tags_that_envoy_reads(shared_registry: Registry, service: str) -> None:
    """Metadata under the names of v1's own tags does not reach a v1 answer."""
    native(shared_registry, service, metadata={"load_balancing_weight": 5000, "canary": "yes", "az": 1, "stage": "x"})
    assert tags(shared_registry, service) == TAGS | {"canary": False, "stage": "x"}


@pytest.mark.parametrize("register", [register_json, register_form])
@pytest.mark.parametrize("told", [{}, {"canary": False}, {"canary": True}])
def test_canary_is_always_boolean(
    shared_registry: Registry, service: str, register: Register, told: dict[str, bool]
) -> None:
    """v1 carries a boolean canary, also when none was sent."""
    register(shared_registry, service, tags=TAGS | told)
    assert tags(shared_registry, service)["canary"] is told.get("canary", False)


BAD_TAGS = {
    "nul": r'"x": "a\u0000b"',
    "nul in a key": r'"a\u0000b": 1',
    "escape": r'"x": "\u001b[31m"',
    "newline in an own tag": r'"az": "a\n"',
    "delete": r'"x": "\u007f"',
    "c1 control": r'"x": "\u0085"',
    "nested nul": r'"x": [{"y": "\u0000"}]',
    "half a surrogate pair": r'"x": "\ud800"',
    "half a pair in a key": r'"\udfff": 1',
    "integer beyond 2**53": f'"x": {2**53 + 1}',
    "integer beyond 64 bits": f'"x": -{2**64}',
    "5000 digits": f'"x": {"9" * 5000}',
    "float beyond range": '"x": 1e999',
    "NaN": '"x": NaN',
    "infinity": '"x": -Infinity',
    "NaN in an own tag": '"load_balancing_weight": NaN',
    "five levels": f'"x": {"[" * 5}1{"]" * 5}',
    "500 levels": f'"x": {"[" * 500}1{"]" * 500}',
    "10,000 levels": f'"x": {"[" * 10_000}1{"]" * 10_000}',
    "10,000 open levels": f'"x": {"[" * 10_000}',
    "long text": f'"x": "{"y" * 1025}"',
    "many values": ", ".join(f'"x{number}": {number}' for number in range(65)),
}


@pytest.mark.parametrize("bad", BAD_TAGS.values(), ids=BAD_TAGS)
def test_tags_that_nobody_can_carry_change_nothing(shared_registry: Registry, service: str, bad: str) -> None:
    """What PostgreSQL, Envoy or a log cannot carry is 400 by JSON and by form, and the host stays as it was."""
    register_json(shared_registry, service)
    before = shared_registry.endpoints(service)
    text = f"{TAGS_TEXT[:-1]}, {bad}}}"
    by_json = f'{{"ip": "10.0.0.1", "port": 80, "revision": "r2", "tags": {text}}}'
    assert post_raw(shared_registry, service, by_json).status_code == 400
    assert register_form(shared_registry, service, revision="r2", tags=text).status_code == 400
    assert shared_registry.endpoints(service) == before
