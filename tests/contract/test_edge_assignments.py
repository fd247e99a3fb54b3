"""The questions of edges: answered as polls of the Envoys beside them would be, all names in one."""

import gzip
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from harness.access import bearer, first_token, new_token
from harness.line import Line
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from registry.xds.resources import CLUSTERS, ENDPOINTS, ROUTES
from wire.edge_assignments import EDGE_PATH, MAX_EDGE_HOLD, EdgeAnswer

PLAIN = {"accept-encoding": "identity"}


def ask(registry: Registry, held: dict[str, str], headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    """Ask as an edge does."""
    question = {"node": "i-1", "cluster": "web", "zone": "za", "held": held} | more
    return registry.client.post(EDGE_PATH, json=question, headers=PLAIN | (headers or {}))


def answer(registry: Registry, held: dict[str, str], **more: Any) -> EdgeAnswer:
    """Return the answer to a question that is not up to date."""
    response = ask(registry, held, **more)
    assert response.status_code == 200, response.text
    return msgspec.json.decode(response.content, type=EdgeAnswer)


def token(registry: Registry, service: str) -> str:
    """Return the version_info of a poll for one service."""
    version: str = registry.poll(service).json()["version_info"]
    return version


def first_resource(response: httpx.Response) -> bytes:
    """Return the bytes of the first resource of a poll's answer."""
    content = response.content
    return content[content.index(b'"resources":[') + 13 : content.rindex(b'],"type_url"')]


def test_an_answer_has_what_a_poll_has_byte_for_byte(each_front: Registry, service: str) -> None:
    """The token and the assignment are those of a v3 poll, so that an Envoy may ask either."""
    each_front.register(service, "10.0.0.1:80", weight=7, zone="za", metadata={"stage": "ü"})
    poll = each_front.poll(service)
    assignment = answer(each_front, {service: ""}).assignments[service]
    assert assignment.version_info == poll.json()["version_info"]
    assert bytes(assignment.assignment) == first_resource(poll)


def test_only_what_changed_is_answered(each_front: Registry, service: str) -> None:
    """A question whose other names are current has the one that is older, and nothing else."""
    other = f"{service}-other"
    each_front.register(service, "10.0.0.1:80")
    each_front.register(other, "10.0.0.2:80")
    old, current = token(each_front, service), token(each_front, other)
    each_front.register(service, "10.0.0.3:80")
    assert list(answer(each_front, {service: old, other: current}).assignments) == [service]


def test_a_question_that_is_current_is_held_until_a_change(each_front: Registry, service: str) -> None:
    """The answer comes with the change, and does not wait for the end of the hold."""
    each_front.register(service, "10.0.0.1:80")
    held = token(each_front, service)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, each_front, {service: held, f"{service}-unknown": ""})
        first = waiting.result()
        unknown = msgspec.json.decode(first.content, type=EdgeAnswer).assignments[f"{service}-unknown"]
        waiting = pool.submit(ask, each_front, {service: held, f"{service}-unknown": unknown.version_info})
        time.sleep(0.3)
        assert not waiting.done()
        asked = time.monotonic()
        each_front.register(service, "10.0.0.2:80")
        changed = msgspec.json.decode(waiting.result().content, type=EdgeAnswer).assignments
        assert time.monotonic() - asked < MAX_EDGE_HOLD - 2
    assert [list(changed), changed[service].version_info] == [[service], token(each_front, service)]


def test_a_name_that_was_never_registered_is_told_from_an_empty_one(each_front: Registry, service: str) -> None:
    """A version and no assignment: as a poll, whose answer has no resource; it is never an empty assignment."""
    unknown = answer(each_front, {service: ""}).assignments[service]
    assert unknown.version_info == token(each_front, service)
    assert bytes(unknown.assignment) == b""
    # A registration begins a hold that is over at once.
    each_front.register(service, "10.0.0.1:80")
    assert bytes(answer(each_front, {service: unknown.version_info}).assignments[service].assignment)


def test_no_older_assignment_is_answered_and_another_databases_is_replaced(each_front: Registry, service: str) -> None:
    """An edge that is ahead of this process keeps what it has, until the process has a version above that."""
    each_front.register(service, "10.0.0.1:80")
    database, _, number = token(each_front, service).partition(":")
    foreign = answer(each_front, {service: "0123456789abcdef:99"}).assignments[service]
    assert foreign.version_info == f"{database}:{number}"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, each_front, {service: f"{database}:{int(number) + 1}"})
        for last in (2, 3, 4):
            each_front.register(service, f"10.0.0.{last}:80")
        newer = msgspec.json.decode(waiting.result().content, type=EdgeAnswer).assignments[service]
    assert int(newer.version_info.rpartition(":")[2]) > int(number) + 1


def test_a_large_answer_is_compressed_where_that_is_accepted(each_front: Registry, service: str) -> None:
    """The bytes are the same, and the response says that it depends on Accept-Encoding."""
    for number in range(1, 41):
        each_front.register(service, f"10.0.0.{number}:80")
    plain = ask(each_front, {service: ""})
    with each_front.client.stream(
        "POST", EDGE_PATH, json={"node": "i-1", "held": {service: ""}}, headers={"accept-encoding": "gzip"}
    ) as response:
        packed = b"".join(response.iter_raw())
        assert (response.headers["content-encoding"], response.headers["vary"]) == ("gzip", "accept-encoding")
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < len(plain.content) / 3
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ({"node": "i-1", "held": {f"s{number}": "" for number in range(1_001)}}, 413),
        ({"node": "i-1", "held": {"shop": 7}}, 422),
        ({"held": {"shop": ""}}, 422),
        ({"node": "i-1", "hold": {"shop": ""}}, 422),
        ({"node": "i-1", "resources": {"type.googleapis.com/other": {"shop": ""}}}, 422),
        ({"node": "i-1", "resources": {ENDPOINTS.type_urls["v3"]: {"shop": ""}}}, 422),
        ({"node": "i-1", "taken": [{"node": "i-1", "service": "shop"}]}, 422),
        ("{", 400),
    ],
)
def test_what_is_no_question_is_refused_with_a_reason(each_front: Registry, question: object, status: int) -> None:
    """A problem document says what was received, and what is allowed."""
    content = question if isinstance(question, str) else json.dumps(question)
    response = each_front.client.post(EDGE_PATH, content=content)
    assert (response.status_code, response.json()["status"]) == (status, status)
    assert response.json()["detail"]


def test_envoys_behind_an_edge_are_subscribers(each_front: Registry, service: str) -> None:
    """They are listed with the version that they have taken, and only for names that are asked for."""
    each_front.register(service, "10.0.0.1:80")
    version = token(each_front, service)
    taken = [
        {"node": "envoy-1", "service": service, "version": version, "address": "10.9.9.9", "envoy": "1.40.0"},
        {"node": "envoy-1", "service": f"{service}-other", "version": version},
    ]
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, each_front, {service: version}, taken=taken)

        def listed() -> list[Any]:
            subscribers = each_front.client.get(f"/v1/subscribers?service={service}").json()["subscribers"]
            return [
                (each["node_id"], each["cluster"], each["zone"], each["address"], each["envoy"], each["state"])
                for each in subscribers
                if each["node_id"] == "envoy-1" and each["held"]
            ]

        eventually(lambda: listed() == [("envoy-1", "web", "za", "10.9.9.9", "1.40.0", "current")])
        each_front.register(service, "10.0.0.2:80")
        assert waiting.result().status_code == 200
    assert each_front.client.get(f"/v1/subscribers?service={service}-other").json()["subscribers"] == []


@pytest.mark.parametrize("each_front", ["fast"], indirect=True)
def test_an_explanation_names_envoys_behind_edges_that_go_by_older_endpoints(
    each_front: Registry, service: str
) -> None:
    """A bounded number of them, with how old their edges' word is; and how many are current."""
    each_front.register(service, "10.0.0.1:80")
    each_front.register(service, "10.0.0.2:80")
    newest = token(each_front, service)
    database, _, number = newest.partition(":")
    refusing = {"offered": newest, "refusals": 5, "refused_ago": 9.0, "version": f"{database}:{int(number) - 1}"}
    taken = [{"node": f"envoy-{each}", "service": service, "version": newest} | refusing for each in range(5)]
    taken.append({"node": "envoy-9", "service": service, "version": newest})
    ask(each_front, {service: ""}, taken=taken, edge="web-1")
    because = each_front.client.get(f"/v1/services/{service}/endpoints/10.0.0.1:80/explain").json()["because"]
    named = [line for line in because if "it is behind the edge of web-1, which told of it" in line]
    assert [line.split()[0] for line in named] == ["envoy-0", "envoy-1", "envoy-2"]
    assert "2 more clients do not go by the newest endpoints either" in because
    (summary,) = (line for line in because if "clients are behind an edge" in line)
    assert summary.startswith("6 of 7 clients are behind an edge, and 1 of these are current, by what their edges told")


def test_an_envoy_that_polls_itself_again_is_the_same_subscriber(each_front: Registry, service: str) -> None:
    """It is listed once, whoever answers it, so that an edge that dies leaves no silent copy."""
    each_front.register(service, "10.0.0.1:80")
    version = token(each_front, service)
    taken = [{"node": "test", "cluster": "tests", "service": service, "version": version, "address": "10.9.9.9"}]
    ask(each_front, {service: ""}, taken=taken)
    headers = {"x-forwarded-for": "10.9.9.9"}
    body = {"version_info": version, "node": {"id": "test", "cluster": "tests"}, "resource_names": [service]}
    assert each_front.client.post("/v3/discovery:endpoints", json=body, headers=headers).status_code == 304
    subscribers = each_front.client.get(f"/v1/subscribers?service={service}").json()["subscribers"]
    assert [each["address"] for each in subscribers if each["node_id"] == "test"].count("10.9.9.9") == 1


def test_an_envoy_that_refuses_a_version_is_seen_through_an_edge(each_front: Registry, service: str) -> None:
    """Its edge counts the refusals, and the registry judges them as those of a poll."""
    each_front.register(service, "10.0.0.1:80")
    version = token(each_front, service)
    database, _, number = version.partition(":")
    each_front.register(service, "10.0.0.2:80")
    taken = [
        {
            "node": "envoy-1",
            "service": service,
            "version": version,
            "offered": f"{database}:{int(number) + 1}",
            "refusals": 5,
            "refused_ago": 9.0,
        }
    ]
    ask(each_front, {service: ""}, taken=taken)
    (seen,) = (
        each
        for each in each_front.client.get(f"/v1/subscribers?service={service}").json()["subscribers"]
        if each["node_id"] == "envoy-1"
    )
    assert (seen["state"], seen["version"]) == ("stuck", int(number))


def test_a_question_may_build_on_the_one_before(each_front: Registry, service: str) -> None:
    """It has only what is new; the one that is held ends with 304; where none is remembered there is 412."""
    each_front.register(service, "10.0.0.1:80")
    version = token(each_front, service)
    first, second = f"{service}-1", f"{service}-2"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(ask, each_front, {service: version}, id=first)
        eventually(lambda: b"registry_polls_held 0.0" not in each_front.client.get("/metrics").content)
        taken = [{"node": "envoy-1", "service": service, "version": version}]
        building = {"after": first, "id": second, "taken": taken}
        newer = pool.submit(each_front.client.post, EDGE_PATH, json=building)
        assert waiting.result().status_code == 304
        each_front.register(service, "10.0.0.2:80")
        assert list(msgspec.json.decode(newer.result().content, type=EdgeAnswer).assignments) == [service]
    forgotten = each_front.client.post(EDGE_PATH, json={"after": first})
    assert (forgotten.status_code, forgotten.json()["title"]) == (412, "Not remembered")


def test_an_edge_that_disconnects_is_let_go_at_once(each_front: Registry, service: str) -> None:
    """Its question is held no longer, and the Envoys behind it wait no longer, long before the hold would end."""
    each_front.register(service, "10.0.0.1:80")
    version = token(each_front, service)
    taken = [{"node": "envoy-1", "service": service, "version": version}]
    body = json.dumps({"node": "i-1", "held": {service: version}, "taken": taken}).encode()

    def held() -> list[bool]:
        subscribers = each_front.client.get(f"/v1/subscribers?service={service}").json()["subscribers"]
        return [each["held"] for each in subscribers if each["node_id"] == "envoy-1"]

    with Line(each_front) as line:
        line.send(
            b"POST %b HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n%b" % (EDGE_PATH.encode(), len(body), body)
        )
        eventually(lambda: held() == [True])
    eventually(lambda: held() == [False], within=MAX_EDGE_HOLD / 2)
    eventually(lambda: b"registry_polls_held 0.0" in each_front.client.get("/metrics").content, within=2)


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[tuple[Registry, str]]:
    """A registry with access control, and a token that may administer it."""
    database = server.migrated_database()
    admin = first_token(database)
    with ExitStack() as stack:
        yield stack.enter_context(registry(database, workplace, auth="on")), admin


def test_one_refused_name_keeps_no_other_from_its_answer(closed: tuple[Registry, str], service: str) -> None:
    """A refused name is answered once without resources, as a first poll; then only when all are refused, with 403."""
    process, admin = closed
    shop, secret = f"{service}-shop", f"{service}-secret"
    grants = [{"verbs": ["discover"], "services": [shop]}, {"verbs": ["register"], "services": [shop, secret]}]
    writer = new_token(process, admin, f"{service}-writer", *grants)["token"]
    for name in (shop, secret):
        body = {"instance_id": "i-9", "incarnation": 1}
        url = f"/v1/services/{name}/endpoints/10.0.0.1:80"
        assert process.client.put(url, json=body, headers=bearer(writer)).status_code == 200
    first = answer(process, {shop: "", secret: ""}, headers=bearer(writer))
    assert (bool(bytes(first.assignments[shop].assignment)), first.refused) == (True, [secret])
    assert bytes(first.assignments[secret].assignment) == b""
    nothing = first.assignments[secret].version_info
    again = answer(process, {shop: "", secret: nothing}, headers=bearer(writer))
    assert (list(again.assignments), again.refused) == ([shop], [secret])
    current = first.assignments[shop].version_info
    said = answer(process, {shop: current, secret: "x:5"}, headers=bearer(writer), id=f"{service}-1")
    assert (said.assignments, said.refused) == ({}, [secret])
    assert ask(process, {secret: nothing}, headers=bearer(writer)).status_code == 403
    assert ask(process, {shop: ""}).status_code == 401


def test_a_process_that_stops_answers_the_questions_that_it_holds(database: str, workplace: Path, service: str) -> None:
    """304 within a moment, so that the edge asks another one."""
    with registry(database, workplace) as process, ThreadPoolExecutor() as pool:
        process.register(service, "10.0.0.1:80")
        waiting = pool.submit(ask, process, {service: token(process, service)})
        eventually(lambda: b"registry_polls_held 1.0" in process.client.get("/metrics").content)
        process.process.terminate()
        assert waiting.result().status_code == 304


def test_clusters_and_routes_are_asked_for_in_the_same_question(each_front: Registry, service: str) -> None:
    """Each as a poll of the question's node: of a cluster without definitions there are none, and no name is lost."""
    urls = CLUSTERS.type_urls["v3"], ROUTES.type_urls["v3"]
    each_front.register(service, "10.0.0.1:80")
    asked = {urls[0]: {"*": ""}, urls[1]: {"default": ""}}
    everything = answer(each_front, {service: ""}, resources=asked)
    assert [list(everything.assignments), list(everything.resources)] == [[service], list(urls)]
    body = {"node": {"id": "i-1", "cluster": "web"}}
    poll = each_front.client.post("/v3/discovery:clusters", json=body).json()
    assert everything.resources[urls[0]]["*"].version_info == poll["version_info"]
