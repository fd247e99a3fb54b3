"""Polls that wait, without a server."""

import asyncio
import gc
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from unit.registry.making import endpoint

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.peer_limit import PeerSlots, ReachedLimits
from registry.core.snapshot import SnapshotDelta
from registry.errors import NotAllowedError, UnauthenticatedError, UnavailableError
from registry.metrics import POLLS_HELD
from registry.xds.discovery import Discovery, ServedPath
from registry.xds.discovery_request import DiscoveryRequest
from registry.xds.discovery_response import DiscoveryResponse
from registry.xds.eds import AssignmentCache
from registry.xds.long_poll import LongPoll
from registry.xds.peer_polls import MAX_UNPROVEN, PeerPolls
from registry.xds.resource_cache import ServedType
from registry.xds.resources import ENDPOINTS
from wire.node import Node


async def test_a_subscriber_that_leaves_as_its_answer_comes_is_let_go_once() -> None:
    """Whichever of the two is first in a turn of the loop: none is held, and none is counted as held, afterwards."""
    cache = SnapshotCache()
    cache.mark_ready(0.0)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[endpoint(1)])])
    discovery, path = _eds(cache)
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
    before = POLLS_HELD._value.get()
    poll = DiscoveryRequest(("shop",), ":1", Node("i-1"))
    waits = asyncio.create_task(discovery.later(path, poll, "10.0.0.9", "30000"))
    await asyncio.sleep(0)
    cache.apply([SnapshotDelta("shop", 2, 2, listed=[endpoint(2)])])
    waits.cancel()
    await asyncio.wait((waits,))
    await asyncio.sleep(0)
    (subscription,) = path.subscribers
    assert (subscription.held, POLLS_HELD._value.get() - before, failures) == (0, 0, [])
    assert waits.cancelled()


@pytest.mark.parametrize("end", ["answered", "given up", "released"])
async def test_a_held_poll_that_is_over_is_freed_without_the_garbage_collector(end: str) -> None:
    """Otherwise the polls of a fleet fill the oldest generation, and each collection of it keeps all others waiting."""
    cache = SnapshotCache()
    cache.mark_ready(0.0)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[endpoint(1)])])
    discovery, path = _eds(cache)
    gc.collect()
    gc.disable()
    try:
        before = _long_polls()
        give_up = discovery.hold(path, DiscoveryRequest(("shop",), ":1", Node("i-1")), "10.0.0.9", "30000", _ignore)
        assert _long_polls() == before + 1
        if end == "answered":
            cache.apply([SnapshotDelta("shop", 2, 2, listed=[endpoint(2)])])
        elif end == "given up":
            give_up()
        else:
            discovery.held_polls.release_oldest(1)
        del give_up
        # The watch calls back in a later turn of the loop.
        for _ in range(3):
            await asyncio.sleep(0)
        assert _long_polls() == before
    finally:
        gc.enable()


def _ignore(_response: DiscoveryResponse) -> None:
    """Take an answer, and do nothing with it."""


def _long_polls() -> int:
    return sum(type(each) is LongPoll for each in gc.get_objects())


def _eds(cache: SnapshotCache) -> tuple[Discovery, ServedPath]:
    """Return discovery with EDS alone, and the path of its v3."""
    discovery = Discovery([ServedType(ENDPOINTS, AssignmentCache(cache))], Policy(), max_held=10, max_sightings=100)
    return discovery, discovery.paths["/v3/discovery:endpoints"]


def _asked(cache: SnapshotCache, names: tuple[str, ...], version: str) -> dict[str, Any] | None:
    """Return what a subscriber is told that holds a version; None: it is held."""
    cache.mark_ready(0.0)
    discovery, path = _eds(cache)
    answer = discovery.now(path, DiscoveryRequest(names, version), "10.0.0.9")
    return None if answer is None else json.loads(answer.body)


async def test_a_forgotten_service_keeps_no_news_of_others_from_who_asks_for_several() -> None:
    """What is held of it stays, however great its number; the others' changes come."""
    cache, names = SnapshotCache(), ("cart", "shop")
    cache.apply([SnapshotDelta("cart", 3, 3, listed=[endpoint(1, "cart")]), SnapshotDelta("shop", 7, 7)])
    poll = _asked(cache, names, "")
    assert poll is not None
    assert len(poll["resources"]) == 2
    cache.drop("shop")
    assert _asked(cache, names, poll["version_info"]) is None
    cache.apply([SnapshotDelta("cart", 4, 4, listed=[endpoint(2, "cart")])])
    news = _asked(cache, names, poll["version_info"])
    assert news is not None
    assert [resource["cluster_name"] for resource in news["resources"]] == ["cart"]
    assert _asked(cache, names, news["version_info"]) is None
    cache.apply([SnapshotDelta("shop", 8, 8, listed=[endpoint(3)])])
    again = _asked(cache, names, news["version_info"])
    assert again is not None
    assert len(again["resources"]) == 2


async def test_a_star_is_a_name_like_any_other_of_a_type_without_wildcard() -> None:
    """Its versions are read as those of each name: a subscriber that is ahead is held, and its version claimed."""
    cache = SnapshotCache()
    cache.apply([SnapshotDelta("*", 3, 3, listed=[endpoint(1, "*")])])
    poll = _asked(cache, ("*",), "")
    assert poll is not None
    assert poll["version_info"] == ":3"
    assert _asked(cache, ("*",), ":4") is None
    assert cache.take_claims() == {"*": 4}
    absent = _asked(SnapshotCache(), ("*",), "")
    assert absent is not None
    assert absent["version_info"] == ":0"


async def test_a_poll_for_a_forgotten_service_is_held() -> None:
    """It is never answered with an empty assignment, whatever number is brought."""
    for version in (":7", ":0", f":{10**9}"):
        assert _asked(SnapshotCache(), ("shop",), version) is None


async def test_refused_polls_are_answered_at_once_when_the_process_stops_or_connections_are_scarce() -> None:
    """Those that are held are answered first, and none is held from then on."""
    discovery, _ = _eds(SnapshotCache())
    answers: list[int] = []
    for number in range(3):
        discovery.held_polls.hold_refusal("10.0.0.9", "30000", partial(answers.append, number))
    discovery.held_polls.release_oldest(1)
    assert answers == [0]
    discovery.held_polls.hold_none(60.0)
    discovery.held_polls.hold_refusal("10.0.0.9", "30000", partial(answers.append, 3))
    assert answers == [0, 3]
    discovery.held_polls.release()
    assert answers == [0, 3, 1, 2]
    assert await asyncio.wait_for(discovery.held_polls.delay_refusal("10.0.0.9", "30000"), 0.5)


async def test_a_refused_poll_without_the_clients_timeout_is_answered_at_once() -> None:
    """As no other poll is held without it: curl and scripts do not ask again by themselves."""
    discovery, _ = _eds(SnapshotCache())
    answers: list[int] = []
    discovery.held_polls.hold_refusal("10.0.0.9", None, partial(answers.append, 1))
    assert answers == [1]


NODE = Principal("10.0.0.9")


class OnlyShop(Policy):
    """Allows one name."""

    def allow(
        self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "", instance_id: str | None = None
    ) -> None:
        """Refuse every other name."""
        del principal, verb, endpoint, instance_id
        if service != "shop":
            raise NotAllowedError("only shop")


@pytest.mark.parametrize("names", [["cart"], ["shop", "cart"], []])
async def test_a_refused_first_poll_gets_no_resources_and_later_ones_are_refused(names: list[str]) -> None:
    """A poll for several names is refused as a whole. Its version is current for nothing that has endpoints."""
    cache = SnapshotCache()
    cache.mark_ready(0.0)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[endpoint(1)]), SnapshotDelta("cart", 2, 2, listed=[endpoint(2)])])
    assignments = ServedType(ENDPOINTS, AssignmentCache(cache))
    discovery = Discovery([assignments], OnlyShop(), max_held=10, max_sightings=100)
    path = discovery.paths["/v3/discovery:endpoints"]
    poll = {"node": {"id": "web-1"}, "resource_names": names}
    first = discovery.read(path, NODE, json.dumps(poll).encode())
    response = discovery.now(path, first, "10.0.0.9")
    assert response is not None
    assert (response.status, json.loads(response.body)["resources"]) == (200, [])
    assert [subscription.status for subscription in path.subscribers] == ([403] if names else [])
    version = json.loads(response.body)["version_info"]
    body = json.dumps(poll | {"version_info": version}).encode()
    with pytest.raises(NotAllowedError):
        discovery.now(path, discovery.read(path, NODE, body), "10.0.0.9")
    discovery._policy = Policy()
    granted = discovery.now(path, discovery.read(path, NODE, body), "10.0.0.9")
    assert granted is not None
    assert len(json.loads(granted.body)["resources"]) == len(names)


async def test_a_refused_first_poll_waits_for_the_state_as_every_other() -> None:
    """A process that does not know its database has no version to give, and says so."""
    discovery = Discovery(
        [ServedType(ENDPOINTS, AssignmentCache(SnapshotCache()))], OnlyShop(), max_held=10, max_sightings=100
    )
    path = discovery.paths["/v3/discovery:endpoints"]
    first = discovery.read(path, NODE, b'{"resource_names": ["cart"]}')
    with pytest.raises(UnavailableError):
        discovery.now(path, first, "10.0.0.9")


async def test_a_held_poll_whose_credential_ended_brings_nothing_new() -> None:
    """A revoked token has no part in a change that comes later; the subscriber polls again and is judged anew."""
    cache = SnapshotCache()
    cache.mark_ready(0.0)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[endpoint(1)])])
    discovery, path = _eds(cache)
    subject = Subject("token:web", "envoy")
    poll = discovery.read(path, Principal("10.0.0.9", subject=subject), b'{"resource_names": ["shop"]}')
    poll.version_info = ":1"
    waits = asyncio.create_task(discovery.later(path, poll, "10.0.0.9", "30000"))
    await asyncio.sleep(0)
    subject.ended = True
    cache.apply([SnapshotDelta("shop", 2, 2, listed=[endpoint(2)])])
    assert (await asyncio.wait_for(waits, 1.0)).status == 304


class Closed(OnlyShop):
    """Knows nobody."""

    def allow(
        self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "", instance_id: str | None = None
    ) -> None:
        """Ask for a credential."""
        del principal, verb, service, endpoint, instance_id
        raise UnauthenticatedError("no credential was sent")


async def test_a_stranger_enters_no_subscriber_and_touches_none_that_is_held() -> None:
    """Of a subscriber that polled before, a refusal is shown; one whose poll is held cannot be the refused one."""
    cache = SnapshotCache()
    cache.mark_ready(0.0)
    cache.apply([SnapshotDelta("shop", 1, 1, listed=[endpoint(1)])])
    discovery, path = _eds(cache)
    body = b'{"version_info": ":1", "node": {"id": "web-1"}, "resource_names": ["shop"]}'

    def poll() -> None:
        with pytest.raises(UnauthenticatedError):
            discovery.now(path, discovery.read(path, NODE, body), "10.0.0.9")

    discovery._policy = Closed()
    poll()
    assert list(path.subscribers) == []
    discovery._policy = Policy()
    request = discovery.read(path, NODE, body)
    assert discovery.now(path, request, "10.0.0.9") is None
    give_up = discovery.hold(path, request, "10.0.0.9", "30000", lambda _: None)
    (subscription,) = path.subscribers
    discovery._policy = Closed()
    poll()
    assert subscription.status != 401
    give_up()
    poll()
    assert subscription.status == 401


async def test_a_peer_has_so_many_polls_held_and_the_others_are_answered_at_once() -> None:
    """Two names of a peer are held, the third is answered 304 at once; one that ends makes room; others have theirs."""
    cache, reached = SnapshotCache(), ReachedLimits()
    cache.apply([SnapshotDelta("shop", 7, 7)])
    cache.mark_ready(0.0)
    polls = PeerPolls(PeerSlots(), 2, reached)
    served = [ServedType(ENDPOINTS, AssignmentCache(cache))]
    discovery = Discovery(served, Policy(), max_held=10, max_sightings=100, peer_polls=polls)
    path = discovery.paths["/v3/discovery:endpoints"]
    answers: list[DiscoveryResponse] = []

    def hold(address: str, timeout: str = "60000") -> Callable[[], None]:
        request = DiscoveryRequest(("shop",), "")
        request.principal = Principal(address, subject=Subject("token:envoy"))
        return discovery.hold(path, request, "named-by-itself", timeout, answers.append)

    first, _ = hold("10.0.0.9"), hold("10.0.0.9")
    assert (answers, reached.reached) == ([], {})
    hold("10.0.0.9", timeout="100")
    # It would not have been held with room either, so it has not met the limit.
    assert (len(answers), reached.reached) == (1, {})
    answers.clear()
    hold("10.0.0.9")
    assert ([answer.status for answer in answers], reached.reached["held_polls"].count) == ([304], 1)
    hold("10.0.0.8")
    hold("127.0.0.1")
    first()
    hold("10.0.0.9")
    assert len(answers) == 1
    discovery.held_polls.release()
    await asyncio.sleep(0.1)
    assert len(answers) == 5
    assert polls.has_room(Principal("10.0.0.9", subject=Subject("token:envoy")), 2, 0.0)


def test_a_peer_without_a_credential_has_fewer() -> None:
    """An address proves no credential, though an identity of its network may discover."""
    polls = PeerPolls(PeerSlots(), 1_024, ReachedLimits())
    for name, most in (("token:envoy", 1_024), ("network:10.0.0.0/8", MAX_UNPROVEN), ("", MAX_UNPROVEN)):
        principal = Principal("10.0.0.9", subject=Subject(name))
        assert polls.has_room(principal, most, 0.0)
        assert not polls.has_room(principal, most + 1, 0.0)
