"""REST EDS as Envoy asks for it: v3, and v2 beside it."""

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from harness.process import eventually
from harness.registry import Registry

from registry.app import build_app
from registry.core.endpoint import Endpoint
from registry.core.snapshot import SnapshotDelta
from registry.core.versions import MAX_LOST_VERSIONS
from registry.http.asgi import DiscoveryMiddleware
from registry.http.lists.lists import Lists
from registry.http.v1.edge import EdgeQuestions
from registry.process import RegistryProcess
from registry.settings import load_settings
from registry.usecases.traffic import Traffic
from registry.xds.eds import TYPE_URL
from registry.xds.resources import ENDPOINTS, Api, RestPath
from wire import discovery_poll as poll
from wire.model import Registration

APIS: list[Api] = ["v3", "v2"]
POLL_ERRORS = {400: "Unreadable request", 413: "Body too large", 422: "Invalid request"}
LIMIT = 131_072


def envoy_body(*names: str, api: Api = "v3", version: str | None = None) -> bytes:
    """Return a poll as Envoy 1.40 writes it, with the 516 extensions that it names each time."""
    extensions = [
        {
            "name": f"envoy.filters.http.extension_{number}",
            "category": "envoy.filters.http",
            "type_urls": [f"envoy.extensions.filters.http.extension_{number}.v3.Extension"],
        }
        for number in range(516)
    ]
    node = {
        "id": "i-1",
        "cluster": "web",
        "metadata": {"resource_names": ["not-this"], "version_info": "nor-this"},
        "locality": {"region": "region-1", "zone": "zone-a"},
        "user_agent_name": "envoy",
        "extensions": extensions,
    }
    told = {} if version is None else {"version_info": version}
    body = told | {"node": node, "resource_names": list(names), "type_url": TYPE_URL[api]}
    return json.dumps(body, separators=(",", ":")).encode()


def post(registry: Registry, body: bytes, api: Api = "v3") -> httpx.Response:
    """Poll with a body as it is."""
    headers = {"content-type": "application/json"}
    return registry.client.post(f"/{api}/discovery:endpoints", content=body, headers=headers)


def names(answer: httpx.Response) -> list[str]:
    """Return the names of the assignments in an answer."""
    assert answer.status_code == 200, answer.text
    return [resource["cluster_name"] for resource in answer.json()["resources"]]


def version(registry: Registry, *services: str, api: str = "v3") -> str:
    """Return the version that a poll gets now."""
    told: str = registry.poll(*services, api=api).json()["version_info"]
    return told


def test_an_answer_is_a_discovery_response(each_front: Registry, service: str) -> None:
    """The answer has exactly the fields that Envoy checks, with the type of the path that was asked."""
    each_front.register(service, "10.0.0.1:80")
    for api in APIS:
        answer = each_front.poll(service, api=api)
        assert answer.headers["content-type"] == "application/json"
        body = answer.json()
        assert body.keys() == {"version_info", "resources", "type_url"}
        assert body["type_url"] == body["resources"][0]["@type"] == TYPE_URL[api]
        assert body["resources"][0]["endpoints"][0]["load_balancing_weight"] == 1


def test_names_come_in_the_order_asked_and_once(each_front: Registry, service: str) -> None:
    """An answer has the names that were asked for, in their order, and a name asked twice once."""
    wanted = [f"{service}-{letter}" for letter in "cab"]
    for name in [*wanted, f"{service}-d"]:
        each_front.register(name, "10.0.0.1:80")
    for api in APIS:
        assert names(each_front.poll(*wanted, *wanted, api=api)) == wanted


def test_unknown_names_are_left_out_of_v3(each_front: Registry, service: str) -> None:
    """A name that never registered has no resource in v3: an Envoy keeps what it has."""
    assert names(each_front.poll(service)) == []
    each_front.register(service, "10.0.0.1:80")
    assert names(each_front.poll(f"{service}-a", service, f"{service}-b")) == [service]


@pytest.mark.parametrize("foreign", ["another:1", "1", "e0a5b1c2-0000-4000-8000-000000000000", "x:y:z"])
def test_v2_never_empties_what_another_registry_filled(each_front: Registry, service: str, foreign: str) -> None:
    """A v2 poll that brings the version of another registry gets no empty assignment for an unknown name."""
    assert names(each_front.poll(service, api="v2")) == [service]
    assert names(each_front.poll(service, api="v2", version=foreign)) == []


@pytest.mark.parametrize("api", APIS)
def test_a_service_emptied_on_purpose_has_an_empty_assignment(
    shared_registry: Registry, service: str, api: Api
) -> None:
    """After the last endpoint left for good, Envoys are told so: a resource without endpoints."""
    shared_registry.register(service, "10.0.0.1:80")
    shared_registry.client.delete(f"/v1/services/{service}/endpoints/10.0.0.1:80")
    assert shared_registry.statuses(service) == {"10.0.0.1:80": "DRAINING"}
    eventually(lambda: not shared_registry.statuses(service), within=10)
    (resource,) = shared_registry.poll(service, api=api).json()["resources"]
    assert resource == {"@type": TYPE_URL[api], "cluster_name": service, "endpoints": []}


@pytest.mark.parametrize("api", APIS)
def test_an_equal_version_is_304_at_once(each_front: Registry, service: str, api: Api) -> None:
    """Without the header that allows to wait, a current version is answered at once, with no body."""
    each_front.register(service, "10.0.0.1:80")
    held = version(each_front, service, api=api)
    started = time.monotonic()
    answer = each_front.poll(service, api=api, version=held)
    assert (answer.status_code, answer.content) == (304, b"")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("held", [None, "", "another:1", ":", "0", "1"])
def test_any_other_version_is_200(each_front: Registry, service: str, held: str | None) -> None:
    """A poll without a version, or with one that is none of ours, is answered in full, however long it would wait."""
    each_front.register(service, "10.0.0.1:80")
    assert names(each_front.poll(service, version=held, hold=5)) == [service]


@pytest.mark.parametrize("numbers", ["", "x", "1.1", "-1", "1e3", "٣", "9" * 400, "9007199254740992"])
def test_a_version_with_impossible_numbers_is_200(each_front: Registry, service: str, numbers: str) -> None:
    """Our own database's name with numbers that we never gave is no version of ours."""
    each_front.register(service, "10.0.0.1:80")
    database = version(each_front, service).partition(":")[0]
    assert names(each_front.poll(service, version=f"{database}:{numbers}", hold=5)) == [service]


@pytest.mark.parametrize("api", APIS)
def test_a_held_poll_ends_with_the_change(each_front: Registry, service: str, api: Api) -> None:
    """A poll that is up to date waits, and is answered 200 within moments of the next change."""
    each_front.register(service, "10.0.0.1:80")
    held = version(each_front, service, api=api)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(each_front.poll, service, api=api, version=held, hold=20)
        time.sleep(0.3)
        assert not waiting.done()
        each_front.register(service, "10.0.0.2:80")
        changed = time.monotonic()
        answer = waiting.result()
    assert time.monotonic() - changed < 1
    assert answer.status_code == 200
    assert len(each_front.statuses(service)) == 2


def test_a_held_poll_for_an_unknown_name_ends_with_its_first_endpoint(each_front: Registry, service: str) -> None:
    """Also the first registration of a service is a change."""
    held = version(each_front, service)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(each_front.poll, service, version=held, hold=20)
        time.sleep(0.2)
        each_front.register(service, "10.0.0.1:80")
        assert names(waiting.result()) == [service]


def test_a_renewal_does_not_end_a_held_poll(each_front: Registry, service: str) -> None:
    """Heartbeats, and changes that Envoy cannot see, leave a poll waiting until its budget is over."""
    each_front.register(service, "10.0.0.1:80")
    held = version(each_front, service)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(each_front.poll, service, version=held, hold=1)
        each_front.register(service, "10.0.0.1:80")
        each_front.register(service, "10.0.0.1:80", detail="still well", repository="repo-1")
        assert waiting.result().status_code == 304
    assert version(each_front, service) == held


@pytest.mark.parametrize(("budget", "least", "most"), [(1.0, 0.7, 0.95), (0.5, 0.2, 0.45), (0.2, 0.0, 0.15)])
def test_a_held_poll_ends_before_its_budget(
    each_front: Registry, service: str, budget: float, least: float, most: float
) -> None:
    """Nothing new is 304, a margin before the subscriber would give up; a machine that is busy may miss it once."""
    each_front.register(service, "10.0.0.1:80")
    held = version(each_front, service)
    took = [most]
    while took[-1] >= most and len(took) < 10:
        started = time.monotonic()
        assert each_front.poll(service, version=held, hold=budget).status_code == 304
        took.append(time.monotonic() - started)
    assert took[-1] < most
    assert min(took) >= least


@pytest.mark.parametrize("header", ["", "soon", "-1", "1.5", "²", "0", "0" * 5000])
def test_a_budget_that_is_none_holds_nothing(each_front: Registry, service: str, header: str) -> None:
    """A header that is no number of milliseconds is as good as none."""
    held = version(each_front, service)
    body = {"version_info": held, "node": {}, "resource_names": [service]}
    headers = [(b"x-envoy-expected-rq-timeout-ms", header.encode("latin-1"))]
    started = time.monotonic()
    answer = each_front.client.post("/v3/discovery:endpoints", json=body, headers=headers)
    assert answer.status_code == 304
    assert time.monotonic() - started < 2


def test_versions_are_ordered(each_front: Registry, service: str) -> None:
    """Each change raises the version by one, and whoever holds an older one is answered."""
    seen = []
    for port in (80, 81, 82):
        each_front.register(service, f"10.0.0.1:{port}")
        seen.append(version(each_front, service))
    database = seen[0].partition(":")[0]
    assert seen == [f"{database}:1", f"{database}:2", f"{database}:3"]
    for older in seen[:2]:
        assert each_front.poll(service, version=older).status_code == 200


@pytest.mark.parametrize("ahead", [2, 1000, 20 * MAX_LOST_VERSIONS])
def test_a_version_from_the_future_is_outbid(shared_registry: Registry, service: str, ahead: int) -> None:
    """Whoever holds a version that nobody stored gets no older one, but soon a newer one, which works as any other."""
    shared_registry.register(service, "10.0.0.1:80")
    database = version(shared_registry, service).partition(":")[0]
    given = [shared_registry.poll(service, version=f"{database}:{ahead}")]

    def outbid() -> bool:
        given.append(shared_registry.poll(service, version=f"{database}:{ahead}", hold=1))
        return given[-1].status_code == 200

    eventually(outbid, within=15)
    assert {answer.status_code for answer in given[:-1]} <= {304}
    held = given[-1].json()["version_info"]
    assert int(held.partition(":")[2]) > ahead
    assert shared_registry.poll(service, version=held).status_code == 304


@pytest.mark.parametrize("ahead", [21 * MAX_LOST_VERSIONS, 2**53 - 1, 2**63, 10**16])
def test_an_absurd_version_moves_nothing(each_front: Registry, service: str, ahead: int) -> None:
    """No number of lost commits explains it, so it is as good as none and the service's version stays."""
    each_front.register(service, "10.0.0.1:80")
    held = version(each_front, service)
    answer = each_front.poll(service, version=f"{held.partition(':')[0]}:{ahead}")
    assert answer.status_code == 200
    assert answer.json()["version_info"] == held


def test_v2_and_v3_have_the_same_versions(each_front: Registry, service: str) -> None:
    """A version says what is held, not in which form."""
    each_front.register(service, "10.0.0.1:80")
    assert version(each_front, service, api="v2") == version(each_front, service, api="v3")


def test_several_names_have_a_version_each(each_front: Registry, service: str) -> None:
    """The version of several names changes with each of them; equal is 304, one that is older is 200."""
    first, second = f"{service}-a", f"{service}-b"
    each_front.register(first, "10.0.0.1:80")
    each_front.register(second, "10.0.0.1:80")
    each_front.register(second, "10.0.0.2:80")
    held = version(each_front, first, second)
    assert each_front.poll(first, second, version=held).status_code == 304
    each_front.register(first, "10.0.0.2:80")
    assert names(each_front.poll(first, second, version=held)) == [first, second]
    assert version(each_front, first, second) != held
    assert names(each_front.poll(first, version=held)) == [first]


def test_a_version_is_of_the_names_it_was_given_for(each_front: Registry, service: str) -> None:
    """Other names, or the same in another order, are another question: never 304, although the numbers are equal."""
    first, second, third = (f"{service}-{letter}" for letter in "abc")
    for name in (first, second, third):
        each_front.register(name, "10.0.0.1:80")
    held = version(each_front, first, second)
    assert names(each_front.poll(first, third, version=held)) == [first, third]
    assert names(each_front.poll(second, first, version=held)) == [second, first]


def test_a_poll_for_no_names_is_answered(each_front: Registry) -> None:
    """No names are no resources, and no error."""
    for body in (b"{}", b'{"resource_names":[]}', b'{"resource_names":null,"version_info":null,"type_url":null}'):
        assert names(post(each_front, body)) == []


ODD_BODIES: dict[str, Callable[[str, str], str]] = {
    "other order": lambda name, held: f'{{"resource_names":["{name}"],"node":{{}},"version_info":"{held}"}}',
    "version after node": lambda name, held: f'{{"node":{{}},"version_info":"{held}","resource_names":["{name}"]}}',
    "camelCase": lambda name, held: f'{{"versionInfo":"{held}","node":{{}},"resourceNames":["{name}"],"typeUrl":""}}',
    "white space": lambda name, held: (
        f' {{ "version_info" : "{held}",\n\t"node" : {{ }} , "resource_names" : [ "{name}" ] }}\r\n'
    ),
    "white space at the end": lambda name, held: (
        f'{{"version_info":"{held}","node":{{}},"resource_names":["{name}"]}} \n'
    ),
    "unknown fields": lambda name, held: (
        f'{{"version_info":"{held}","node":{{}},"resource_names":["{name}"],"response_nonce":"1",'
        f'"error_detail":{{"code":3}},"later":[{{}}]}}'
    ),
    "no node": lambda name, held: f'{{"version_info":"{held}","resource_names":["{name}"]}}',
    "node is null": lambda name, held: f'{{"version_info":"{held}","node":null,"resource_names":["{name}"]}}',
    "escaped name": lambda name, held: (
        f'{{"version_info":"{held}","node":{{}},"resource_names":["\\u{ord(name[0]):04x}{name[1:]}"]}}'
    ),
    "escaped version": lambda name, held: (
        f'{{"version_info":"\\u{ord(held[0]):04x}{held[1:]}","node":{{}},"resource_names":["{name}"]}}'
    ),
    "decoy in node": lambda name, held: (
        f'{{"version_info":"{held}","resource_names":["{name}"],'
        f'"node":{{"metadata":{{}},"resource_names":["decoy"],"version_info":"decoy"}}}}'
    ),
    "decoy in a text": lambda name, held: (
        f'{{"version_info":"{held}","resource_names":["{name}"],"node":{{"id":"}},\\"resource_names\\":[\\"decoy\\"]}}"}}}}'
    ),
}


@pytest.mark.parametrize("odd", ODD_BODIES.values(), ids=ODD_BODIES)
def test_odd_but_valid_bodies_are_understood(
    each_front: Registry, service: str, odd: Callable[[str, str], str]
) -> None:
    """Any JSON spelling of a DiscoveryRequest is read as what it says, version included."""
    each_front.register(service, "10.0.0.1:80")
    assert names(post(each_front, odd(service, "another:1").encode())) == [service]
    held = version(each_front, service)
    assert post(each_front, odd(service, held).encode()).status_code == 304


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "text": (b"hello", 400),
    "form": (b"resource_names=shop", 400),
    "array": (b"[]", 400),
    "null": (b"null", 400),
    "two documents": (b'{"resource_names":["a"]}{}', 400),
    "byte order mark": (b'\xef\xbb\xbf{"resource_names":["a"]}', 400),
    "utf-16": ('{"resource_names":["a"]}'.encode("utf-16"), 400),
    "cut in the node": (envoy_body("shop")[:50_000], 400),
    "cut in the names": (envoy_body("shop")[:-80], 400),
    "last byte missing": (envoy_body("shop")[:-1], 400),
    "first byte missing": (envoy_body("shop")[1:], 400),
    "name is no UTF-8": (b'{"node":{"id":"x"},"resource_names":["\xff"]}', 400),
    "version is no UTF-8": (b'{"version_info":"\xff","node":{"id":"x"},"resource_names":["a"]}', 400),
    "name is a number": (b'{"resource_names":[1]}', 400),
    "names are a text": (b'{"resource_names":"a"}', 400),
    "version is a number": (b'{"version_info":1,"resource_names":["a"]}', 400),
    "half a surrogate pair": (b'{"resource_names":["\\ud800"]}', 400),
    "deep": (b'{"node":' * 10_000, 400),
    "deep and balanced": (b'{"node":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    "type of a listener": (b'{"resource_names":["a"],"type_url":"type.googleapis.com/envoy.config.listener"}', 422),
    "type of v2 in an Envoy's body": (envoy_body("shop", api="v2"), 422),
    "long name": (b'{"resource_names":["%b"]}' % (b"a" * 1025), 422),
    "too many names": (json.dumps({"resource_names": [str(one) for one in range(10_001)]}).encode(), 422),
    "over the limit": (b" " * (LIMIT + 1), 413),
}


@pytest.mark.parametrize(("body", "status"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_bodies_are_problems(each_front: Registry, body: bytes, status: int) -> None:
    """What is no DiscoveryRequest for this path is a problem document, and Envoy keeps its hosts."""
    answer = post(each_front, body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["title"]) == (status, POLL_ERRORS[status])
    assert answer.json()["detail"]


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_the_limit_holds_for_chunks_too(each_front: Registry, service: str, size: int) -> None:
    """A body of unannounced length may be as long as the limit, and no longer."""
    each_front.register(service, "10.0.0.1:80")
    asked = f'{{"resource_names":["{service}"]}}'.encode().ljust(size)
    chunks = (asked[start : start + 10_000] for start in range(0, size, 10_000))
    answer = each_front.client.post("/v3/discovery:endpoints", content=chunks)
    assert answer.status_code == (200 if size <= LIMIT else 413)


@pytest.mark.parametrize("path", ["/v3/discovery:endpoints", "/v3/nothing"])
def test_other_methods_and_paths_of_v3_are_problems(shared_registry: Registry, path: str) -> None:
    """v3 is ours: what does not exist under it is a problem document, not the empty 404 of old."""
    answer = shared_registry.client.get(path)
    assert answer.status_code in (404, 405)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("api", APIS)
def test_a_real_envoys_body_works(each_front: Registry, service: str, api: Api) -> None:
    """77 kB with all extensions are read by cutting out both ends, and answered, then 304."""
    each_front.register(service, "10.0.0.1:80")
    first = envoy_body(service, api=api)
    assert 70_000 < len(first) < 90_000
    assert poll.read_ends(RestPath(ENDPOINTS, api), first) == ((service,), "")
    held = post(each_front, first, api).json()["version_info"]
    second = envoy_body(service, api=api, version=held)
    assert poll.read_ends(RestPath(ENDPOINTS, api), second) == ((service,), held)
    assert post(each_front, second, api).status_code == 304


@pytest.mark.parametrize("told", ["", "v1", "a:1.2"])
@pytest.mark.parametrize("name", ["shop", "Shop.eu-1:x@y~z", "ショップ", "a b"])
def test_cutting_and_parsing_agree(name: str, told: str) -> None:
    """The fast way reads what the whole parse reads."""
    body = json.dumps(
        {"version_info": told, "node": {"id": "x"}, "resource_names": [name]}, separators=(",", ":"), ensure_ascii=False
    ).encode()
    assert (
        poll.read_ends(RestPath(ENDPOINTS, "v3"), body)
        == poll.parse(RestPath(ENDPOINTS, "v3"), body)
        == ((name,), told)
    )


@pytest.fixture
def replica() -> RegistryProcess:
    """A replica that has read one service, from a database that nobody asks."""
    found = RegistryProcess(load_settings(max_body=LIMIT), "postgresql://nobody@127.0.0.1:1/nothing")
    told = Registration("i-1", 1, region="region-1", zone="zone-a", metadata={"stage": "blue"})
    endpoint = Endpoint(1, "shop", "10.0.0.1", 80, told, registered_at=1.0, changed_at=1.0)
    found.cache.set_database("database")
    found.cache.apply([SnapshotDelta("shop", 3, 5, listed=[endpoint])])
    found.cache.mark_ready(0.0)
    return found


async def answers(application: Any, body: bytes) -> list[tuple[int, str | None, bytes]]:
    """Return what an application answers to a poll of each version, but for the id that each problem has."""
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        found = [await client.post(f"/{api}/discovery:endpoints", content=body) for api in APIS]
    contents = [re.sub(rb',"request_id":"[^"]+"', b"", one.content) for one in found]
    return [(one.status_code, one.headers.get("content-type"), body) for one, body in zip(found, contents, strict=True)]


def middleware(app: FastAPI, replica: RegistryProcess) -> DiscoveryMiddleware:
    """Return the plain front of an application."""
    return DiscoveryMiddleware(
        app,
        replica.discovery,
        replica.heartbeats,
        replica.hosts,
        Lists(replica.catalog),
        replica.authentication,
        replica.settings,
        replica.parts[Traffic],  # type: ignore[arg-type]  # parts are kept by their class
        EdgeQuestions(replica.edge_discovery, replica.health),
    )


SAME = {
    "known": b'{"resource_names":["shop"]}',
    "unknown": b'{"resource_names":["other"]}',
    "both": b'{"resource_names":["other","shop"]}',
    "current": b'{"version_info":"database:3","resource_names":["shop"]}',
    "from the future": b'{"version_info":"database:9","resource_names":["shop"]}',
    "real": envoy_body("shop"),
} | {name: body for name, (body, status) in BAD_BODIES.items() if status != 413}


@pytest.mark.parametrize("body", SAME.values(), ids=SAME)
async def test_the_middleware_answers_as_the_documented_route(replica: RegistryProcess, body: bytes) -> None:
    """The plain path in front of FastAPI and the route that OpenAPI documents give the same bytes."""
    app = build_app(replica)
    assert await answers(middleware(app, replica), body) == await answers(app, body)


@pytest.mark.parametrize("asked", [b"", b'"shop"', b'"shop","cart"', b'"*"'])
async def test_nothing_is_answered_before_the_first_reading(replica: RegistryProcess, asked: bytes) -> None:
    """A process that has not read the database says 503 and when to ask again, never an empty assignment."""
    replica.cache.set_database("another")
    app = build_app(replica)
    body = b'{"resource_names":[' + asked + b"]}"
    by_middleware = await answers(middleware(app, replica), body)
    assert [(status, kind) for status, kind, _ in by_middleware] == [(503, "application/problem+json")] * 2
    assert by_middleware == await answers(app, body)
