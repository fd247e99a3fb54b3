"""lyft/discovery to the letter: its clients work with only their URL changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.dropin import TAGS, hosts, post_raw, register_form, register_json, tags
from harness.postgres import Postgres
from harness.registry import Registry, registry

WEIGHT_MISSING = {"error": "Required parameter 'weight' is missing."}
WEIGHT_INVALID = {"error": "Invalid load_balancing_weight. Supply an integer between 1 and 100."}
HOST_NOT_FOUND = {"error": "Host not found"}


@pytest.fixture(scope="module")
def trusting_registry(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry behind a proxy on this machine, for clients in two networks."""
    settings = {"auto_ip_networks": "10.1.0.0/16,2001:db8::/32", "trusted_proxies": "127.0.0.0/8"}
    with registry(server.migrated_database(), workplace, **settings) as found:
        yield found


@pytest.fixture(scope="module")
def local_registry(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry whose clients on this machine may register themselves; it trusts no proxy."""
    with registry(server.migrated_database(), workplace, auto_ip_networks="127.0.0.0/8") as found:
        yield found


def register_self(
    registry: Registry, service: str, *forwarded: str, auto_ip: str = "1", ip: str | None = None
) -> tuple[int, list[str]]:
    """Register with auto_ip through proxies that wrote these headers; return the status and the listed addresses."""
    tags = '{"az": "a", "region": "r", "instance_id": "i"}'
    form = {"auto_ip": auto_ip, "port": "80", "revision": "r1", "tags": tags} | ({} if ip is None else {"ip": ip})
    headers = [("x-forwarded-for", value) for value in forwarded]
    answer = registry.client.post(f"/v1/registration/{service}", data=form, headers=headers)
    return answer.status_code, [host["ip_address"] for host in hosts(registry, service)]


def set_weight(registry: Registry, path: str, weight: str) -> tuple[int, bytes]:
    """Set a weight; return the status and the body."""
    form = {"load_balancing_weight": weight}
    answer = registry.client.post(f"/v1/loadbalancing/{path}", data=form)
    return answer.status_code, answer.content


def test_health_check_says_ok(shared_registry: Registry) -> None:
    """`/healthcheck` answers in capitals."""
    answer = shared_registry.client.get("/healthcheck")
    assert (answer.status_code, answer.text) == (200, "OK")


def test_a_form_registers_a_host(shared_registry: Registry, service: str) -> None:
    """A form is 200 with an empty object, and the host has every key that a client reads."""
    answer = register_form(shared_registry, service)
    assert (answer.status_code, answer.json()) == (200, {})
    body = shared_registry.client.get(f"/v1/registration/{service}").json()
    assert (body["service"], body["env"]) == (service, "production")
    (host,) = body["hosts"]
    assert host["last_check_in"].endswith("+00:00")
    assert {name: host[name] for name in host if name not in ("last_check_in", "expire_time")} == {
        "service": service,
        "ip_address": "10.0.0.1",
        "service_repo_name": "repo-1",
        "port": 80,
        "revision": "r1",
        "tags": TAGS | {"canary": False},
    }


@pytest.mark.parametrize("slash", ["", "/"])
def test_trailing_slash_is_optional(shared_registry: Registry, service: str, slash: str) -> None:
    """All paths work with and without a trailing slash."""
    client = shared_registry.client
    form = {"ip": "10.0.0.1", "service_repo_name": service, "port": "80", "revision": "r1"}
    form["tags"] = '{"az": "a", "region": "r", "instance_id": "i"}'
    assert client.post(f"/v1/registration/{service}{slash}", data=form).status_code == 200
    assert len(client.get(f"/v1/registration/repo/{service}{slash}").json()["hosts"]) == 1
    assert set_weight(shared_registry, f"{service}{slash}", "5") == (204, b"")
    assert set_weight(shared_registry, f"{service}/10.0.0.1{slash}", "6") == (204, b"")
    assert client.delete(f"/v1/registration/{service}/10.0.0.1{slash}").status_code == 200


@pytest.mark.parametrize(("sent", "listed"), [("repo-1", "repo-1"), ("", None), (None, None)])
def test_repository_is_a_string_or_null(
    shared_registry: Registry, service: str, sent: str | None, listed: str | None
) -> None:
    """A source repository that is not named is null."""
    register_form(shared_registry, service, service_repo_name=sent)
    assert hosts(shared_registry, service)[0]["service_repo_name"] == listed


def test_hosts_of_a_repository_come_from_all_services(shared_registry: Registry, service: str) -> None:
    """A repository's hosts are those of every service that names it."""
    register_form(shared_registry, f"{service}-a", service_repo_name=service)
    register_form(shared_registry, f"{service}-b", service_repo_name=service, ip="10.0.0.2")
    register_form(shared_registry, f"{service}-c", service_repo_name="another", ip="10.0.0.3")
    body = shared_registry.client.get(f"/v1/registration/repo/{service}").json()
    assert (body["service_repo_name"], body["env"]) == (service, "production")
    assert {host["service"] for host in body["hosts"]} == {f"{service}-a", f"{service}-b"}


def test_the_path_of_repositories_wins_over_a_service_of_that_name(shared_registry: Registry, service: str) -> None:
    """`repo/{name}` is a repository even when a service is called repo, which can still be registered and read."""
    assert register_form(shared_registry, "repo", service_repo_name=service).status_code == 200
    assert shared_registry.client.get("/v1/registration/repo").json()["service"] == "repo"
    body = shared_registry.client.get(f"/v1/registration/repo/{service}").json()
    assert [host["service"] for host in body["hosts"]] == ["repo"]
    assert shared_registry.client.delete("/v1/registration/repo/10.0.0.1").status_code == 200


def test_free_tags_pass_through(shared_registry: Registry, service: str) -> None:
    """Tags that nobody knows come back as they were, also nested ones."""
    free = {"stage": "blue", "slots": 4, "ratio": 0.5, "spot": True, "nothing": None, "nested": {"a": [1, {"b": "c"}]}}
    register_form(shared_registry, service, tags=TAGS | free)
    assert tags(shared_registry, service) == TAGS | free | {"canary": False}


def test_a_form_merges_its_tags(shared_registry: Registry, service: str) -> None:
    """Tags that a later form does not send stay, those that it sends win, and the rest of the host is replaced."""
    register_form(shared_registry, service, tags=TAGS | {"stage": "blue", "canary": True, "load_balancing_weight": 7})
    register_form(shared_registry, service, revision="r2", tags=TAGS | {"az": "zone-b", "slots": 4})
    merged = {"az": "zone-b", "stage": "blue", "slots": 4, "canary": True, "load_balancing_weight": 7}
    assert tags(shared_registry, service) == TAGS | merged
    assert hosts(shared_registry, service)[0]["revision"] == "r2"


def test_json_overwrites_what_a_form_merges(shared_registry: Registry, service: str) -> None:
    """The same tags sent as JSON drop what is not sent."""
    register_form(shared_registry, service, tags=TAGS | {"stage": "blue"})
    register_form(shared_registry, service)
    assert tags(shared_registry, service)["stage"] == "blue"
    register_json(shared_registry, service)
    assert "stage" not in tags(shared_registry, service)


def test_a_host_that_left_starts_afresh(shared_registry: Registry, service: str) -> None:
    """Tags from before a deregistration are not merged into the next registration."""
    register_form(shared_registry, service, tags=TAGS | {"stage": "blue"})
    shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1")
    register_form(shared_registry, service)
    assert tags(shared_registry, service) == TAGS | {"canary": False}


@pytest.mark.parametrize(
    "changes",
    [
        {"ip": None},
        {"ip": ""},
        {"ip": "app.example.com"},
        {"ip": "256.0.0.1"},
        {"ip": "0.0.0.0"},
        {"ip": "10.0.0.1\0"},
        {"port": None},
        {"port": ""},
        {"port": "http"},
        {"port": "0"},
        {"port": "-1"},
        {"port": "65536"},
        {"port": "80.5"},
        {"port": "8" * 5000},
        {"revision": None},
        {"revision": ""},
        {"revision": "\0"},
        {"revision": "x" * 256},
        {"service_repo_name": "a\nb"},
        {"tags": None},
        {"tags": "{}"},
        {"tags": "[]"},
        {"tags": '"az"'},
        {"tags": {"region": "r", "instance_id": "i"}},
        {"tags": {"az": "a", "instance_id": "i"}},
        {"tags": {"az": "a", "region": "r"}},
        {"tags": TAGS | {"instance_id": ""}},
        {"tags": TAGS | {"az": 1}},
        {"tags": TAGS | {"canary": "yes"}},
        {"tags": TAGS | {"load_balancing_weight": 1000}},
    ],
)
def test_missing_or_invalid_values_are_400(shared_registry: Registry, service: str, changes: dict[str, Any]) -> None:
    """A form without a value, or with an impossible one, is 400 with an empty object and registers nothing."""
    answer = register_form(shared_registry, service, **changes)
    assert (answer.status_code, answer.json()) == (400, {})
    assert hosts(shared_registry, service) == []


@pytest.mark.parametrize("told", ["", "blue", "{", "{'az': 'a'}", '{"az": NaN}', '"\\ud800"', "\ufeff{}"])
def test_tags_that_are_no_json_are_named(shared_registry: Registry, service: str, told: str) -> None:
    """Tags that are no JSON have an error of their own."""
    answer = register_form(shared_registry, service, tags=told)
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid json supplied in tags"})


@pytest.mark.parametrize(
    "body", [b"", b"ip", b"\xff=\xff", b"ip=%ff", b"[]", b"&" * 100, b"a=1&" * 100, b"--x\r\n\r\n"]
)
def test_a_body_that_is_no_form_is_400(shared_registry: Registry, service: str, body: bytes) -> None:
    """Bytes that are neither JSON nor a usable form are 400 with an empty object."""
    answer = post_raw(shared_registry, service, body)
    assert (answer.status_code, answer.json()) == (400, {})


def test_a_bare_address_deregisters_all_its_ports(shared_registry: Registry, service: str) -> None:
    """Deregistering an ip takes all of its ports and nobody else's; a second time it is unknown."""
    for ip, port in (("10.0.0.1", "80"), ("10.0.0.1", "81"), ("10.0.0.2", "80")):
        register_form(shared_registry, service, ip=ip, port=port)
    first = shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1")
    assert (first.status_code, first.json()) == (200, {})
    assert [host["ip_address"] for host in hosts(shared_registry, service)] == ["10.0.0.2"]
    second = shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1")
    assert (second.status_code, second.json()) == (400, {})


@pytest.mark.parametrize(
    "host", ["10.0.0.9", "app", "*", "%00", "%ff", "999.0.0.1", "0.0.0.0", "2001:db8::1", "[", " "]
)
def test_deregistering_what_is_unknown_or_no_address_is_400(shared_registry: Registry, service: str, host: str) -> None:
    """An address that is unknown, or is none, deregisters nobody."""
    register_form(shared_registry, service)
    answer = shared_registry.client.delete(f"/v1/registration/{service}/{host}")
    assert (answer.status_code, answer.json()) == (400, {})
    assert len(hosts(shared_registry, service)) == 1


@pytest.mark.parametrize("host", ["2001:db8::5", "[2001:db8::5]", "2001:DB8:0::5"])
def test_a_bare_ipv6_address_deregisters_all_its_ports(shared_registry: Registry, service: str, host: str) -> None:
    """An IPv6 address without a port is a bare address, in any spelling."""
    register_form(shared_registry, service, ip="2001:db8::5", port="80")
    register_form(shared_registry, service, ip="2001:db8::5", port="81")
    assert shared_registry.client.delete(f"/v1/registration/{service}/{host}").status_code == 200
    assert hosts(shared_registry, service) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", WEIGHT_MISSING),
        (b"weight=5", WEIGHT_MISSING),
        (b"load_balancing_weight=", WEIGHT_MISSING),
        (b"{}", WEIGHT_MISSING),
        (b"load_balancing_weight=0", WEIGHT_INVALID),
        (b"load_balancing_weight=101", WEIGHT_INVALID),
        (b"load_balancing_weight=-1", WEIGHT_INVALID),
        (b"load_balancing_weight=1.5", WEIGHT_INVALID),
        (b"load_balancing_weight=heavy", WEIGHT_INVALID),
        (b"load_balancing_weight=%00", WEIGHT_INVALID),
        (b"load_balancing_weight=" + b"9" * 5000, WEIGHT_INVALID),
    ],
)
@pytest.mark.parametrize("host", ["", "/10.0.0.1", "/10.0.0.9", "/app"])
def test_weights_that_are_none_are_named(
    shared_registry: Registry, service: str, host: str, body: bytes, said: dict[str, str]
) -> None:
    """A missing and a bad weight have an error each, before anybody looks for the host."""
    register_form(shared_registry, service)
    answer = shared_registry.client.post(f"/v1/loadbalancing/{service}{host}", content=body)
    assert (answer.status_code, answer.json()) == (400, said)
    assert "load_balancing_weight" not in tags(shared_registry, service)


@pytest.mark.parametrize("weight", [1, 100])
def test_a_weight_is_set_for_a_host(shared_registry: Registry, service: str, weight: int) -> None:
    """The weight of one address is set on all its ports, and on nobody else; the answer is 204 and empty."""
    register_form(shared_registry, service)
    register_form(shared_registry, service, port="81")
    register_form(shared_registry, service, ip="10.0.0.2")
    assert set_weight(shared_registry, f"{service}/10.0.0.1", str(weight)) == (204, b"")
    weights = [host["tags"].get("load_balancing_weight") for host in hosts(shared_registry, service)]
    assert weights == [weight, weight, None]


def test_a_weight_without_an_address_is_for_every_host(shared_registry: Registry, service: str) -> None:
    """Without an ip, every host of the service has the weight; of a service without hosts that is nobody."""
    assert set_weight(shared_registry, service, "5") == (204, b"")
    for ip in ("10.0.0.1", "10.0.0.2", "2001:db8::5"):
        register_form(shared_registry, service, ip=ip)
    assert set_weight(shared_registry, service, "5") == (204, b"")
    weights = [host["tags"]["load_balancing_weight"] for host in hosts(shared_registry, service)]
    assert weights == [5, 5, 5]


@pytest.mark.parametrize("host", ["10.0.0.9", "app", "%00", "10.0.0.1:80"])
def test_a_weight_for_an_unknown_host_is_404(shared_registry: Registry, service: str, host: str) -> None:
    """A host that is unknown, or left, has no weight."""
    register_form(shared_registry, service, ip="10.0.0.9")
    shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.9")
    answer = shared_registry.client.post(f"/v1/loadbalancing/{service}/{host}", data={"load_balancing_weight": "5"})
    assert (answer.status_code, answer.json()) == (404, HOST_NOT_FOUND)


@pytest.mark.parametrize("register", [register_form, register_json])
def test_a_weight_survives_registrations(shared_registry: Registry, service: str, register: Any) -> None:
    """What was set here holds over what later registrations say or leave out, also after a deregistration."""
    register(shared_registry, service)
    set_weight(shared_registry, service, "5")
    for sent in (TAGS, TAGS | {"load_balancing_weight": 50}):
        register(shared_registry, service, tags=sent | {"canary": False})
        assert tags(shared_registry, service)["load_balancing_weight"] == 5
    shared_registry.client.delete(f"/v1/registration/{service}/10.0.0.1")
    register(shared_registry, service)
    assert tags(shared_registry, service)["load_balancing_weight"] == 5


def test_auto_ip_takes_the_address_of_the_peer(local_registry: Registry, service: str) -> None:
    """A client inside the networks registers the address that it comes from, whatever it forwards."""
    assert register_self(local_registry, service) == (200, ["127.0.0.1"])
    assert register_self(local_registry, service, "127.0.0.9") == (200, ["127.0.0.1"])


def test_auto_ip_is_refused_outside_the_networks(shared_registry: Registry, service: str) -> None:
    """A client outside 192.168.0.0/16 cannot register itself unless its network is configured."""
    assert register_self(shared_registry, service) == (400, [])
    assert register_self(shared_registry, service, "192.168.0.1") == (400, [])


def test_an_address_wins_over_auto_ip(local_registry: Registry, service: str) -> None:
    """`auto_ip` counts only where no ip is sent, and an empty one asks for nothing."""
    assert register_self(local_registry, service, auto_ip="") == (400, [])
    assert register_self(local_registry, service, ip="10.0.0.1") == (200, ["10.0.0.1"])
    assert register_self(local_registry, service, ip="") == (200, ["10.0.0.1", "127.0.0.1"])


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["10.1.0.5"], "10.1.0.5"),
        (["203.0.113.9, 10.1.0.6"], "10.1.0.6"),
        (["10.1.0.7,2001:db8::7"], "2001:db8::7"),
        (["203.0.113.9", "10.1.0.8"], "10.1.0.8"),
    ],
)
def test_a_trusted_proxy_tells_the_last_hop(
    trusting_registry: Registry, service: str, forwarded: list[str], address: str
) -> None:
    """Behind a trusted proxy the client's address is what the proxy added last, not what the client wrote before."""
    assert register_self(trusting_registry, service, *forwarded) == (200, [address])


@pytest.mark.parametrize(
    "forwarded",
    [[], ["10.1.0.5, 203.0.113.9"], ["10.1.0.5", "203.0.113.9"], ["unknown"], ["10.1.0.5:4711"], ["10.1.0.5,"], [""]],
)
def test_a_last_hop_outside_the_networks_is_refused(
    trusting_registry: Registry, service: str, forwarded: list[str]
) -> None:
    """An earlier hop inside the networks does not help, nor what is no address."""
    assert register_self(trusting_registry, service, *forwarded) == (400, [])
