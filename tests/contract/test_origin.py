"""Which requests of a browser are taken: pages of other sites cannot use it, by any front and for any contract."""

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from harness.dropin import FORM_TYPE
from harness.line import Line
from harness.registry import Registry
from harness.routes import every_route

ENDPOINT = "10.0.0.1:80"
ELSEWHERE = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": ""},
    {"sec-fetch-site": "cross-site", "origin": "http://{host}"},
    {"origin": "http://elsewhere.example"},
    {"origin": "http://{host}.elsewhere.example"},
    {"origin": "http://[elsewhere"},
    {"origin": "null"},
    {"origin": ""},
]
OURS = [
    {},
    {"sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "same-origin", "origin": "http://elsewhere.example"},
    {"origin": "http://{host}"},
]


def told(registry: Registry, headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of one case, filled in."""
    return {name: value.format(host=urlsplit(registry.url).netloc) for name, value in headers.items()}


def writes(service: str) -> list[httpx.Request]:
    """Return one of each kind of write that changes 10.0.0.1:80, or would renew its lease."""
    path = f"/v1/services/{service}/endpoints/{ENDPOINT}"
    same = {"instance_id": f"i-{ENDPOINT}", "incarnation": 1}
    beats = {"heartbeats": [{"service": service, "endpoint": ENDPOINT, "registration": same}]}
    lyft = {"ip": "10.0.0.2", "service_repo_name": "x", "port": "80", "revision": "r", "tags": "{}"}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("PUT", path, {"json": same}),
        ("PUT", path, {"json": same | {"health": "UNHEALTHY"}}),
        ("POST", "/v1/heartbeats", {"json": beats}),
        ("POST", f"{path}/drain", {}),
        ("DELETE", path, {}),
        ("DELETE", f"/v1/services/{service}?force=true", {}),
        ("PUT", f"{path}/override", {"json": {"drain": True}}),
        ("PUT", "/v1/expiry/pause", {"json": {"service": service, "reason": "x", "expires_in": 60}}),
        ("POST", f"/v1/registration/{service}", {"data": lyft}),
        ("DELETE", f"/v1/registration/{service}/{ENDPOINT}", {"headers": FORM_TYPE}),
        ("POST", f"/v1/loadbalancing/{service}/10.0.0.1", {"data": {"load_balancing_weight": "3"}}),
        ("POST", f"/ui/services/{service}/endpoints/{ENDPOINT}/drain", {"data": {"reason": "x"}}),
        ("POST", "/v3/discovery:endpoints", {"json": {"resource_names": [service]}}),
        ("POST", "/v2/discovery:endpoints", {"json": {"resource_names": [service]}}),
    ]
    return [httpx.Request(method, f"http://registry{target}", **rest) for method, target, rest in requests]


def send(registry: Registry, write: httpx.Request, headers: dict[str, str]) -> httpx.Response:
    """Send a write with further headers."""
    known = {name: value for name, value in write.headers.items() if name != "host"}
    target = write.url.raw_path.decode()
    return registry.client.request(write.method, target, content=write.content, headers=known | told(registry, headers))


def test_no_route_is_left_out(each_front: Registry) -> None:
    """Every route of the application that does not only read refuses another site, console and drop-ins included."""
    routes = [route for route in every_route() if route.method not in {"GET", "HEAD"}]
    assert len(routes) > 20
    for route in routes:
        answer = each_front.client.request(route.method, route.url, headers=ELSEWHERE[0], **route.content)
        assert answer.status_code == 403, f"{route.method} {route.path}"
        assert "another site" in answer.json()["detail"]


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_a_write_of_another_site_does_nothing(each_front: Registry, service: str, headers: dict[str, str]) -> None:
    """It gets 403 and a problem that says why, whatever its contract; and the endpoint is what it was."""
    each_front.register(service, ENDPOINT)
    before = each_front.endpoints(service)
    for write in writes(service):
        answer = send(each_front, write, headers)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json"), write
        assert "another site" in answer.json()["detail"]
    assert each_front.endpoints(service) == before
    assert each_front.client.get("/v1/expiry").json()["pauses"] == []


@pytest.mark.parametrize("headers", OURS, ids=str)
def test_a_write_of_our_own_pages_or_of_no_page_counts(
    each_front: Registry, service: str, headers: dict[str, str]
) -> None:
    """The registry's own pages, the address bar, and clients that are no browsers are served."""
    each_front.register(service, ENDPOINT)
    renewal, _, beats, drain, *_ = writes(service)
    for write in (renewal, beats, drain):
        assert send(each_front, write, headers).status_code == 200
    assert each_front.statuses(service) == {ENDPOINT: "DRAINING"}


def test_another_site_may_read_what_it_can(each_front: Registry, service: str) -> None:
    """Links from elsewhere lead here; browsers keep what is answered from the page that asked."""
    each_front.register(service, ENDPOINT)
    for path in (f"/ui/services/{service}", f"/v1/services/{service}", f"/v1/registration/{service}"):
        answer = each_front.client.get(path, headers={"sec-fetch-site": "cross-site", "origin": "http://elsewhere"})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


BROWSERS = [
    "origin: http://{host}",
    "sec-fetch-site: same-origin",
    "Sec-Fetch-Mode: navigate",
    "sec-fetch-dest: document",
    "cookie: a=b",
    "Accept-Language: de",
    "user-agent: Mozilla/5.0 (X11; Linux x86_64)",
]
STRANGE = [
    "evil.example",
    "evil.example:8080",
    "EVIL.example.",
    "registry.example.com.evil.example",
    "xregistry.example.com",
    "127.0.0.1.evil.example",
    "[::1].evil.example",
    "evil.example:127.0.0.1",
    "",
    ":80",
    "999.1.1.1",
]
FAMILIAR = [
    "127.0.0.1:8080",
    "10.1.2.3",
    "10.1.2.3.",
    "[::1]:8080",
    "[2001:DB8::1]",
    "localhost",
    "LocalHost:80",
    "localhost.",
    "registry",
    "registry:8080",
    "registry.example.com",
    "Registry.Example.COM:8443",
    "registry.example.com.",
    "registry.example.com.:80",
]


def asked(registry: Registry, target: str, host: str | None, *lines: str, version: str = "1.1") -> tuple[int, bytes]:
    """Send a request on a connection of its own; return what is answered."""
    line, _, body = target.partition("\n")
    head = [f"{line} HTTP/{version}", *([f"host: {host}"] if host is not None else [])]
    head += [one.format(host=host) for one in lines] + [f"content-length: {len(body)}", "", body]
    with Line(registry) as wire:
        wire.send("\r\n".join(head).encode())
        status, _, answer = wire.answer()
    return status, answer


def requests(service: str) -> list[str]:
    """Return one request of each kind: one that a front answers, a stored write, a page and health checks."""
    told = f'{{"instance_id":"i-{ENDPOINT}","incarnation":1}}'
    heartbeat = f'{{"service":"{service}","endpoint":"{ENDPOINT}","registration":{told}}}'
    return [
        f'POST /v3/discovery:endpoints\n{{"resource_names":["{service}"]}}',
        f"PUT /v1/services/{service}/endpoints/{ENDPOINT}\n{told}",
        f'POST /v1/heartbeats\n{{"heartbeats":[{heartbeat}]}}',
        f"GET /v1/services/{service}",
        f"GET /v1/registration/{service}",
        f"GET /ui/services/{service}",
        "GET /livez",
        "GET /metrics",
    ]


@pytest.mark.parametrize("header", BROWSERS)
def test_a_browser_that_asks_under_a_strange_name_is_misdirected(
    each_front: Registry, service: str, header: str
) -> None:
    """421, with what to do: a page whose name was pointed here reads nothing and writes nothing."""
    each_front.register(service, ENDPOINT, health="UNHEALTHY")
    for target in requests(service):
        status, answer = asked(each_front, target, "evil.example:8080", header)
        assert status == 421, target
        assert b"REGISTRY_HOSTS=evil.example (" in answer
    assert each_front.statuses(service) == {ENDPOINT: "UNHEALTHY"}


@pytest.mark.parametrize("host", STRANGE)
def test_a_name_that_is_not_listed_is_strange(each_front: Registry, host: str) -> None:
    """However it is spelt; and for clients that are no browsers it is none of our business."""
    assert asked(each_front, "GET /livez", host, "accept-language: de")[0] == 421
    assert asked(each_front, "GET /livez", host, "user-agent: curl/8", "accept: */*")[0] == 200
    assert asked(each_front, 'POST /v3/discovery:endpoints\n{"resource_names":[]}', host)[0] != 421


@pytest.mark.parametrize("host", FAMILIAR)
def test_a_browser_may_ask_by_address_by_a_short_name_and_by_a_listed_one(
    each_front: Registry, service: str, host: str
) -> None:
    """A page on the internet cannot be served under one of these."""
    each_front.register(service, ENDPOINT)
    for target in requests(service):
        origin = [] if target.startswith("GET") else ["origin: http://{host}"]
        assert asked(each_front, target, host, "accept-language: de", *origin)[0] == 200, target


def test_a_request_has_exactly_one_host(each_front: Registry, service: str) -> None:
    """400 without one, and with two (RFC 9112, 3.2); HTTP/1.0 knew none, and health checks speak it."""
    each_front.register(service, ENDPOINT)
    for target in requests(service):
        assert asked(each_front, target, None)[0] == 400
        assert asked(each_front, target, "localhost", "host: localhost")[0] == 400
        assert asked(each_front, target, "localhost", "Host: evil.example", "accept-language: de")[0] == 400
        assert asked(each_front, target, None, version="1.0")[0] == 200
        assert asked(each_front, target, None, "accept-language: de", version="1.0")[0] == 421


def test_an_absolute_target_stands_for_the_host(each_front: Registry) -> None:
    """RFC 9112, 3.2.2: whatever the Host header says, a browser asked for the name in the target."""
    language = "accept-language: de"
    assert asked(each_front, "GET http://evil.example/livez", "localhost", language)[0] == 421
    assert asked(each_front, "GET http://evil.example/livez?a=http://localhost/", "localhost", language)[0] == 421
    assert asked(each_front, "GET http://localhost@evil.example/livez", "localhost", language)[0] == 421
    assert asked(each_front, "GET http://registry.example.com:80/livez", "evil.example", language)[0] == 200
    assert asked(each_front, "GET http://evil.example/livez", "localhost")[0] == 200
    assert asked(each_front, "GET http://localhost/livez", None)[0] == 400


def test_a_name_is_judged_for_each_request_of_a_connection(each_front: Registry, service: str) -> None:
    """A proxy in front sends what different clients ask for over one connection."""
    each_front.register(service, ENDPOINT)
    body = f'{{"resource_names":["{service}"]}}'
    with Line(each_front) as line:
        for host, agent, status in [
            ("registry", "curl/8", 200),
            ("evil.example", "curl/8", 200),
            ("evil.example", "Mozilla/5.0", 421),
            ("evil.example", "curl/8", 200),
            ("registry", "Mozilla/5.0", 200),
        ]:
            head = f"host: {host}\r\nuser-agent: {agent}\r\ncontent-length: {len(body)}\r\n\r\n"
            line.send(f"POST /v3/discovery:endpoints HTTP/1.1\r\n{head}{body}".encode())
            assert line.answer()[0] == status
