"""Whatever a client sends to the native API: the right 4xx, a problem document, and nothing changed."""

import json
import random
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from harness.dropin import FORM_TYPE
from harness.line import Line
from harness.registry import Registry

PROBLEM = "application/problem+json"
LIMIT = 131_072
GOOD = {"instance_id": "i-1", "incarnation": 1}
BY_BOTH_FRONTS = pytest.mark.parametrize("each_front", ["fast", "plain"], indirect=True)
BEAT = {"service": "shop", "endpoint": "10.0.0.1:80", "registration": GOOD}


def refused(answer: httpx.Response, status: int, pointer: str | None = None) -> bool:
    """Assert that an answer is the problem document that it should be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem.get("pointer") == pointer, problem
    return True


def put_raw(registry: Registry, service: str, body: bytes | Iterator[bytes]) -> httpx.Response:
    """Register 10.0.0.1:80 with a body as it is."""
    return registry.client.put(f"/v1/services/{service}/endpoints/10.0.0.1:80", content=body)


@pytest.mark.parametrize(
    "endpoint",
    [
        "app.example.com:80",
        "localhost:80",
        "10.0.0.1",
        "10.0.0.1:",
        ":80",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:-1",
        "10.0.0.1:abc",
        "10.0.0.1:80.0",
        "10.0.0.1:+80",
        "10.0.0.1: 80",
        "10.0.0.1:%D9%A3",
        "10.0.0.1:80%0A",
        "10.0.0.1%00:80",
        "10.0.0:80",
        "010.0.0.1:80",
        "0.0.0.0:80",
        "224.0.0.1:80",
        "2001:db8::5:80",
        "[2001:db8::5]",
        "[::]:80",
        "[ff02::1]:80",
        "[fe80::1%25eth0]:80",
        "[10.0.0.1:80",
        "%FF:80",
    ],
)
@pytest.mark.parametrize(("method", "tail"), [("PUT", ""), ("GET", ""), ("DELETE", ""), ("POST", "/drain")])
def test_an_endpoint_is_an_ip_literal_and_a_port(
    shared_registry: Registry, service: str, endpoint: str, method: str, tail: str
) -> None:
    """A host name, an address that nobody can be sent to, and a port out of range are refused by every verb."""
    path = f"/v1/services/{service}/endpoints/{endpoint}{tail}"
    assert refused(shared_registry.client.request(method, path, json=GOOD), 422, "path:endpoint")
    assert shared_registry.client.get(f"/v1/services/{service}").status_code == 404


@pytest.mark.parametrize(
    "name", ["%00", "a%0A", "%0Aa", "a%20b", "-a", ".a", "a%C3%A9", "%FF", "a" * 256, "a" * 20_000, "a%25", "a,b"]
)
@pytest.mark.parametrize(("method", "tail"), [("PUT", "/endpoints/10.0.0.1:80"), ("GET", ""), ("GET", "/endpoints")])
def test_a_service_has_a_plain_name(shared_registry: Registry, name: str, method: str, tail: str) -> None:
    """A name with control characters, with what Envoy or a path could misread, or without end, is refused."""
    path = f"/v1/services/{name}{tail}"
    assert refused(shared_registry.client.request(method, path, json=GOOD), 422, "path:service")


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"instance_id": ""}, "$.instance_id"),
    ({"instance_id": "x" * 256}, "$.instance_id"),
    ({"instance_id": "a\0b"}, "$.instance_id"),
    ({"instance_id": "a\n"}, "$.instance_id"),
    ({"instance_id": 1}, "$.instance_id"),
    ({"instance_id": None}, "$.instance_id"),
    ({"incarnation": 0}, "$.incarnation"),
    ({"incarnation": -1}, "$.incarnation"),
    ({"incarnation": 1.5}, "$.incarnation"),
    ({"incarnation": "1"}, "$.incarnation"),
    ({"incarnation": True}, "$.incarnation"),
    ({"incarnation": 2**53 + 1}, "$.incarnation"),
    ({"incarnation": 2**64}, "$.incarnation"),
    ({"incarnation": 10**4000}, "$.incarnation"),
    ({"health": "DRAINING"}, "$.health"),
    ({"health": "TIMEOUT"}, "$.health"),
    ({"health": "healthy"}, "$.health"),
    ({"health": None}, "$.health"),
    ({"draining": "true"}, "$.draining"),
    ({"draining": 1}, "$.draining"),
    ({"revision": "x" * 256}, "$.revision"),
    ({"revision": "\x1b[31m"}, "$.revision"),
    ({"region": "\x85"}, "$.region"),
    ({"zone": ["a"]}, "$.zone"),
    ({"canary": "false"}, "$.canary"),
    ({"weight": 0}, "$.weight"),
    ({"weight": 10_001}, "$.weight"),
    ({"weight": -5}, "$.weight"),
    ({"weight": "5"}, "$.weight"),
    ({"weight": 1.5}, "$.weight"),
    ({"weight": True}, "$.weight"),
    ({"repository": "\x7f"}, "$.repository"),
    ({"metadata": []}, "$.metadata"),
    ({"metadata": "a"}, "$.metadata"),
    ({"metadata": {"a": "\0"}}, "$"),
    ({"metadata": {"\x01": 1}}, "$"),
    ({"metadata": {"a": 2**53 + 1}}, "$"),
    ({"metadata": {"a": [[[[1]]]]}}, "$"),
    ({"metadata": {"a": "x" * 1025}}, "$"),
    ({"metadata": {str(number): 1 for number in range(65)}}, "$"),
    ({"detail": "x" * 1025}, "$.detail"),
    ({"detail": "a\r\nb"}, "$.detail"),
    ({"ttl": 0}, "$.ttl"),
    ({"ttl": 0.5}, "$.ttl"),
    ({"ttl": 86_401}, "$.ttl"),
    ({"ttl": "20s"}, "$.ttl"),
    ({"ttl": -1}, "$.ttl"),
    ({"unknown": 1}, "$"),
    ({"Health": "HEALTHY"}, "$"),
]


@BY_BOTH_FRONTS
@pytest.mark.parametrize(("fields", "pointer"), FIELDS)
def test_impossible_registrations_change_nothing(
    each_front: Registry, service: str, fields: dict[str, Any], pointer: str
) -> None:
    """A value of the wrong type or out of range is 422 with its place, alone and in a batch, and stores nothing."""
    each_front.register(service, "10.0.0.1:80", instance_id="i-1")
    before = each_front.endpoints(service)
    alone = each_front.register(service, "10.0.0.1:80", **(GOOD | fields))
    assert refused(alone, 422, pointer)
    beats = [BEAT | {"service": service}, BEAT | {"service": service, "registration": GOOD | fields}]
    batch = each_front.client.post("/v1/heartbeats", json={"heartbeats": beats})
    assert refused(batch, 422, pointer.replace("$", "$.heartbeats[1].registration"))
    assert each_front.endpoints(service) == before


@BY_BOTH_FRONTS
@pytest.mark.parametrize("missing", ["instance_id", "incarnation"])
def test_a_registration_needs_its_owner(each_front: Registry, service: str, missing: str) -> None:
    """Without the instance or its incarnation nobody can tell whose endpoint it is."""
    body = {name: value for name, value in GOOD.items() if name != missing}
    answer = put_raw(each_front, service, json.dumps(body).encode())
    assert refused(answer, 422, "$")
    assert missing in answer.json()["detail"]


UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "white space": b" \n",
    "text": b"hello",
    "truncated": b'{"instance_id": "i-1", "incarn',
    "trailing comma": b'{"instance_id": "i-1", "incarnation": 1,}',
    "two documents": b'{"instance_id": "i-1", "incarnation": 1}{}',
    "single quotes": b"{'instance_id': 'i-1', 'incarnation': 1}",
    "invalid UTF-8": b'{"instance_id": "\xff\xfe", "incarnation": 1}',
    "half a surrogate pair": b'{"instance_id": "\\ud800", "incarnation": 1}',
    "byte order mark": b'\xef\xbb\xbf{"instance_id": "i-1", "incarnation": 1}',
    "utf-16": '{"instance_id": "i-1"}'.encode("utf-16"),
    "NaN": b'{"instance_id": "i-1", "incarnation": 1, "ttl": NaN}',
    "control character in a text": b'{"instance_id": "i\n1", "incarnation": 1}',
    "50,000 open levels": b'{"instance_id": "i-1", "incarnation": 1, "metadata": {"a": ' + b"[" * 50_000,
    "50,000 levels": b'{"instance_id": "i-1", "incarnation": 1, "metadata": {"a": %b}}'
    % (b"[" * 50_000 + b"]" * 50_000),
    "20,000 levels of objects": b'{"metadata": %b1%b}' % (b'{"a":' * 20_000, b"}" * 20_000),
    "100,000 open levels": b"[" * 100_000,
    "100,000 levels under an unknown name": b'{"x": ' + b"[" * 100_000,
}


@BY_BOTH_FRONTS
@pytest.mark.parametrize("path", ["endpoints/10.0.0.1:80", "endpoints/10.0.0.1:80/override", "heartbeats"])
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_json_changes_nothing(each_front: Registry, service: str, body: bytes, path: str) -> None:
    """A body that cannot be read, or is nested without end, is 4xx, and the endpoint stays as it was."""
    each_front.register(service, "10.0.0.1:80", instance_id="i-1")
    before = each_front.endpoints(service)
    method, url = ("POST", "/v1/heartbeats") if path == "heartbeats" else ("PUT", f"/v1/services/{service}/{path}")
    answer = each_front.client.request(method, url, content=body)
    assert answer.status_code in (400, 422)
    assert refused(answer, answer.status_code, answer.json().get("pointer"))
    assert each_front.endpoints(service) == before


@BY_BOTH_FRONTS
@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"true"])
def test_json_that_is_no_object_is_refused(each_front: Registry, service: str, body: bytes) -> None:
    """A registration, a batch and an override are objects."""
    assert refused(put_raw(each_front, service, body), 422, "$")
    assert refused(each_front.client.post("/v1/heartbeats", content=body), 422, "$")
    path = f"/v1/services/{service}/endpoints/10.0.0.1:80/override"
    assert refused(each_front.client.put(path, content=body), 422, "$")


@BY_BOTH_FRONTS
@pytest.mark.parametrize(
    ("beats", "pointer"),
    [
        ([], "$.heartbeats"),
        ([BEAT] * 1001, "$.heartbeats"),
        (None, "$.heartbeats"),
        ({}, "$.heartbeats"),
        ([1], "$.heartbeats[0]"),
        ([BEAT | {"service": "a b"}], "$.heartbeats[0].service"),
        ([BEAT | {"service": "a\n"}], "$.heartbeats[0].service"),
        ([BEAT | {"service": ""}], "$.heartbeats[0].service"),
        ([BEAT | {"endpoint": "1" * 65}], "$.heartbeats[0].endpoint"),
        ([BEAT | {"endpoint": 80}], "$.heartbeats[0].endpoint"),
        ([BEAT | {"more": 1}], "$.heartbeats[0]"),
    ],
)
def test_impossible_batches_are_refused_whole(each_front: Registry, beats: Any, pointer: str) -> None:
    """A batch that is empty, too long or malformed anywhere is refused as one."""
    assert refused(each_front.client.post("/v1/heartbeats", json={"heartbeats": beats}), 422, pointer)


@BY_BOTH_FRONTS
def test_a_refused_batch_is_named_as_it_was_sent(each_front: Registry) -> None:
    """A registrar of the version before finds the place under the name that it gave to the list."""
    beats = [BEAT, BEAT | {"service": "a b"}]
    assert refused(each_front.client.post("/v1/heartbeats", json={"beats": beats}), 422, "$.beats[1].service")
    assert refused(each_front.client.post("/v1/heartbeats", json={"beats": []}), 422, "$.beats")


@BY_BOTH_FRONTS
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "the document lacks the field `heartbeats`"),
        (["heartbeats", "beats"], "both `heartbeats` and `beats`"),
        (["beats", "heartbeats"], "both `heartbeats` and `beats`"),
        (["answers"], "the document has no field `answers`"),
    ],
)
def test_a_batch_has_exactly_one_list(each_front: Registry, service: str, names: list[str], reason: str) -> None:
    """Neither list is no batch, and of two nobody can say which one counts."""
    batch = {name: [BEAT | {"service": service}] for name in names}
    answer = each_front.client.post("/v1/heartbeats", json=batch)
    assert refused(answer, 422, "$")
    assert reason in answer.json()["detail"]
    assert each_front.client.get(f"/v1/services/{service}").status_code == 404


@BY_BOTH_FRONTS
def test_an_impossible_address_in_a_batch_concerns_only_its_beat(each_front: Registry, service: str) -> None:
    """Beats are judged one by one: a host name beside a good endpoint gets a problem in its own answer."""
    beats = [BEAT | {"service": service, "endpoint": "app:80"}, BEAT | {"service": service}]
    answer = each_front.client.post("/v1/heartbeats", json={"heartbeats": beats})
    bad, good = answer.json()["results"]
    assert (answer.status_code, bad["problem"]["status"], "grant" in bad) == (200, 422, False)
    assert good["grant"]["endpoint"] == "10.0.0.1:80"


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({"weight": 0}, "$.weight"),
        ({"weight": 10_001}, "$.weight"),
        ({"weight": "1"}, "$.weight"),
        ({"drain": 1}, "$.drain"),
        ({"reason": "a\nb"}, "$.reason"),
        ({"reason": "x" * 1025}, "$.reason"),
        ({"expires_in": 0}, "$.expires_in"),
        ({"expires_in": -1}, "$.expires_in"),
        ({"expires_in": 31_536_001}, "$.expires_in"),
        ({"expires_in": "1h"}, "$.expires_in"),
        ({"actor": "root"}, "$"),
    ],
)
def test_impossible_overrides_change_nothing(
    shared_registry: Registry, service: str, wanted: dict[str, Any], pointer: str
) -> None:
    """An override out of range is refused, and the one in force stays."""
    shared_registry.register(service, "10.0.0.1:80")
    path = f"/v1/services/{service}/endpoints/10.0.0.1:80/override"
    shared_registry.client.put(path, json={"weight": 5, "reason": "slow disk"})
    before = shared_registry.endpoints(service)
    assert refused(shared_registry.client.put(path, json=wanted), 422, pointer)
    assert shared_registry.endpoints(service) == before


@BY_BOTH_FRONTS
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
@pytest.mark.parametrize("size", [LIMIT + 1, 5_000_000])
def test_huge_bodies_are_413(each_front: Registry, service: str, size: int, chunked: bool) -> None:
    """A body over the limit is refused on every path, whether its length is announced or not."""
    body = json.dumps(GOOD).encode().ljust(size)
    calls = [
        ("PUT", f"/v1/services/{service}/endpoints/10.0.0.1:80"),
        ("POST", "/v1/heartbeats"),
        ("POST", f"/v1/registration/{service}"),
        ("POST", f"/v1/loadbalancing/{service}"),
    ]
    for method, path in calls:
        content = (body[start : start + 60_000] for start in range(0, size, 60_000)) if chunked else body
        assert refused(each_front.client.request(method, path, content=content), 413)
    assert each_front.client.get(f"/v1/services/{service}").status_code == 404


@BY_BOTH_FRONTS
def test_a_body_at_the_limit_is_read(each_front: Registry, service: str) -> None:
    """The limit itself is allowed."""
    assert put_raw(each_front, service, json.dumps(GOOD).encode().ljust(LIMIT)).status_code == 200


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/services?cursor=!!!", "query:cursor"),
        ("/v1/services?cursor=%00", "query:cursor"),
        ("/v1/services?cursor=YQ", "query:cursor"),
        ("/v1/services?cursor=%C3%A9", "query:cursor"),
        ("/v1/services?cursor=_w==", "query:cursor"),
        ("/v1/services?cursor=" + "A" * 600, "query:cursor"),
        ("/v1/services?limit=0", "query:limit"),
        ("/v1/services?limit=1001", "query:limit"),
        ("/v1/services?limit=-1", "query:limit"),
        ("/v1/services?limit=ten", "query:limit"),
        ("/v1/services?limit=" + "9" * 5000, "query:limit"),
        ("/v1/services?limit=%00", "query:limit"),
        ("/v1/services?prefix=" + "a" * 256, "query:prefix"),
        ("/v1/services/{service}/endpoints?status=UP", "query:status.0"),
        ("/v1/services/{service}/endpoints?status=HEALTHY&status=", "query:status.1"),
        ("/v1/services/{service}/endpoints?canary=maybe", "query:canary"),
        ("/v1/services/{service}/endpoints?cursor=YQ==", "query:cursor"),
        ("/v1/services/{service}/endpoints?cursor=LTE=", "query:cursor"),
        ("/v1/services/{service}/endpoints?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "query:cursor"),
        ("/v1/services/{service}/endpoints?zone=" + "a" * 256, "query:zone"),
        ("/v1/events?cursor=1", "query:cursor"),
        ("/v1/events?cursor=a-b", "query:cursor"),
        ("/v1/events?cursor=1-" + "9" * 30, "query:cursor"),
        ("/v1/events?limit=0", "query:limit"),
        ("/v1/events?since=yesterday", "query:since"),
        ("/v1/events?since=NaN", "query:since"),
        ("/v1/events?since=-1", "query:since"),
        ("/v1/events?service=%00", "query:service"),
        ("/v1/events?kind=a%0Ab", "query:kind"),
        ("/v1/events?service=shop&endpoint=app:80", "query:endpoint"),
    ],
)
def test_impossible_questions_are_422(shared_registry: Registry, service: str, path: str, pointer: str) -> None:
    """A cursor that no page gave, a limit or filter out of range, says which parameter is wrong."""
    shared_registry.register(service, "10.0.0.1:80")
    assert refused(shared_registry.client.get(path.format(service=service)), 422, pointer)


@BY_BOTH_FRONTS
@pytest.mark.parametrize("actor", ["a[b", "a;b", "x" * 129, "é"])
def test_an_actor_that_forges_the_history_is_refused(each_front: Registry, service: str, actor: str) -> None:
    """The name that a client gives itself is plain and short."""
    path = f"/v1/services/{service}/endpoints/10.0.0.1:80"
    answer = each_front.client.put(path, json=GOOD, headers=[(b"x-actor", actor.encode())])
    assert refused(answer, 422, "header:x-actor")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/services/", 404),
        ("GET", "/v1/services/shop/nothing", 404),
        ("POST", "/v1/services", 405),
        ("PUT", "/v1/services/shop", 405),
        ("PATCH", "/v1/services/shop/endpoints/10.0.0.1:80", 405),
        ("GET", "/v1/heartbeats", 405),
        ("POST", "/v1/events", 405),
        ("PUT", "/readyz", 405),
        ("POST", "/metrics", 405),
    ],
)
def test_unknown_native_paths_and_methods_are_problems(
    shared_registry: Registry, method: str, path: str, status: int
) -> None:
    """Under our own paths a 404 or 405 is a problem document; a 405 says what is allowed."""
    answer = shared_registry.client.request(method, path)
    assert refused(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/livez", "GET, HEAD"),
        ("/v1/services/shop", "DELETE, GET, HEAD"),
        ("/v1/services/shop/shares", "DELETE, GET, PUT"),
        ("/v1/traffic", "GET, POST"),
    ],
)
def test_a_405_names_all_methods_of_the_path(shared_registry: Registry, path: str, methods: str) -> None:
    """Those of its other routes too; which one comes first is no matter of the client's."""
    assert shared_registry.client.request("TRACE", path).headers["allow"] == methods


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_is_told_to_head_too(shared_registry: Registry, path: str) -> None:
    """Load balancers and monitors ask so, and read the status alone."""
    answer = shared_registry.client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "path", ["/%00", "/%FF", "//", "/..%2F..%2Fetc%2Fpasswd", "/ui/static/%00", "/" + "a/" * 9_000]
)
def test_strange_paths_are_no_errors_of_ours(shared_registry: Registry, path: str) -> None:
    """No path, however strange, is a 5xx."""
    for method in ("GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"):
        assert shared_registry.client.request(method, path).status_code < 500


def _mutations(seeds: list[bytes], count: int) -> Iterator[bytes]:
    """Yield documents with bytes flipped, cut, doubled or replaced; the same ones in every run."""
    chance = random.Random(20260930)
    pieces = [
        b"\0",
        b"\xff",
        b'"',
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"{",
        b"[",
        b"]",
        b"1e999",
        b"-",
        b"null",
        b"%00",
        b"&",
    ]
    for _ in range(count):
        body = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body) + 1)
            to = min(len(body), at + chance.choice([0, 0, 1, 1, 5, 40]))
            body[at:to] = chance.choice([*pieces, bytes([chance.randrange(256)]), bytes(body[:30])])
        yield bytes(body)


SDS = (
    b'{"ip":"10.0.0.1","port":80,"revision":"r1","tags":{"az":"a","region":"r","instance_id":"i","canary":true,"x":1}}'
)
FORM = (
    b"ip=10.0.0.1&port=80&revision=r1&service_repo_name=r&tags="
    b"%7B%22az%22%3A%22a%22%2C%22region%22%3A%22r%22%2C%22instance_id%22%3A%22i%22%2C%22x%22%3A%5B1%5D%7D"
)
POLL = b'{"version_info":"a:1","node":{"id":"x","extensions":[{"a":1}]},"resource_names":["shop"],"type_url":""}'
NATIVE = json.dumps(GOOD | {"metadata": {"a": [1, {"b": "c"}]}, "weight": 5, "detail": "x", "ttl": 20.0}).encode()


@BY_BOTH_FRONTS
@pytest.mark.parametrize(
    ("method", "path", "seeds"),
    [
        ("POST", "/v1/registration/{service}", [SDS, FORM]),
        ("POST", "/v1/loadbalancing/{service}", [b"load_balancing_weight=50"]),
        ("POST", "/v3/discovery:endpoints", [POLL]),
        ("POST", "/v2/discovery:endpoints", [POLL]),
        ("PUT", "/v1/services/{service}/endpoints/10.0.0.1:80", [NATIVE]),
        (
            "POST",
            "/v1/heartbeats",
            [b'{"heartbeats":[{"service":"shop","endpoint":"10.0.0.1:80","registration":%b}]}' % NATIVE],
        ),
    ],
    ids=["registration", "loadbalancing", "v3", "v2", "native", "heartbeats"],
)
def test_mutated_bodies_never_yield_a_defect(
    each_front: Registry, service: str, method: str, path: str, seeds: list[bytes]
) -> None:
    """Hundreds of damaged documents get an answer below 500 each."""
    for body in _mutations(seeds, 300):
        answer = each_front.client.request(method, path.format(service=service), content=body, headers=FORM_TYPE)
        assert answer.status_code < 500, body


@pytest.mark.parametrize("content_type", [*FORM_TYPE.values(), "Application/X-WWW-Form-URLEncoded; charset=UTF-8", "x"])
@pytest.mark.parametrize("flood", [b"a=" + b"%41" * 22_000, b"a=b&" * 20_000, b"a" * 65_537])
def test_forms_beyond_64_kib_are_413(each_front: Registry, service: str, content_type: str, flood: bytes) -> None:
    """Through every contract that reads forms, whatever the type is called: decoding keeps everybody waiting."""
    each_front.register(service, "10.0.0.1:80")
    for path in (
        f"/v1/registration/{service}",
        f"/v1/loadbalancing/{service}",
        f"/v1/loadbalancing/{service}/10.0.0.1",
        f"/ui/services/{service}/endpoints/10.0.0.1:80/drain",
    ):
        answer = each_front.client.post(path, content=flood, headers={"content-type": content_type})
        assert answer.status_code == 413, path
    assert each_front.statuses(service) == {"10.0.0.1:80": "HEALTHY"}


def test_a_target_beyond_64_kib_is_400(each_front: Registry) -> None:
    """Also when it comes in one piece, which is not bounded as what drips is."""
    with Line(each_front) as line:
        line.send(b"GET /v1/services?" + b"%41" * 25_000 + b" HTTP/1.1\r\nhost: test\r\n\r\n")
        assert line.answer()[0] == 400
        assert line.closed()
