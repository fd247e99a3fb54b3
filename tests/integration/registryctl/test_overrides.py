"""The overrides in force by API, command and console, and what the history says when one ends."""

import time

from harness.operator import registryctl
from harness.process import eventually
from harness.registry import Registry

ENDPOINT, OTHER = "10.0.0.1:80", "10.0.0.2:80"


def path_of(service: str, endpoint: str = ENDPOINT) -> str:
    """Return the path of an endpoint's override."""
    return f"/v1/services/{service}/endpoints/{endpoint}/override"


def last_reason(process: Registry, service: str, kind: str) -> str:
    """Return the reason of the newest event of a kind."""
    events = process.client.get("/v1/events", params={"service": service, "kind": kind}).json()["events"]
    return str(events[0]["reason"])


def test_overrides_are_listed_by_pages_until_they_end(shared_registry: Registry, service: str) -> None:
    """Each with its setter, reason and end, in the order of endpoints; one that is taken back is not listed."""
    client = shared_registry.client
    for endpoint in (OTHER, ENDPOINT):
        shared_registry.register(service, endpoint, ttl=600)
    drain = {"drain": True, "reason": "disk", "expires_in": 600}
    client.put(path_of(service), json=drain, headers={"x-actor": "ann"}).raise_for_status()
    client.put(path_of(service, OTHER), json={"weight": 5}).raise_for_status()
    first = client.get("/v1/overrides", params={"service": service, "limit": 1}).json()
    (override,) = first["overrides"]
    assert (override["endpoint"], override["status"], override["drain"]) == (ENDPOINT, "DRAINING", True)
    assert (override["actor"], override["reason"]) == ("ann from 127.0.0.1", "disk")
    assert 500 < override["expires_at"] - override["set_at"] < 700
    assert (override["instance_id"], override["open_ended"]) == (f"i-{ENDPOINT}", False)
    second = client.get("/v1/overrides", params={"service": service, "cursor": first["next"]}).json()
    assert [item["endpoint"] for item in second["overrides"]] == [OTHER]
    assert second["next"] is None
    assert client.get("/v1/overrides", params={"cursor": "bm90aGluZw=="}).status_code == 422
    shown = registryctl(shared_registry.url, "overrides", service).out
    assert f"{service}  {ENDPOINT}  DRAINING" in shown
    assert "ann from 127.0.0.1" in shown
    page = client.get("/ui/overrides", params={"service": service}).text
    assert (ENDPOINT in page, OTHER in page) == (True, True)
    assert f"/ui/overrides?service={service}" in client.get(f"/ui/services/{service}").text
    client.delete(path_of(service, OTHER)).raise_for_status()
    listed = client.get("/v1/overrides", params={"service": service}).json()["overrides"]
    assert [item["endpoint"] for item in listed] == [ENDPOINT]


def test_the_end_of_a_drain_names_its_setter(shared_registry: Registry, service: str) -> None:
    """By undrain with a reason, by DELETE, by its own end, and by another part that stays."""
    client = shared_registry.client
    shared_registry.register(service, ENDPOINT, ttl=600)
    drain = {"drain": True, "reason": "disk"}
    client.put(path_of(service), json=drain, headers={"x-actor": "ann"}).raise_for_status()
    undrained = registryctl(shared_registry.url, "undrain", service, ENDPOINT, "--reason", "disk replaced")
    assert undrained.status == 0, undrained.err
    reason = last_reason(shared_registry, service, "override_cleared")
    assert reason.startswith("taken back: disk replaced; ann from 127.0.0.1 set drain at 20")
    assert reason.endswith(": disk")
    client.put(path_of(service), json=drain | {"weight": 5}, headers={"x-actor": "bert"}).raise_for_status()
    client.patch(path_of(service), json={"drain": False, "reason": "half as strong"}).raise_for_status()
    reason = last_reason(shared_registry, service, "overridden")
    assert reason.startswith(
        "weight 5: half as strong; this ends the drain: bert from 127.0.0.1 set weight 5, drain at"
    )
    client.delete(path_of(service), params={"reason": "strong again"}).raise_for_status()
    assert "taken back: strong again; " in last_reason(shared_registry, service, "override_cleared")
    client.put(path_of(service), json=drain | {"expires_in": 0.1}, headers={"x-actor": "cleo"}).raise_for_status()
    begin = "the time of the override is over; cleo from 127.0.0.1 set drain at "
    eventually(lambda: last_reason(shared_registry, service, "override_cleared").startswith(begin), within=10)


def test_an_override_waits_for_its_endpoint_where_people_see_it(shared_registry: Registry, service: str) -> None:
    """Of an endpoint that is gone it is listed without a status; another instance at the address ends it, in words."""
    client = shared_registry.client
    shared_registry.register(service, ENDPOINT, ttl=600)
    shared_registry.register(service, OTHER, ttl=600)
    client.put(path_of(service), json={"drain": True, "reason": "disk"}, headers={"x-actor": "ann"}).raise_for_status()
    client.delete(f"/v1/services/{service}/endpoints/{ENDPOINT}").raise_for_status()

    def statuses() -> list[str | None]:
        listed = client.get("/v1/overrides", params={"service": service}).json()["overrides"]
        return [item["status"] for item in listed]

    assert statuses() == ["DRAINING"]
    eventually(lambda: statuses() == [None], within=15)
    assert "not listed" in registryctl(shared_registry.url, "overrides", service).out
    shared_registry.register(service, ENDPOINT, ttl=600, instance_id="i-another", incarnation=time.time_ns() // 10**6)
    reason = last_reason(shared_registry, service, "registered")
    assert f"; the override of instance i-{ENDPOINT} ends here: ann from 127.0.0.1 set drain at " in reason
    assert statuses() == []
