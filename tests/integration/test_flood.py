"""A client that polls under made-up node ids: what it costs others, and what is said of those who poll."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness.flood import flood, probe
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

POLLS = 400
LIMIT = 2_000


@pytest.fixture(scope="module")
def small(server: Postgres, workplace: Path) -> Iterator[Registry]:
    """A registry that remembers few subscribers."""
    with registry(server.migrated_database(), workplace, max_sightings=LIMIT) as found:
        yield found


def test_others_are_answered_while_one_client_makes_up_node_ids(database: str, workplace: Path) -> None:
    """Polls of 400 names with 2 kB of version_info: 99 % of others' answers come within 100 ms, and memory is bounded.

    Where the machine itself is busy: within three times what it takes without that client, in one of three rounds. A
    machine that turns busy between the two halves of a round says nothing of the registry.
    """
    with registry(database, workplace) as found:
        process = psutil.Process(found.process.pid)
        before = process.memory_info().rss
        assert any(_keeps_answering(found) for _ in range(3))
        # A sighting of each name, with its version_info, would be hundreds.
        assert (process.memory_info().rss - before) / 2**20 < 50
        assert found.client.get("/v1/expiry").json()["suspects"] == []


def _keeps_answering(found: Registry) -> bool:
    with probe(found.url) as quiet:
        time.sleep(2)
    with probe(found.url) as busy:
        flood(found.url, POLLS, names=400, version_info="x" * 2_000)
        # Two turns in which others are told of them, and one in which they are counted.
        time.sleep(7)
    return busy.p99() <= max(100, 3 * quiet.p99())


def test_a_full_table_says_that_it_lacks_some(small: Registry, service: str) -> None:
    """An Envoy that polled before is still known, one that comes later is not, and everything says so."""
    small.register(service, "10.0.0.1:80")
    small.register(f"{service}-2", "10.0.0.1:80")
    small.poll(service)
    assert small.client.get("/v1/subscribers").json()["complete"]
    flood(small.url, 200, names=16)
    listed = small.client.get("/v1/subscribers", params={"service": service}).json()
    assert [one["node_id"] for one in listed["subscribers"]] == ["test"]
    assert (listed["complete"], listed["refused_ago"] < 60) == (False, True)
    states = small.client.get("/v1/subscribers", params={"limit": 1}).json()["states"]
    assert LIMIT - 16 < sum(states.values()) <= LIMIT
    categories = registryctl(small.url, "check", "-o", "json").json["categories"]
    results = {one["id"]: one["result"] for category in categories for one in category["checks"]}
    assert results["subscribers-remembered"] == "warning"
    counted = "registry_sightings_refused_total 0.0"
    eventually(lambda: counted not in small.client.get("/metrics").text, within=10)
    assert "some may be missing" in registryctl(small.url, "subscribers", service).err
    assert "it is not known whether an Envoy polls" in registryctl(small.url, "subscribers", f"{service}-3").err
    assert "The list is incomplete" in small.client.get("/ui/subscribers").text
    assert "more Envoys poll than a process remembers" in small.client.get(f"/ui/services/{service}-2").text


def test_a_poll_without_a_node_id_is_no_subscriber(shared_registry: Registry, service: str) -> None:
    """A script is answered like an Envoy, and is neither listed nor missing."""
    shared_registry.register(service, "10.0.0.1:80")
    nodes: list[dict[str, Any]] = [{}, {"node": {}}, {"node": {"id": ""}}, {"node": {"cluster": "web"}}]
    for node in nodes:
        answer = shared_registry.client.post("/v3/discovery:endpoints", json={**node, "resource_names": [service]})
        assert answer.status_code == 200
    listed = shared_registry.client.get("/v1/subscribers", params={"service": service}).json()
    assert (listed["subscribers"], listed["complete"]) == ([], True)


def test_a_client_that_asks_for_many_names_is_judged_by_sixteen(database: str, workplace: Path, service: str) -> None:
    """What it holds of each is read from its version_info, and the list says that it lacks the rest."""
    names = [f"{service}-{number:02}" for number in range(20)]
    with registry(database, workplace) as many:
        for name in names:
            many.register(name, "10.0.0.1:80")
        held = many.poll(*names).json()["version_info"]
        assert many.poll(*names, version=held).status_code == 304
        found = [many.client.get("/v1/subscribers", params={"service": name}).json() for name in names]
    assert [[one["version"] for one in listed["subscribers"]] for listed in found] == [[1]] * 16 + [[]] * 4
    assert not any(listed["complete"] for listed in found)
