"""Who polls, as any process of a registry tells it."""

import time
from pathlib import Path
from typing import Any

import pytest
from harness.cluster import cluster
from harness.envoy import envoy
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry


def poll(found: Registry, service: str, version: str | None = None, node: str = "i-1", **node_fields: Any) -> Any:
    """Poll as an Envoy of that id; return the version_info of the answer, None with a 304."""
    body: dict[str, Any] = {} if version is None else {"version_info": version}
    body |= {"node": {"id": node, "cluster": "web", **node_fields}, "resource_names": [service]}
    headers = {"x-forwarded-for": "10.0.0.9"}
    answer = found.client.post("/v3/discovery:endpoints", json=body, headers=headers)
    return answer.json()["version_info"] if answer.status_code == 200 else None


def subscribers(found: Registry, **filters: Any) -> list[dict[str, Any]]:
    """Return the subscribers that fit."""
    listed: list[dict[str, Any]] = found.client.get("/v1/subscribers", params=filters).json()["subscribers"]
    return listed


def test_a_poll_is_seen_with_all_that_it_says(shared_registry: Registry, service: str) -> None:
    """Node, address, what it holds against what there is, and what it was answered."""
    shared_registry.register(service, "10.0.0.1:80")
    begun = time.time()
    held = poll(shared_registry, service, locality={"zone": "za"})
    assert poll(shared_registry, service, held, locality={"zone": "za"}) is None
    (found,) = subscribers(shared_registry, service=service)
    assert begun - 1 < found.pop("first_seen") <= found["last_seen"] < time.time() + 1
    assert found.pop("last_seen") >= found["last_answer"].pop("at")
    assert found.pop("process").partition(":")[2].isdigit()
    assert found == {
        "node_id": "i-1",
        "cluster": "web",
        "zone": "za",
        "address": "10.0.0.9",
        "envoy": "",
        "service": service,
        "api": "v3",
        "version": 1,
        "version_info": held,
        "current_version": 1,
        "state": "current",
        "reason": "holds version 1",
        "held": False,
        "last_answer": {"status": 304, "version": None},
        "rejected_version": None,
        "rejected_at": None,
        "error": "",
        "edge": "",
    }


def test_an_envoy_that_goes_on_with_what_it_had_is_stuck(shared_registry: Registry, service: str) -> None:
    """Over REST an Envoy rejects an answer without a word: it brings the version from before, again and again."""
    shared_registry.register(service, "10.0.0.1:80")
    first = poll(shared_registry, service)
    shared_registry.register(service, "10.0.0.2:80")

    def stuck() -> bool:
        assert poll(shared_registry, service, first) != first
        (found,) = subscribers(shared_registry, service=service)
        return found["state"] == "stuck" and "brings version 1 all the same" in found["reason"]

    eventually(stuck, within=10, every=0.5)
    answer = shared_registry.client.get("/v1/subscribers", params={"service": service, "state": "current"}).json()
    assert (answer["subscribers"], answer["states"]) == ([], {"stuck": 1})
    # The next version is one that it takes.
    poll(shared_registry, service, poll(shared_registry, service, first))
    assert [one["state"] for one in subscribers(shared_registry, service=service)] == ["current"]


def test_filters_and_pages(shared_registry: Registry, service: str) -> None:
    """Each filter narrows, and pages of any size together are the whole list, in one order."""
    for number in range(5):
        poll(shared_registry, service, node=f"i-{number}", locality={"zone": f"z{number % 2}"})
    assert [one["node_id"] for one in subscribers(shared_registry, service=service, zone="z1")] == ["i-1", "i-3"]
    assert [one["service"] for one in subscribers(shared_registry, node="i-4", service=service)] == [service]
    assert subscribers(shared_registry, service=service, cluster="other") == []
    seen, cursor = [], None
    while cursor != "":
        told: dict[str, Any] = {"service": service, "limit": 2} | ({"cursor": cursor} if cursor else {})
        page = shared_registry.client.get("/v1/subscribers", params=told).json()
        assert page["states"] == {"current": 5}
        seen += [one["node_id"] for one in page["subscribers"]]
        cursor = page["next"] or ""
    assert seen == [f"i-{number}" for number in range(5)]


@pytest.mark.parametrize("query", ["cursor=x", "cursor=eA==", "state=lost", "service=%00", "limit=0"])
def test_an_impossible_question_is_refused(shared_registry: Registry, query: str) -> None:
    """A cursor that no page gave, a state that there is not, a control character."""
    assert shared_registry.client.get(f"/v1/subscribers?{query}").status_code == 422


def test_v1_subscribers_are_seen_by_their_address(shared_registry: Registry, service: str) -> None:
    """A request of v1 SDS says neither who asks nor what it holds."""
    shared_registry.client.get(f"/v1/registration/{service}", headers={"x-forwarded-for": "10.0.0.8"})
    (found,) = subscribers(shared_registry, service=service)
    assert (found["address"], found["api"], found["version"], found["state"]) == ("10.0.0.8", "v1", None, "current")


def test_what_a_poll_says_of_itself_cannot_hurt(shared_registry: Registry, service: str) -> None:
    """Control characters, endless texts, one service asked for alone and with others: all are listed, and stored."""
    for names in ([service], [service, f"{service}-2"], [service, "a\0b"]):
        node = {"id": "i\0\x1b-1", "cluster": "x" * 5000}
        body = {"version_info": "\0", "node": node, "resource_names": names}
        assert shared_registry.client.post("/v3/discovery:endpoints", json=body).status_code == 200
    (found,) = subscribers(shared_registry, service=service)
    assert (found["node_id"], len(found["cluster"])) == ("i-1", 255)
    time.sleep(3.5)
    assert shared_registry.client.get("/v1/subscribers", params={"service": service}).json()["complete"]


def test_another_process_tells_who_polls_this_one(database: str, workplace: Path, service: str) -> None:
    """Any process answers for all; a version that was taken is seen by the other within seconds."""
    with registry(database, workplace) as one, registry(database, workplace) as two:
        one.register(service, "10.0.0.1:80")
        held = poll(one, service)
        eventually(lambda: [found["version"] for found in subscribers(two, service=service)] == [None], within=8)
        poll(one, service, held)
        eventually(lambda: [found["version"] for found in subscribers(two, service=service)] == [1], within=8)
        (mine,), (theirs,) = subscribers(one, service=service), subscribers(two, service=service)
        # Each knows the database's time only as well as a question to it takes.
        for name in ("first_seen", "last_seen"):
            assert mine.pop(name) == pytest.approx(theirs.pop(name), abs=0.2)
        del mine["last_answer"]["at"], theirs["last_answer"]["at"]
        assert mine == theirs
        # Whoever saw it last knows best.
        poll(two, service, held, node="i-1")
        assert subscribers(two, service=service)[0]["process"] != mine["process"]


def test_without_postgresql_it_is_this_process_alone(workplace: Path, service: str) -> None:
    """While PostgreSQL is away the list goes on from memory, and says that it may lack some."""
    with cluster() as server, registry(server.url, workplace, database_timeout="1s") as found:
        poll(found, service)
        assert found.client.get("/v1/subscribers").json()["complete"] is True
        server.kill()
        answer = found.client.get("/v1/subscribers").json()
        assert answer["complete"] is False
        assert [one["service"] for one in answer["subscribers"]] == [service]
        server.start()
        eventually(lambda: found.client.get("/v1/subscribers").json()["complete"], within=20)


def test_a_process_that_died_holds_nothing(server: Postgres, database: str, workplace: Path, service: str) -> None:
    """What a killed process told last is not believed for longer than it would have been said again."""
    with registry(database, workplace) as one:
        one.register(service, "10.0.0.1:80")
        server.execute(
            "INSERT INTO subscribers SELECT 'dead:1', $1, 'i-9', 'a', 'v3', '', '', '', '', 1, NULL, 304, t, t, t,"
            " true, 0.3, 0, NULL, t FROM (SELECT extract(epoch FROM now())::float8 - 60 AS t) AS past",
            service,
            url=database,
        )
        (found,) = subscribers(one, service=service)
        assert (found["held"], found["state"]) == (False, "silent")


@pytest.mark.envoy
def test_a_real_envoy_is_known(shared_registry: Registry, workplace: Path, service: str) -> None:
    """Node id, cluster, zone, version and address of a real Envoy, whose poll is held, and the version it took."""
    shared_registry.register(service, "127.0.0.1:9")
    with envoy(workplace, [shared_registry.port], [service]):
        eventually(lambda: any(one["held"] for one in subscribers(shared_registry, service=service)), within=10)
        (seen,) = subscribers(shared_registry, service=service)
        assert seen["node_id"].startswith("envoy-")
        assert (seen["cluster"], seen["zone"], seen["version"], seen["state"]) == ("tests", "za", 1, "current")
        assert seen["envoy"].startswith("1.")
        shared_registry.register(service, "127.0.0.1:10")
        eventually(lambda: subscribers(shared_registry, service=service)[0]["version"] == 2, within=5)
