"""Shares of traffic, from the command to what each API publishes, against a real PostgreSQL."""

import re
from pathlib import Path
from typing import Any

from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

OLD, OTHER, NEW = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"


def weights(process: Registry, service: str) -> dict[str, Any]:
    """Return the weight of each endpoint as v3 EDS publishes it, or its status where it is not HEALTHY."""
    resources = process.poll(service).json()["resources"]
    return {
        "{address}:{port_value}".format(**member["endpoint"]["address"]["socket_address"]): member.get(
            "load_balancing_weight"
        )
        if member["health_status"] == "HEALTHY"
        else member["health_status"]
        for locality in resources[0]["endpoints"]
        for member in locality["lb_endpoints"]
    }


def v1_weights(process: Registry, service: str) -> dict[str, Any]:
    """Return the weight of each host as v1 publishes it."""
    hosts = process.client.get(f"/v1/registration/{service}").json()["hosts"]
    return {f"{host['ip_address']}:{host['port']}": host["tags"].get("load_balancing_weight") for host in hosts}


def populated(process: Registry, service: str) -> None:
    """Register two endpoints of a revision and one of the next."""
    for endpoint, revision in ((OLD, "a"), (OTHER, "a"), (NEW, "b")):
        process.register(service, endpoint, ttl=600, revision=revision)


def test_a_share_is_set_shown_and_taken_back(shared_registry: Registry, service: str) -> None:
    """By the command; v3 and v1 follow, the history and the explanation have who and why."""
    populated(shared_registry, service)
    before = shared_registry.client.get(f"/v1/services/{service}").json()["version"]
    said = registryctl(shared_registry.url, "share", service, "revision=b=10", "--reason", "try it").out
    assert [line.split() for line in said.splitlines()[:3]] == [
        ["GROUP", "SHARE", "GETS", "ROUTABLE"],
        ["revision=b", "10", "%", "10", "%", "1", "of", "1"],
        ["the", "rest", "90", "%", "90", "%", "2", "of", "2"],
    ]
    assert re.search(r"^set \d+s ago by ann from 127\.0\.0\.1: try it", said, re.MULTILINE)
    assert weights(shared_registry, service) == {OLD: 450_000, OTHER: 450_000, NEW: 100_000}
    assert v1_weights(shared_registry, service) == {OLD: 100, OTHER: 100, NEW: 22}
    # All weights are of one version.
    assert shared_registry.client.get(f"/v1/services/{service}").json()["version"] == before + 1
    explained = registryctl(shared_registry.url, "explain", service, NEW).out
    set_by = "of the requests (ann from 127.0.0.1: try it)"
    assert f"its group revision=b gets 10 % {set_by}; it gets 10 % by itself" in explained
    other = registryctl(shared_registry.url, "explain", service, OTHER).out
    assert f"gets 90 % {set_by}; it gets 45 % by itself" in other
    events = shared_registry.client.get("/v1/events", params={"service": service, "kind": "shares_set"}).json()[
        "events"
    ]
    assert events[0]["reason"] == "revision=b gets 10 %, the rest 90 %: try it"
    page = shared_registry.client.get(f"/ui/services/{service}").text
    assert "Shares of the traffic" in page
    cleared = registryctl(shared_registry.url, "share", service, "--clear").out
    assert cleared == f"{service}: no shares; each endpoint has its own weight\n"
    assert weights(shared_registry, service) == {OLD: None, OTHER: None, NEW: None}
    assert registryctl(shared_registry.url, "share", service, "--clear").status != 0


def test_a_group_without_a_share_is_drained_and_says_why(shared_registry: Registry, service: str) -> None:
    """It is DRAINING in EDS and left out of v1; it is neither missing nor lost."""
    populated(shared_registry, service)
    registryctl(shared_registry.url, "share", service, "revision=b=0", "--reason", "bad")
    assert weights(shared_registry, service) == {OLD: 500_000, OTHER: 500_000, NEW: "DRAINING"}
    assert v1_weights(shared_registry, service) == {OLD: 100, OTHER: 100}
    document = shared_registry.client.get(f"/v1/services/{service}").json()
    assert (document["present"], document["missing"], document["routable"]) == (3, 0, 2)
    explained = registryctl(shared_registry.url, "explain", service, NEW).out
    assert "its group revision=b gets 0 % of the requests (ann from 127.0.0.1: bad)" in explained
    assert "registryctl share --clear" in explained
    other = registryctl(shared_registry.url, "share", service, "zone=nowhere=10", "--reason", "try").err
    assert "revision=b had a share of 0 % until now (ann from 127.0.0.1: bad), and gets requests again" in other
    registryctl(shared_registry.url, "share", service, "revision=b=0", "--reason", "bad")
    assert "gets requests again" not in registryctl(shared_registry.url, "share", service, "revision=b=0").err
    cleared = registryctl(shared_registry.url, "share", service, "--clear")
    assert cleared.out == f"{service}: no shares; each endpoint has its own weight\n"
    assert "revision=b had a share of 0 % until now" in cleared.err


def test_a_share_follows_what_is_routable(shared_registry: Registry, service: str) -> None:
    """A dead canary leaves its share to the rest, and check says so; a second one halves their weights."""
    populated(shared_registry, service)
    put = shared_registry.client.put
    put(f"/v1/services/{service}/shares", json={"shares": [{"selector": "revision=b", "percent": 20}]})
    shared_registry.register(service, NEW, ttl=600, revision="b", health="UNHEALTHY")
    eventually(lambda: weights(shared_registry, service) == {OLD: 500_000, OTHER: 500_000, NEW: "UNHEALTHY"}, within=5)
    (warning,) = shared_registry.client.get(f"/v1/services/{service}/shares").json()["warnings"][-1:]
    assert warning == "revision=b has no routable endpoint, so the others get its 20 %"
    shared_registry.register(service, NEW, ttl=600, revision="b")
    shared_registry.register(service, "10.0.0.4:80", ttl=600, revision="b")
    eventually(
        lambda: (
            weights(shared_registry, service) == {OLD: 400_000, OTHER: 400_000, NEW: 100_000, "10.0.0.4:80": 100_000}
        ),
        within=5,
    )


def test_a_share_that_v1_cannot_say_is_told(shared_registry: Registry, service: str) -> None:
    """With what the group gets there, while a client polls by v1; two of three endpoints are enough for 0.1 %."""
    populated(shared_registry, service)
    shared_registry.register(service, "10.0.0.4:80", ttl=600, revision="a")
    url = shared_registry.url
    assert "by v1" not in registryctl(url, "share", service, "revision=b=99.9").err
    assert v1_weights(shared_registry, service).pop(NEW) == 100
    assert sorted(v1_weights(shared_registry, service).values()) == [1, 1, 100]
    said = " ".join(registryctl(url, "share", service).err.split())
    assert "1 subscriber polls by v1" in said
    assert "the rest gets 1.96 % there in place of 0.1 %, by 2 of its 3 endpoints" in said
    assert "revision=b gets 98 % there in place of 99.9 %" in said
    shown = registryctl(url, "share", service, "revision=b=10").err
    assert ("by v1" in shown, "in place of" in shown) == (True, False)


def test_shares_that_mean_nothing_are_refused_and_change_nothing(shared_registry: Registry, service: str) -> None:
    """With what is allowed, for the API and the command."""
    populated(shared_registry, service)
    put, url = shared_registry.client.put, f"/v1/services/{service}/shares"
    for groups in ([], [{"selector": "b", "percent": 1}], [{"selector": "revision=b", "percent": 101}]):
        assert put(url, json={"shares": groups}).status_code == 422
    twice = put(url, json={"shares": [{"selector": f"revision={name}", "percent": 51} for name in "ab"]})
    assert (twice.status_code, "add up to 102 percent" in twice.text) == (422, True)
    assert (
        put("/v1/services/nobody-knows/shares", json={"shares": [{"selector": "a=b", "percent": 1}]}).status_code == 404
    )
    assert shared_registry.client.get("/v1/services/nobody-knows/shares").status_code == 404
    for selector in ("revision=a\0b", "revision=a\nb"):
        refused_by_api = put(url, json={"shares": [{"selector": selector, "percent": 1}]})
        assert (refused_by_api.status_code, "control character" in refused_by_api.text) == (422, True)
    refused = registryctl(shared_registry.url, "share", service, "revision=b")
    assert (refused.status, "write it like revision=abc=10" in refused.err) == (2, True)
    assert shared_registry.client.get(url).json()["groups"] == []
    assert weights(shared_registry, service) == {OLD: None, OTHER: None, NEW: None}


def test_shares_that_cannot_be_read_harm_no_endpoint(
    server: Postgres, workplace: Path, database: str, service: str
) -> None:
    """Written past the API: the service is served by its own weights."""
    with registry(database, workplace) as own_registry:
        _unreadable_shares(own_registry, server, database, service)


def test_shares_are_taken_back_by_a_process_that_has_not_read_them(
    server: Postgres, workplace: Path, database: str, service: str
) -> None:
    """PostgreSQL knows them, and a second time there is nothing to take back."""
    with registry(database, workplace, resync_interval=300) as own_registry:
        populated(own_registry, service)
        # No notification: the change feed has nothing to read.
        stored = '{"groups":[{"selector":"revision=b","percent":10}],"actor":"ann","reason":"","set_at":1}'
        setting = f"shares = '{stored}', version = version + 1, change = change + 1"
        server.execute(f"UPDATE services SET {setting}", url=database)
        url = f"/v1/services/{service}/shares"
        assert own_registry.client.get(url).json()["groups"] == []
        version = own_registry.client.get(f"/v1/services/{service}").json()["version"]
        assert own_registry.client.delete(url).json()["version"] == version + 2
        again = own_registry.client.delete(url)
        assert (again.status_code, "nothing to take back" in again.text) == (404, True)


def test_shares_that_were_forgotten_are_told(server: Postgres, workplace: Path, database: str, service: str) -> None:
    """By the check, with their author and age, and by a metric; shares that are set anew are not."""
    with registry(database, workplace) as own_registry:
        populated(own_registry, service)
        url = own_registry.url
        registryctl(url, "share", service, "revision=b=10", "--reason", "try it", "--actor", "ann")
        assert "shares-recent" not in registryctl(url, "check").out
        aged = "shares = jsonb_set(shares::jsonb, '{set_at}', '1')::text, version = version + 1, change = change + 1"
        server.execute(f"UPDATE services SET {aged}", url=database)
        eventually(lambda: f"{service}: set " in registryctl(url, "check").out, within=20)
        eventually(lambda: age_of_shares(own_registry) > 1e9, within=20)
        registryctl(url, "share", service, "revision=b=10", "--reason", "still")
        eventually(lambda: 0 < age_of_shares(own_registry) < 1e6, within=20)


def age_of_shares(process: Registry) -> float:
    """Return the metric of the oldest shares."""
    lines = process.client.get("/metrics").text.splitlines()
    (value,) = [line.split()[-1] for line in lines if line.startswith("registry_shares_seconds")]
    return float(value)


def _unreadable_shares(own_registry: Registry, server: Postgres, database: str, service: str) -> None:
    populated(own_registry, service)
    registryctl(own_registry.url, "share", service, "revision=b=10", "--reason", "try it")
    server.execute(
        "UPDATE services SET shares = '{\"groups\": 7}', version = version + 1, change = change + 1", url=database
    )
    eventually(lambda: weights(own_registry, service) == {OLD: None, OTHER: None, NEW: None}, within=10)
    eventually(lambda: "shares_unreadable" in own_registry.log.read_text(), within=5)
