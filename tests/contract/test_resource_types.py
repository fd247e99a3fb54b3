"""Resource types that the registry does not know, served from a table: over each HTTP front, as EDS is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from contract.resource_types.banners import BANNERS, BannerCache
from contract.resource_types.notes import NOTES, NoteCache
from contract.resource_types.serving import serving
from msgspec import Struct

from benchmarks.envoy_poll import poll_body
from registry import process as process_module
from registry.auth.decision import Refusal, Request
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.core.endpoint import Endpoint
from registry.core.snapshot import SnapshotDelta
from registry.core.subscriber import MAX_NAMES, SUBSCRIBER_TIMEOUT
from registry.errors import NotAllowedError
from registry.process import RegistryProcess
from registry.settings import load_settings
from registry.xds.resource_cache import ServedType
from wire.model import Registration

FRONTS = ["fast", "plain", "route"]
KINDS = ["endpoints", "notes", "banners"]
MESH_KINDS = ["clusters", "listeners", "routes"]
MAX_SIGHTINGS = 100
BUDGET = {"x-envoy-expected-rq-timeout-ms": "10000"}
ENDPOINT = Endpoint(1, "shop", "10.0.0.1", 80, Registration("i-1", 1), registered_at=1.0, changed_at=1.0)


class Served(Struct):
    """A registry that serves two types of the tests beside EDS, and a client of it."""

    process: RegistryProcess
    client: httpx.AsyncClient
    notes: NoteCache
    banners: BannerCache

    async def poll(self, kind: str, version: str = "", **request: Any) -> httpx.Response:
        """Poll for resources of a kind; without a budget nothing is held."""
        budget = request.pop("budget", {})
        body = {"version_info": version, "node": {"id": "i-1", "cluster": request.pop("cluster", "web")}, **request}
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
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    """Serve both types by one of the fronts; the process asks no database."""
    notes, banners = NoteCache(), BannerCache()
    settings = load_settings(
        door=request.param, hosts="registry.example.com", max_sightings=MAX_SIGHTINGS, data_dir=tmp_path
    )
    table = (ServedType(NOTES, notes), ServedType(BANNERS, banners))
    process = RegistryProcess(settings, "postgresql://nobody@127.0.0.1:1/nothing", table)
    process.cache.set_database("database")
    process.cache.apply([SnapshotDelta("shop", 3, 5, listed=[ENDPOINT])])
    process.cache.mark_ready(0.0)
    process.mesh.set_database("database")
    process.mesh.mark_ready()
    async with serving(process, request.param) as client:
        yield Served(process, client, notes, banners)


async def test_a_type_keyed_by_name_is_served(served: Served) -> None:
    """200, then 304, then a held poll that a change answers under a version that moved."""
    served.notes.put("a", 1, "first")
    first = await served.poll("notes", resource_names=["a"])
    assert first.status_code == 200
    assert first.json() == {
        "version_info": "notes:1",
        "resources": [{"@type": "type.googleapis.com/test.Note", "name": "a", "text": "first"}],
        "type_url": "type.googleapis.com/test.Note",
    }
    assert (await served.poll("notes", "notes:1", resource_names=["a"])).status_code == 304
    held = await served.hold("notes", "notes:1", resource_names=["a"])
    served.notes.put("b", 1, "of another name")
    await asyncio.sleep(0.05)
    assert not held.done()
    served.notes.put("a", 2, "second")
    second = await held
    assert (second.status_code, second.json()["version_info"]) == (200, "notes:2")
    assert [note["text"] for note in second.json()["resources"]] == ["second"]


async def test_several_names_and_an_unknown_one(served: Served) -> None:
    """Each name has its part of the version; an unknown name is left out, and comes once it is known."""
    served.notes.put("a", 1, "first")
    unknown = await served.poll("notes", resource_names=["never"])
    assert (unknown.status_code, unknown.json()["resources"]) == (200, [])
    both = await served.poll("notes", resource_names=["a", "never"])
    version = both.json()["version_info"]
    assert [note["name"] for note in both.json()["resources"]] == ["a"]
    held = await served.hold("notes", version, resource_names=["a", "never"])
    served.notes.put("never", 1, "after all")
    news = (await held).json()
    assert [note["name"] for note in news["resources"]] == ["a", "never"]
    assert news["version_info"] != version


async def test_a_type_keyed_by_cluster_is_served_without_names(served: Served) -> None:
    """Each cluster gets its own; a change of one wakes its nodes alone, and removals are a version of their own."""
    served.banners.publish("web", 1, top="hello", side="news")
    served.banners.publish("api", 5, top="machines only")
    first = await served.poll("banners")
    assert [banner["name"] for banner in first.json()["resources"]] == ["top", "side"]
    other = await served.poll("banners", cluster="api")
    assert [banner["text"] for banner in other.json()["resources"]] == ["machines only"]
    version = first.json()["version_info"]
    assert (await served.poll("banners", version)).status_code == 304
    held = await served.hold("banners", version)
    served.banners.publish("api", 6, top="still machines")
    await asyncio.sleep(0.05)
    assert not held.done()
    served.banners.publish("web", 2, side="news")
    second = (await held).json()
    assert [banner["name"] for banner in second["resources"]] == ["side"]
    assert second["version_info"] != version
    star = await served.poll("banners", resource_names=["*"])
    assert star.json() == second
    alone = await served.poll("banners", resource_names=["side"])
    assert [banner["name"] for banner in alone.json()["resources"]] == ["side"]


async def test_a_cluster_of_which_nothing_is_defined(served: Served) -> None:
    """It is told so once, which lets an Envoy start; then it is held until something is defined."""
    first = await served.poll("banners", cluster="new")
    assert (first.status_code, first.json()["resources"]) == (200, [])
    held = await served.hold("banners", first.json()["version_info"], cluster="new")
    served.banners.publish("new", 1, top="welcome")
    assert [banner["text"] for banner in (await held).json()["resources"]] == ["welcome"]


async def test_nothing_is_concluded_while_the_process_is_not_sure(served: Served) -> None:
    """A new poll is 503, and a poll that is held waits on: an empty response would remove what its Envoy has."""
    served.banners.publish("web", 1, top="hello")
    version = (await served.poll("banners")).json()["version_info"]
    held = await served.hold("banners", version)
    served.banners.sure = served.notes.sure = False
    served.banners.publish("web", 2)
    await asyncio.sleep(0.05)
    assert not held.done()
    for kind, names in (("notes", ["a"]), ("banners", [])):
        refused = await served.poll(kind, version, resource_names=names)
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
    served.banners.mark_sure()
    served.banners.publish("web", 3, top="again")
    assert [banner["text"] for banner in (await held).json()["resources"]] == ["again"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_held_poll_ends_once_the_process_is_sure(served: Served, kind: str) -> None:
    """What changed while it was not sure is answered as soon as it is, without a further change."""
    request: dict[str, Any] = {} if kind == "banners" else {"resource_names": ["shop"]}
    served.notes.put("shop", 1, "before")
    served.banners.publish("web", 1, top="before")
    version = (await served.poll(kind, **request)).json()["version_info"]
    held = await served.hold(kind, version, **request)
    cache = served.process.cache
    cache.set_database("another")
    served.notes.sure = served.banners.sure = False
    await asyncio.sleep(0.05)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[ENDPOINT])])
    served.notes.put("shop", 2, "after")
    served.banners.publish("web", 2, top="after")
    await asyncio.sleep(0.05)
    assert not held.done()
    cache.mark_ready(1.0)
    served.notes.mark_sure()
    served.banners.mark_sure()
    async with asyncio.timeout(2):
        news = await held
    assert news.status_code == 200
    assert news.json()["version_info"] != version
    assert len(news.json()["resources"]) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [[], ["shop"], ["shop", "cart"], ["*"]], ids=str)
async def test_a_process_that_is_not_sure_answers_no_poll(served: Served, kind: str, names: list[str]) -> None:
    """503 whatever is asked for, also for nothing: an empty response would be a conclusion."""
    served.process.cache.set_database("another")
    served.notes.sure = served.banners.sure = False
    for version in ("", "another:1"):
        refused = await served.poll(kind, version, resource_names=names)
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")


async def test_a_subscriber_that_is_ahead_keeps_what_it_has(served: Served) -> None:
    """This process is behind: it answers nothing older, and the cache hears of the newer version."""
    served.notes.put("a", 1, "first")
    served.banners.publish("web", 1, top="hello")
    assert (await served.poll("notes", "notes:4", resource_names=["a"])).status_code == 304
    assert served.notes.claims == [("a", 4)]
    version = (await served.poll("banners")).json()["version_info"]
    assert (await served.poll("banners", version.replace(":1", ":7"))).status_code == 304
    assert served.banners.claims == [("*", 7)]


async def test_types_do_not_mix(served: Served) -> None:
    """A path refuses another type's request, EDS stands beside them, and no subscriber of one is another's."""
    served.notes.put("shop", 1, "a note of the same name")
    wrong = await served.poll("notes", resource_names=["shop"], type_url=BANNERS.type_urls["v3"])
    assert wrong.status_code == 422
    assert (await served.client.post("/v2/discovery:notes", json={"resource_names": ["shop"]})).status_code == 404
    await served.poll("notes", resource_names=["shop"])
    assert served.process.subscribers.of("shop") == []
    assignment = await served.poll("endpoints", resource_names=["shop"])
    assert assignment.json()["version_info"] == "database:3"
    assert [one.node.id for one in served.process.subscribers.of("shop")] == ["i-1"]
    assert (await served.poll("endpoints", "notes:1", resource_names=["shop"])).status_code == 200


@pytest.mark.parametrize("served", ["fast"], indirect=True)
async def test_the_record_of_each_type_is_bounded_and_forgets(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting bounds each type's alone; once its nodes are silent for long, there is room for new ones in each."""
    monkeypatch.setattr(process_module, "PUBLISH_INTERVAL", 0.05)
    records = served.process.discovery.subscribers
    assert sorted(records) == sorted(KINDS + MESH_KINDS)
    names = [f"name-{number}" for number in range(MAX_NAMES)]
    full = MAX_SIGHTINGS // MAX_NAMES
    for kind, record in records.items():
        for number in range(full + 1):
            node = {"id": f"i-{number}", "cluster": "web"}
            assert (await served.poll(kind, node=node, resource_names=names)).status_code == 200
        assert (len(record), record.sightings, record.take_refused()) == (full, full * MAX_NAMES, MAX_NAMES), kind
        for subscription in list(record)[1:]:
            subscription.polled_at -= SUBSCRIBER_TIMEOUT + 1
            subscription.answered_at -= SUBSCRIBER_TIMEOUT + 1
    await served.process.start()
    try:
        async with asyncio.timeout(5):
            while any(len(record) > 1 for record in records.values()):
                await asyncio.sleep(0.02)
    finally:
        await served.process.stop()
    for kind, record in records.items():
        assert [subscription.node.id for subscription in record] == ["i-0"], kind
        await served.poll(kind, node={"id": "i-new"}, resource_names=names)
        assert record.sightings == 2 * MAX_NAMES, kind


async def test_a_policy_refuses_polls_over_every_front(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """403 as a problem document for each poll that names what is refused, and nothing of it is answered or held.

    First polls, without a version, get no resources, whatever their type.
    """
    asked: list[tuple[str, Verb, str]] = []

    def allow(_self: Policy, principal: Principal, verb: Verb, service: str = "", endpoint: str = "") -> None:
        asked.append((principal.name, verb, service))
        if service in ("shop", "*"):
            raise NotAllowedError(f"{principal.name} may not {verb} {service} {endpoint}".rstrip())

    def refusal(_self: Policy, _principal: Principal, verb: Verb, service: str = "", *_: object) -> Refusal | None:
        return Refusal(Request(verb, service), "forbidden", "for few") if service == "shop" else None

    monkeypatch.setattr(Policy, "allow", allow)
    # What v1 SDS asks in the fast protocol, to leave a refusal to the route.
    monkeypatch.setattr(Policy, "refusal", refusal)
    served.notes.put("cart", 1, "open to all")
    served.notes.put("shop", 1, "for few")
    served.banners.publish("web", 1, top="hello")
    first = [
        await served.client.post("/v3/discovery:endpoints", content=poll_body("shop"), headers=BUDGET),
        await served.client.post("/v2/discovery:endpoints", json={"resource_names": ["shop"]}),
        await served.poll("notes", resource_names=["cart", "shop"]),
        await served.poll("banners"),
    ]
    for response in first:
        assert (response.status_code, response.json()["resources"]) == (200, [])
    refused = [
        await served.client.post("/v3/discovery:endpoints", content=poll_body("shop", "database:3"), headers=BUDGET),
        await served.client.post("/v2/discovery:endpoints", json={"resource_names": ["shop"], "version_info": "v"}),
        await served.poll("notes", first[2].json()["version_info"], resource_names=["cart", "shop"]),
        await served.poll("banners", first[3].json()["version_info"]),
        await served.client.get("/v1/registration/shop"),
    ]
    for response in refused[:4]:
        problem = response.json()
        assert (response.status_code, response.headers["content-type"]) == (403, "application/problem+json")
        assert (problem["title"], problem["status"]) == ("Not allowed", 403)
        assert "127.0.0.1 may not discover" in problem["detail"]
    assert refused[4].status_code == 403
    assert (await served.poll("notes", resource_names=["cart"])).status_code == 200
    assert not served.process.discovery.held_polls
    assert {subscription.status for subscription in served.process.subscribers.of("shop")} == {403}
    assert {verb for _, verb, _ in asked} == {Verb.DISCOVER}
    named = await served.client.post(
        "/v3/discovery:endpoints", content=poll_body("shop", "database:3"), headers={"x-actor": "eve"}
    )
    assert named.json()["detail"].startswith("127.0.0.1 may not discover shop")
    await served.client.get("/v1/registration/shop", headers={"x-actor": "eve"})
    assert {name for name, _, _ in asked} == {"127.0.0.1"}
