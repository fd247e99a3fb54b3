"""CDS, RDS and LDS over each HTTP front: what an Envoy is served of the mesh configuration, and when."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from contract.resource_types.serving import serving
from msgspec import Struct
from unit.registry.mesh import served as served_node

from benchmarks.envoy_poll import FIXTURE, with_version
from meshconfig.resource import TYPE_URLS
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.core import subscriber
from registry.core.mesh import ServedNode
from registry.errors import NotAllowedError
from registry.process import RegistryProcess
from registry.settings import load_settings
from registry.xds.resources import CLUSTERS, RestPath
from wire.discovery_poll import read_ends

FRONTS = ["fast", "plain", "route"]
BUDGET = {"x-envoy-expected-rq-timeout-ms": "10000"}
SHORT = {"x-envoy-expected-rq-timeout-ms": "350"}


class Mesh(Struct):
    """A registry that serves a mesh configuration, and a client of it."""

    process: RegistryProcess
    client: httpx.AsyncClient

    def serve(self, *nodes: ServedNode) -> None:
        """Serve nodes, as the change feed does."""
        self.process.mesh.apply(nodes)

    async def poll(self, kind: str, version: str = "", **request: Any) -> httpx.Response:
        """Poll as an Envoy of the service web does; without a budget nothing is held."""
        budget = request.pop("budget", {})
        node = {"id": request.pop("node", "i-1"), "cluster": request.pop("cluster", "web")}
        names = {"resource_names": ["default"]} if kind == "routes" else {}
        body = {"version_info": version, "node": node} | names | request
        return await self.client.post(f"/v3/discovery:{kind}", json=body, headers=budget)

    async def hold(self, kind: str, version: str, **request: Any) -> "asyncio.Task[httpx.Response]":
        """Poll in a task, and return once the poll is held."""
        before = len(self.process.discovery.held_polls)
        task = asyncio.create_task(self.poll(kind, version, budget=BUDGET, **request))
        async with asyncio.timeout(5):
            while len(self.process.discovery.held_polls) == before:
                assert not task.done(), (await task).text
                await asyncio.sleep(0.005)
        return task


@pytest.fixture(params=FRONTS)
async def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mesh]:
    """A process that has read its database, which has no mesh configuration yet."""
    settings = load_settings(door=request.param, data_dir=tmp_path)
    process = RegistryProcess(settings, "postgresql://nobody@127.0.0.1:1/nothing")
    process.mesh.set_database("db")
    process.mesh.mark_ready()
    async with serving(process, request.param) as client:
        yield Mesh(process, client)


def web(revision: int, user: str = "1", **others: str) -> ServedNode:
    """Return the service web with its clusters and its routes at a revision."""
    clusters = {"user": json.dumps({"name": "user", "alt_stat_name": user})} | others
    return served_node("web", revision, clusters=clusters, routes={"default": '{"name":"default"}'})


async def test_clusters_and_routes_of_a_service(mesh: Mesh) -> None:
    """Each in the bytes that were stored, under a revision and a step; then 304, and a held poll until a change."""
    mesh.serve(web(7), served_node("api", 7, clusters={}))
    clusters = await mesh.poll("clusters")
    assert clusters.json() == {
        "version_info": "db:7.1@*",
        "resources": [{"name": "user", "alt_stat_name": "1"}],
        "type_url": TYPE_URLS["clusters"],
    }
    routes = await mesh.poll("routes")
    assert (routes.json()["version_info"], routes.json()["resources"]) == ("db:7.1", [{"name": "default"}])
    assert (await mesh.poll("clusters", "db:7.1@*")).status_code == 304
    assert (await mesh.poll("routes", "db:7.1")).status_code == 304
    held = await mesh.hold("clusters", "db:7.1@*")
    same = await mesh.hold("routes", "db:7.1")
    of_api = await mesh.hold("clusters", "db:7.1@*", cluster="api")
    changed = web(8, "2")
    mesh.serve(ServedNode("web", {**changed.sets, "routes": web(7).sets["routes"]}))
    news = await held
    assert (news.json()["version_info"], news.json()["resources"][0]["alt_stat_name"]) == ("db:8.1@*", "2")
    await asyncio.sleep(0.05)
    assert not same.done()
    assert not of_api.done()
    mesh.process.release()
    assert {(await same).status_code, (await of_api).status_code} == {304}


async def test_a_node_of_which_nothing_was_defined_gets_nothing_and_may_start(mesh: Mesh) -> None:
    """200 without resources once; then it is held until something is defined."""
    for kind, version in (("clusters", "db:0.0@*"), ("listeners", "db:0.0@*"), ("routes", "db:0.0")):
        first = await mesh.poll(kind, cluster="new")
        assert (first.status_code, first.json()["resources"], first.json()["version_info"]) == (200, [], version)
    held = await mesh.hold("clusters", "db:0.0@*", cluster="new")
    mesh.serve(served_node("new", 1, clusters={"user": '{"name":"user"}'}))
    assert [cluster["name"] for cluster in (await held).json()["resources"]] == ["user"]


@pytest.mark.parametrize("version", ["elsewhere:3@*", "9", "db:9000.1@*"])
async def test_clusters_of_another_control_plane_are_not_removed(mesh: Mesh, version: str) -> None:
    """Nothing that is defined is no reason to remove what an Envoy has; what is defined replaces it."""
    held = await mesh.hold("clusters", version)
    assert (await mesh.poll("clusters", version)).status_code == 304
    mesh.serve(served_node("web", 4, clusters={}))
    await asyncio.sleep(0.05)
    assert not held.done()
    mesh.serve(web(5))
    assert len((await held).json()["resources"]) == 1


async def test_what_was_removed_on_purpose_is_removed(mesh: Mesh) -> None:
    """An Envoy that holds a version of ours gets the empty set of a later one."""
    mesh.serve(web(5))
    held = await mesh.hold("clusters", "db:5.1@*")
    mesh.serve(served_node("web", 6, clusters={}, routes={}))
    news = await held
    assert (news.json()["version_info"], news.json()["resources"]) == ("db:6.1@*", [])
    kept = await mesh.poll("routes", "db:5.1")
    assert kept.status_code == 304


@pytest.mark.parametrize("kind", ["clusters", "routes", "listeners"])
async def test_nothing_is_answered_before_the_database_is_read(mesh: Mesh, kind: str) -> None:
    """503 for new polls, with whatever version; a poll that is held waits until the process is sure."""
    mesh.serve(web(5))
    held = await mesh.hold("clusters", "db:5.1@*")
    mesh.process.mesh.set_database("another")
    for version in ("", "db:5.1@*", "another:1.1", "x"):
        refused = await mesh.poll(kind, version)
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
    mesh.process.mesh.mark_ready()
    await asyncio.sleep(0.05)
    assert not held.done()
    mesh.serve(web(1))
    assert (await held).json()["version_info"] == "another:1.1@*"


async def test_a_node_that_cannot_be_read_is_alone_in_doubt(mesh: Mesh) -> None:
    """503 for its Envoys if nothing of it was ever read, and the others are served."""
    mesh.serve(web(5))
    mesh.process.mesh.note_unreadable({"api": "the body of a cluster is missing"})
    assert (await mesh.poll("clusters", cluster="api")).status_code == 503
    assert (await mesh.poll("clusters")).status_code == 200


async def test_a_process_that_is_behind_answers_nothing_older(mesh: Mesh) -> None:
    """It holds, and remembers the revision that was lost or that it has not read."""
    mesh.serve(web(5))
    assert (await mesh.poll("clusters", "db:6.3@*")).status_code == 304
    assert (await mesh.poll("routes", "db:5.2")).status_code == 304
    assert mesh.process.mesh.revision_ahead == 6


@pytest.mark.parametrize("kind", ["clusters", "routes"])
async def test_an_answer_that_was_refused_is_not_repeated(
    mesh: Mesh, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old version comes back after a 200: it is held and answered 304, until something newer or much later."""
    mark = "@*" if kind == "clusters" else ""
    mesh.serve(web(5))
    first = f"db:5.1{mark}"
    assert (await mesh.poll(kind, first)).status_code == 304
    mesh.serve(web(6))
    assert (await mesh.poll(kind, first)).json()["version_info"] == f"db:6.1{mark}"
    assert [(await mesh.poll(kind, first, budget=SHORT)).status_code for _ in range(3)] == [304] * 3
    other = await mesh.poll(kind, first, node="i-2")
    assert other.status_code == 200
    held = await mesh.hold(kind, first)
    mesh.serve(web(7))
    assert (await held).json()["version_info"] == f"db:7.1{mark}"
    assert (await mesh.poll(kind, first)).status_code == 304
    monkeypatch.setattr(subscriber, "_OFFERED_AGAIN_AFTER", 0.0)
    assert (await mesh.poll(kind, first)).json()["version_info"] == f"db:7.1{mark}"
    assert (await mesh.poll(kind, f"db:7.1{mark}")).status_code == 304


async def test_an_envoy_that_refuses_its_first_answer_is_slowed_down(mesh: Mesh) -> None:
    """It gets three at once, and then one at the end of each hold: never 304, which would keep a new one waiting."""
    mesh.serve(web(5))
    for _ in range(3):
        assert (await mesh.poll("clusters")).status_code == 200
    begun = asyncio.get_running_loop().time()
    answers = [await mesh.poll("clusters", budget=SHORT) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert asyncio.get_running_loop().time() - begun > 0.15


async def test_access_is_decided_by_the_nodes_cluster(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant for a service covers all that its Envoys ask for, by whatever name; others are refused."""
    asked: list[tuple[Verb, str]] = []

    def allow(_self: Policy, _principal: Principal, verb: Verb, service: str = "", _endpoint: str = "") -> None:
        asked.append((verb, service))
        if service != "web":
            raise NotAllowedError("no")

    monkeypatch.setattr(Policy, "allow", allow)
    mesh.serve(web(5))
    assert len((await mesh.poll("clusters")).json()["resources"]) == 1
    assert len((await mesh.poll("routes")).json()["resources"]) == 1
    assert (await mesh.poll("clusters", "db:4.1@*", cluster="api")).status_code == 403
    assert (await mesh.poll("clusters", cluster="api")).json()["resources"] == []
    assert set(asked) == {(Verb.DISCOVER, "web"), (Verb.DISCOVER, "api")}


async def test_envoys_own_poll_is_cut_and_not_parsed(mesh: Mesh) -> None:
    """Its 77 kB end with the node, because nothing is named; every front answers it as any other."""
    names = b'"resource_names":["shop"],'
    first = gzip.decompress(FIXTURE.read_bytes()).replace(names, b"")
    first = first.replace(b"envoy.config.endpoint.v3.ClusterLoadAssignment", b"envoy.config.cluster.v3.Cluster")
    node = json.loads(first)["node"]["cluster"]
    mesh.serve(served_node(node, 3, clusters={"user": '{"name":"user"}'}))
    path = RestPath(CLUSTERS, "v3")
    later = with_version(first, "db:3.1@*")
    read = [read_ends(path, first), read_ends(path, later), read_ends(path, later[:9000], later[9000:-3], later[-3:])]
    assert read == [
        (("*",), ""),
        (("*",), "db:3.1@*"),
        (("*",), "db:3.1@*"),
    ]
    url = "/v3/discovery:clusters"
    assert (await mesh.client.post(url, content=first)).json()["version_info"] == "db:3.1@*"
    assert (await mesh.client.post(url, content=later)).status_code == 304
