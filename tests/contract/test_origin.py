"""Pages of other sites cannot make a browser write: refused behind every door, for every contract."""

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from harness.dropin import FORM_TYPE
from harness.registry import Registry

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
    beats = {"beats": [{"service": service, "endpoint": ENDPOINT, "registration": same}]}
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


@pytest.mark.parametrize("headers", ELSEWHERE, ids=str)
def test_a_write_of_another_site_does_nothing(each_door: Registry, service: str, headers: dict[str, str]) -> None:
    """It gets 403 and a problem that says why, whatever its contract; and the endpoint is what it was."""
    each_door.register(service, ENDPOINT)
    before = each_door.endpoints(service)
    for write in writes(service):
        answer = send(each_door, write, headers)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json"), write
        assert "another site" in answer.json()["detail"]
    assert each_door.endpoints(service) == before
    assert each_door.client.get("/v1/expiry").json()["pauses"] == []


@pytest.mark.parametrize("headers", OURS, ids=str)
def test_a_write_of_our_own_pages_or_of_no_page_counts(
    each_door: Registry, service: str, headers: dict[str, str]
) -> None:
    """The registry's own pages, the address bar, and clients that are no browsers are served."""
    each_door.register(service, ENDPOINT)
    renewal, _, beats, drain, *_ = writes(service)
    for write in (renewal, beats, drain):
        assert send(each_door, write, headers).status_code == 200
    assert each_door.statuses(service) == {ENDPOINT: "DRAINING"}


def test_another_site_may_read_what_it_can(each_door: Registry, service: str) -> None:
    """Links from elsewhere lead here; browsers keep what is answered from the page that asked."""
    each_door.register(service, ENDPOINT)
    for path in (f"/ui/services/{service}", f"/v1/services/{service}", f"/v1/registration/{service}"):
        answer = each_door.client.get(path, headers={"sec-fetch-site": "cross-site", "origin": "http://elsewhere"})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers
