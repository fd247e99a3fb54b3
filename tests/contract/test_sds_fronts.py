"""Requests for hosts by v1 SDS get the same answer from every front, and the fast one does not ask the application."""

import http.client
import json
from typing import Any

import pytest
from harness.process import eventually
from harness.registry import Registry

Answer = tuple[int, dict[str, str], bytes]


def ask(found: Registry, method: str, path: str, **headers: str) -> Answer:
    """Send one request as it stands, and return the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", found.port, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def counted(found: Registry) -> float:
    """Return how many requests for the hosts of a service there were."""
    name = 'registry_http_requests_total{code="200",method="GET",route="/v1/registration/{service}"} '
    lines = found.client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.fixture
def listed(each_front: Registry, service: str) -> Registry:
    """A front's registry with one host of the service, of the repository by the same name."""
    each_front.register(service, "10.0.0.1:80", repository=service)
    each_front.register(f"{service}-drained", "10.0.0.2:80", repository=service)
    return each_front


@pytest.mark.parametrize("slash", ["", "/"])
def test_hosts_of_a_service(listed: Registry, service: str, slash: str) -> None:
    """GET has the hosts, HEAD the same headers without them; both with and without a trailing slash."""
    status, headers, body = ask(listed, "GET", f"/v1/registration/{service}{slash}")
    document: dict[str, Any] = json.loads(body)
    assert (status, [host["ip_address"] for host in document["hosts"]]) == (200, ["10.0.0.1"])
    assert list(headers) == ["date", "content-length", "content-type", "x-request-id"]
    assert (headers["content-length"], headers["content-type"]) == (str(len(body)), "application/json")
    status, brief, nothing = ask(listed, "HEAD", f"/v1/registration/{service}{slash}")
    assert (status, list(brief), nothing) == (200, list(headers), b"")
    assert brief["content-length"] == headers["content-length"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_hosts_of_a_repository(listed: Registry, service: str, slash: str) -> None:
    """Those of all its services, which follow the next change of any of them."""
    path = f"/v1/registration/repo/{service}{slash}"
    assert len(json.loads(ask(listed, "GET", path)[2])["hosts"]) == 2
    assert ask(listed, "HEAD", path)[2] == b""
    listed.register(f"{service}-drained", "10.0.0.2:80", repository=service, health="UNHEALTHY")
    eventually(lambda: len(json.loads(ask(listed, "GET", path)[2])["hosts"]) == 1)
    assert json.loads(ask(listed, "GET", f"{path.rstrip('/')}-none")[2])["hosts"] == []


def test_addresses_that_need_decoding_and_other_spellings(listed: Registry, service: str) -> None:
    """An escaped letter and a query mean the same; a service called repo is no repository; others are 404."""
    escaped = f"/v1/registration/%{ord(service[0]):02X}{service[1:]}"
    for path in (escaped, f"/v1/registration/{service}?a=b"):
        assert len(json.loads(ask(listed, "GET", path)[2])["hosts"]) == 1
    for path in ("/v1/registration/repo", "/v1/registration/repo/"):
        assert json.loads(ask(listed, "GET", path)[2])["service"] == "repo"
    for method, path in (("GET", f"/v1/registration/{service}//"), ("PUT", f"/v1/registration/{service}")):
        status, _, body = ask(listed, method, path)
        assert (status, body) == (404, b"")
    assert ask(listed, "GET", f"/v1/registration/{'a' * 1100}")[0] in (400, 422)


@pytest.mark.parametrize(("sent", "kept"), [("deploy-7", True), ("a b", False), ("x" * 200, False)])
def test_the_id_of_a_request(listed: Registry, service: str, sent: str, kept: bool) -> None:  # a parameter of the test
    """One that may stand in a log comes back, another one is replaced."""
    headers = ask(listed, "GET", f"/v1/registration/{service}", x_request_id=sent)[1]
    assert (headers["x-request-id"] == sent) is kept


def test_a_request_is_counted_and_its_sender_listed(listed: Registry, service: str) -> None:
    """The metrics name the route as written, and the sender is a subscriber of v1 by the address that it forwards."""
    before = counted(listed)
    ask(listed, "GET", f"/v1/registration/{service}", x_forwarded_for="10.9.8.7")
    assert counted(listed) == before + 1
    document = listed.client.get("/v1/subscribers", params={"service": service}).json()
    assert "10.9.8.7" in json.dumps(document)
