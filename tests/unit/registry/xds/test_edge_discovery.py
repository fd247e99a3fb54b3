"""Questions of edges, without a server: what they build on, what they hold, and who is seen behind them."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.making import endpoint

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.cache.mesh_cache import MeshCache
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.snapshot import SnapshotDelta
from registry.core.subscriber import Subscription
from registry.errors import NotRememberedError, TooLargeError, UnavailableError
from registry.xds.discovery import Discovery
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.edge_answer import EdgeResponse
from registry.xds.edge_discovery import EdgeDiscovery
from registry.xds.edge_poll import EdgePoll
from registry.xds.eds import AssignmentCache
from registry.xds.mesh import MeshResources
from registry.xds.resource_cache import ServedType
from registry.xds.resources import ENDPOINTS, MESH_TYPES
from wire.edge_assignments import EdgeAnswer, EdgeQuestion, TakenVersion

SENDER = Principal("10.0.0.9")
SERVICES = ("cart", "shop", "user")


class World:
    """A process in memory, with an edge that asks it."""

    def __init__(self, ready: bool = True, max_names: int = 100) -> None:
        self.cache = SnapshotCache()
        self.cache.set_database("db")
        if ready:
            self.cache.mark_ready(0.0)
        self.mesh = MeshCache()
        self.mesh.set_database("db")
        self.mesh.mark_ready()
        served = [ServedType(ENDPOINTS, AssignmentCache(self.cache))]
        served += [ServedType(each, MeshResources(each, self.mesh)) for each in MESH_TYPES]
        self.discovery = Discovery(served, Policy(), max_held=100, max_sightings=100)
        self.edge = EdgeDiscovery(self.discovery, Policy(), max_names)
        self.answers: list[DiscoveryResponse] = []

    def change(self, service: str, version: int) -> None:
        """Give a service another endpoint."""
        self.cache.apply([SnapshotDelta(service, version, version, listed=[endpoint(version)])])

    def read(self, principal: Principal = SENDER, **fields: Any) -> EdgePoll:
        """Read a question."""
        return self.edge.read(principal, EdgeQuestion(**fields))

    def ask(self, principal: Principal = SENDER, **fields: Any) -> EdgeAnswer | None:
        """Return what a question is answered at once; None: it is up to date."""
        response = self.edge.now(self.read(principal, **fields), "10.0.0.9")
        return None if response is None else msgspec.json.decode(response.body, type=EdgeAnswer)

    def subscribers(self) -> Iterator[Subscription]:
        """Return those of EDS."""
        return iter(self.discovery.subscribers["endpoints"])


def taken(service: str, version: str, **fields: Any) -> TakenVersion:
    """Return what an Envoy has taken."""
    return TakenVersion("envoy", service, version, **fields)


@given(st.lists(st.tuples(st.sampled_from(SERVICES), st.integers(0, 3), st.booleans()), max_size=12))
@examples(60)
def test_a_question_that_builds_on_another_is_answered_as_a_whole_one(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever was said before: the names and tokens that it does not repeat are still asked for."""
    asyncio.run(_build(steps))


async def _build(steps: list[tuple[str, int, bool]]) -> None:
    world, held, newest = World(), dict.fromkeys(SERVICES, "db:0"), dict.fromkeys(SERVICES, 0)
    for service in SERVICES:
        newest[service] = 1
        _apply(world, service, 1)
    world.ask(node="i-1", held=held, id="q0")
    for number, (service, ahead, changes) in enumerate(steps):
        if changes:
            newest[service] += 1
            _apply(world, service, newest[service])
            # The change is noted in a later turn of the event loop.
            await asyncio.sleep(0)
        held[service] = f"db:{newest[service] + ahead - 1}"
        after = world.ask(held={service: held[service]}, after=f"q{number}", id=f"q{number + 1}")
        assert after == world.ask(node="i-1", held=held)


def _apply(world: World, service: str, version: int) -> None:
    world.cache.apply([SnapshotDelta(service, version, version, listed=[endpoint(version)])])


async def test_a_held_question_ends_when_another_builds_on_it() -> None:
    """So an edge tells at any time what its Envoys have taken, and is answered once for each question."""
    world = World()
    world.change("shop", 1)
    first = world.read(node="i-1", held={"shop": "db:1"}, id="a", taken=[taken("shop", "")])
    assert world.edge.now(first, "10.0.0.9") is None
    world.edge.hold(first, world.answers.append)
    second = world.read(after="a", id="b", taken=[taken("shop", "db:1")])
    assert [answer.status for answer in world.answers] == [304]
    assert world.edge.now(second, "10.0.0.9") is None
    world.edge.hold(second, world.answers.append)
    (subscriber,) = world.subscribers()
    assert (subscriber.brought, subscriber.held, subscriber.edge) == ("db:1", 1, "i-1")
    world.change("shop", 2)
    await asyncio.sleep(0.05)
    assert [answer.status for answer in world.answers] == [304, 200]
    assert (subscriber.held, len(world.discovery.held_polls)) == (0, 0)


def test_what_is_not_remembered_is_refused() -> None:
    """412 for an unknown id, for that of another principal, and for one that was built on already."""
    world = World()
    world.ask(node="i-1", held={"shop": ""}, id="a")
    with pytest.raises(NotRememberedError):
        world.ask(after="other")
    with pytest.raises(NotRememberedError):
        world.ask(Principal("10.0.0.9", subject=Subject("token:other")), after="a")
    assert world.ask(after="a", id="b") is not None
    with pytest.raises(NotRememberedError):
        world.ask(after="a")
    assert world.ask(after="b") is not None


def test_the_oldest_questions_are_forgotten_when_there_are_too_many_names() -> None:
    """Ids cost a client nothing, so their number is bounded; whoever is forgotten asks a whole question."""
    world = World(max_names=3)
    for number in range(10):
        world.ask(node="i-1", held={"shop": "", "cart": ""}, id=f"q{number}")
    with pytest.raises(NotRememberedError):
        world.ask(after="q8")
    assert world.ask(after="q9") is not None


def test_made_up_envoys_take_no_more_room_than_there_is_for_subscribers() -> None:
    """However many an edge names, in one question after the other."""
    world = World()
    world.ask(node="i-1", held={"shop": ""}, id="q0")
    for number in range(5):
        made_up = [TakenVersion(f"envoy-{number}-{each}", "shop", "") for each in range(90)]
        assert world.ask(after=f"q{number}", id=f"q{number + 1}", taken=made_up) is not None
    assert world.edge.subscriber_count == len(list(world.subscribers())) == 100


def test_a_question_that_grows_has_the_bound_of_a_whole_one() -> None:
    """A thousand names, however many questions they came in."""
    world = World(max_names=10_000)
    world.ask(node="i-1", held={f"s{number}": "" for number in range(999)}, id="a")
    world.ask(after="a", id="b", held={"one-more": "", "s7": ""})
    with pytest.raises(TooLargeError):
        world.ask(after="b", held={"too-many": ""})


async def test_doubt_is_no_answer() -> None:
    """A process that has read nothing yet refuses, and one that is unsure again lets a held question wait."""
    with pytest.raises(UnavailableError):
        World(ready=False).ask(node="i-1", held={"shop": ""})
    world = World()
    world.change("shop", 1)
    poll = world.read(node="i-1", held={"shop": "db:1"})
    assert world.edge.now(poll, "10.0.0.9") is None
    world.edge.hold(poll, world.answers.append)
    world.cache.set_database("other")
    await asyncio.sleep(0.05)
    assert world.answers == []
    world.change("shop", 5)
    world.cache.mark_ready(0.0)
    await asyncio.sleep(0.05)
    (answer,) = world.answers
    assert msgspec.json.decode(answer.body, type=EdgeAnswer).assignments["shop"].version_info == "other:5"


async def test_a_mesh_configuration_that_cannot_be_read_keeps_no_endpoint_from_an_edge() -> None:
    """Its names wait until this process is sure of them; a question that has nothing else is refused."""
    world = World()
    world.change("shop", 1)
    clusters = {MESH_TYPES[0].type_urls["v3"]: {"*": ""}}
    world.mesh.note_unreadable({"web": "a defect"})
    with pytest.raises(UnavailableError):
        world.ask(node="i-1", cluster="web", resources=clusters)
    answer = world.ask(node="i-1", cluster="web", held={"shop": ""}, resources=clusters, id="a")
    assert answer is not None
    assert (answer.assignments["shop"].version_info, answer.resources) == ("db:1", {})
    poll = world.read(after="a", id="b", held={"shop": "db:1"})
    assert world.edge.now(poll, "10.0.0.9") is None
    world.edge.hold(poll, world.answers.append)
    world.change("shop", 2)
    await asyncio.sleep(0.05)
    (response,) = world.answers
    assert msgspec.json.decode(response.body, type=EdgeAnswer).assignments["shop"].version_info == "db:2"
    world.mesh.note_unreadable({})
    answer = world.ask(after="b", held={"shop": "db:2"})
    assert answer is not None
    assert (answer.assignments, list(answer.resources)) == ({}, list(clusters))


async def test_a_credential_that_ends_gives_nothing_more() -> None:
    """A held question is answered 304 then, so that the next one is decided anew."""
    world = World()
    world.change("shop", 1)
    principal = Principal("10.0.0.9", subject=Subject("token:a"))
    poll = world.read(principal, node="i-1", held={"shop": "db:1"})
    world.edge.now(poll, "10.0.0.9")
    world.edge.hold(poll, world.answers.append)
    principal.subject.ended = True
    world.change("shop", 2)
    await asyncio.sleep(0.05)
    assert [answer.status for answer in world.answers] == [304]


@pytest.mark.parametrize("end", ["answered", "given up", "released", "built on"])
async def test_a_question_that_is_over_is_freed_without_the_garbage_collector(end: str) -> None:
    """As polls are: a fleet of edges must not leave a cycle each ten seconds."""
    world = World()
    world.change("shop", 1)
    gc.collect()
    gc.disable()
    try:
        poll = world.read(node="i-1", held={"shop": "db:1"}, id="a", taken=[taken("shop", "db:1")])
        world.edge.now(poll, "10.0.0.9")
        give_up = world.edge.hold(poll, world.answers.append)
        if end == "answered":
            world.change("shop", 2)
        elif end == "given up":
            give_up()
        elif end == "released":
            world.discovery.held_polls.release_oldest(1)
        else:
            world.edge.now(world.read(after="a"), "10.0.0.9")
        await asyncio.sleep(0.05)
        world.edge._remembered._forget("a")
        del poll, give_up
        assert not [each for each in gc.get_objects() if type(each) is EdgePoll]
    finally:
        gc.enable()
    (subscriber,) = world.subscribers()
    assert subscriber.held == 0


def test_an_answer_to_many_edges_is_made_once() -> None:
    """The same change in the same words is one body, compressed once."""
    world = World()
    for version in range(1, 60):
        world.cache.apply([SnapshotDelta("shop", version, version, listed=[endpoint(n) for n in range(1, version)])])
    first, second = (world.edge.now(world.read(node=node, held={"shop": "db:1"}), "10.0.0.9") for node in "ab")
    assert isinstance(first, EdgeResponse)
    assert isinstance(second, EdgeResponse)
    assert first.encoded is second.encoded
    assert first.encoded.packed() is second.encoded.packed()


def test_an_envoy_keeps_the_beginning_that_its_edge_tells() -> None:
    """Ages are measured anew for each report, and must not look like a new beginning each time."""
    world = World()
    world.ask(node="i-1", held={"shop": ""}, taken=[taken("shop", "db:1", started_ago=100.0)])
    (subscriber,) = world.subscribers()
    began = subscriber.started_at
    world.ask(node="i-1", held={"shop": ""}, taken=[taken("shop", "db:1", started_ago=100.9)])
    assert subscriber.started_at == began
    world.ask(node="i-1", held={"shop": ""}, taken=[taken("shop", "", started_ago=0.0)])
    assert subscriber.started_at != began


async def test_a_held_question_counts_for_its_connection_and_not_for_each_name() -> None:
    """A fleet behind edges has a twentieth of the connections, and must not be answered at once for want of room."""
    world = World(max_names=10_000)
    held = {f"s{number}": "db:0" for number in range(40)}
    for number in range(60):
        poll = world.read(node=f"i-{number}", held=held)
        assert world.edge.now(poll, "10.0.0.9") is None
        world.edge.hold(poll, world.answers.append)
    # 100 polls have room: fifty questions of two each.
    assert (len(world.discovery.held_polls), len(world.answers)) == (50, 10)
