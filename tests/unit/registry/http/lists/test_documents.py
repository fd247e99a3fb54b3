"""Whatever changes, a list is what it would be if nothing were kept: with every clock, lease, pause and loss."""

from itertools import pairwise

import msgspec
import pytest
from harness.memory_front import MemoryFront
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.registry.http.lists.world import ANYBODY, ECS, NAMES, START, STEPS, World
from unit.registry.making import endpoint, leases, registration

from registry.auth.grants import Grant
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.auth.verbs import Verb
from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.core.presence import MAX_LOST_AGE
from registry.errors import InvalidError, NotAllowedError, UnknownServiceError
from registry.http.lists.document import Conditions, Document, joined_document
from registry.http.lists.lists import Lists
from registry.http.lists.requests import EndpointsRequest, ListRequest, ServiceRequest, ServicesRequest, TargetsRequest
from registry.http.parameters import write_cursor
from registry.usecases.catalog import EndpointFilter
from wire.reserved_metadata import ECS_CLUSTER, ECS_SERVICE

REQUESTS: list[ServicesRequest | ServiceRequest | EndpointsRequest] = [
    ServicesRequest(),
    ServicesRequest(prefix="shop", limit=1),
    ServicesRequest(cursor=write_cursor("cart")),
    ServicesRequest(prefix="z"),
    *map(ServiceRequest, NAMES),
    EndpointsRequest("shop"),
    EndpointsRequest("shop", limit=1),
    EndpointsRequest("shop", cursor=write_cursor("1")),
    EndpointsRequest("shop", EndpointFilter(("SILENT", "DRAINING"), zone="a")),
    EndpointsRequest("cart", EndpointFilter(metadata="stage=blue")),
]


def check(world: World) -> None:
    """Ask for everything, so that it is kept for the next step; each has to be what it is without anything kept."""
    for request in REQUESTS:
        if isinstance(request, ServicesRequest) or world.cache.knows(request.service):
            document = world.get(request)
            assert document.body == world.expected(request)
            assert document.etag == Document(document.body).etag
        else:
            assert world.lists.known(ANYBODY, request) is None


@settings(deadline=None)
@given(st.data())
def test_a_list_is_what_it_would_be_if_nothing_were_kept(data: st.DataObject) -> None:
    """Every request is asked after each step, so that whatever was kept of the state before is there."""
    world = World()
    for step in data.draw(st.lists(STEPS, min_size=1, max_size=8)):
        step(world, data.draw)
        check(world)


def test_a_lost_endpoint_grows_too_old() -> None:
    """After a day it is not listed any more, and again when the clock is set back."""
    world = World()
    world.change("shop", endpoint(1), endpoint(2))
    lost = endpoint(1, lost_at=START, removed_at=START)
    world.change("shop", lost=(lost,), removed=[((lost.address, lost.port), lost.id)])
    for later in (0, MAX_LOST_AGE - 1, MAX_LOST_AGE, 0, 2 * MAX_LOST_AGE, MAX_LOST_AGE - 1):
        world.clock.time = START + later
        check(world)
        (view,) = msgspec.json.decode(world.get(ServicesRequest()).body)["services"]
        assert view["lost_count"] == (later < MAX_LOST_AGE)


def test_ecs_wants_another_number() -> None:
    """Or none that is known."""
    world = World()
    tasks = {ECS_CLUSTER: ECS.cluster, ECS_SERVICE: ECS.name}
    world.change("shop", endpoint(1, stored=registration(metadata=tasks)))
    for expected, counts in ((1, {}), (3, {ECS: 3}), (4, {ECS: 4}), (1, {})):
        world.cache.read_desired_counts(counts)
        check(world)
        assert msgspec.json.decode(world.get(ServiceRequest("shop")).body)["expected"] == expected


def test_a_kept_document_is_checked_by_numbers_alone() -> None:
    """ECS is read every second; with 3,000 services, to compare all counts for each row took 270 ms a page."""
    world = World()
    world.change("shop", endpoint(1))
    snapshot = world.cache.get("shop")
    stamps = []
    for counts in ({ECS: 3}, {ECS: 3}, {ECS: 4}, {}):
        world.cache.read_desired_counts(counts)
        stamps.append(world.catalog.moment().stamp_of(snapshot))
    assert all(isinstance(part, int | str) for stamp in stamps for part in stamp)
    assert [one == other for one, other in pairwise(stamps)] == [True, False, False]


def test_leases_and_pauses_are_read() -> None:
    """A pause may end later than the guard's time; both are of the last reading."""
    world = World()
    world.change("shop", endpoint(1, suspect_since=START), endpoint(2))
    untils = []
    read = 0
    for renewed, pauses in ((0, ()), (1, ()), (1, ("shop",)), (1, (EVERYWHERE,)), (1, ()), (2, ())):
        if renewed > read:
            read = renewed
            world.cache.read_leases(leases((1, START - 20 + renewed, START + renewed), (2, START, START + 20)), 0.0)
        ends = {"shop": START + 9000, EVERYWHERE: START + 8000}
        world.cache.read_pauses({scope: Pause(scope, "ann", "", START, ends[scope]) for scope in pauses})
        check(world)
        first, _ = msgspec.json.decode(world.get(EndpointsRequest("shop")).body)["endpoints"]
        untils.append(first["silence"]["held_until"] - START)
    assert untils == [600, 601, 9000, 8000, 601, 602]


@pytest.mark.parametrize("times", [(0, 10, 0), (10, 0, 10), (0, 5, 10)])
def test_the_clock_is_set(times: tuple[float, ...]) -> None:
    """While a mark lies ahead of the clock, a silence depends on the time."""
    world = World()
    world.change("shop", endpoint(1, suspect_since=START + 6))
    world.cache.read_leases(leases((1, START + 4, START + 8)), 0.0)
    for later in times:
        for moment in (0.0, 0.5):
            world.clock.time = START + later + moment
            check(world)


def test_another_database_is_followed() -> None:
    """Its numbers mean other endpoints."""
    world = World()
    for database_id, number in (("one", 1), ("two", 2), ("three", 1)):
        world.cache.set_database(database_id)
        world.cache.mark_ready(0.0)
        world.change("shop", endpoint(number))
        check(world)


def test_metadata_look_like_what_is_put_in() -> None:
    """Keys, and texts, that are those of leases and silences."""
    world = World()
    metadata = {"lease_renewed_at": None, "lease_expires_at": None, "silence": None}
    world.change("shop", endpoint(1, stored=registration(metadata=metadata)))
    world.cache.read_leases(leases((1, START, START + 20)), 0.0)
    check(world)


def test_a_list_is_encoded_once() -> None:
    """As long as nothing changes, and again where another service has changed but not the list itself."""
    world = World()
    world.change("shop", endpoint(1))
    for request in (
        ServicesRequest(prefix="s"),
        ServiceRequest("shop"),
        EndpointsRequest("shop"),
        TargetsRequest(("shop",)),
    ):
        first = world.get(request)
        assert world.get(request) is first
        world.change("other", endpoint(2, "other"))
        assert world.get(request) is first


def test_a_part_of_an_endpoint_is_encoded_once() -> None:
    """Another endpoint, other leases: what did not change is not encoded again."""
    world = World()
    world.change("shop", endpoint(1), endpoint(2))
    pages = world.lists._endpoints._pages
    request = EndpointsRequest("shop")
    world.get(request)
    kept = pages.get(request)
    world.change("shop", endpoint(2, suspect_reason="x"))
    world.cache.read_leases(leases((1, START, START + 20)), 0.0)
    world.get(request)
    again = pages.get(request)
    assert kept is not None
    assert again is not None
    assert [new is old for new, old in zip(again.endpoints, kept.endpoints, strict=True)] == [True, False]


def test_targets_follow_every_change() -> None:
    """Those of one service and of all; a service without any, or of whose metadata none says a port, adds nothing."""
    world = World()
    everything, ported = TargetsRequest(), TargetsRequest(port="metrics")
    assert world.get(everything).body == b"[]"
    world.change("shop", endpoint(1), endpoint(2, stored=registration(metadata={"metrics": 9})))
    world.change("cart", endpoint(3, "cart"))
    groups = msgspec.json.decode(world.get(everything).body)
    assert [each["targets"] for each in groups] == [["10.0.0.4:80"], ["10.0.0.2:80"], ["10.0.0.3:80"]]
    assert [each["targets"] for each in msgspec.json.decode(world.get(ported).body)] == [["10.0.0.3:9"]]
    world.change("shop", removed=[(("10.0.0.2", 80), 1)])
    assert [each["targets"] for each in msgspec.json.decode(world.get(everything).body)] == [
        ["10.0.0.4:80"],
        ["10.0.0.3:80"],
    ]
    assert (
        msgspec.json.decode(world.get(TargetsRequest(("cart", "cart", "nowhere"))).body)[0]["labels"][
            "__meta_headcount_service"
        ]
        == "cart"
    )


async def test_many_targets_are_made_with_pauses() -> None:
    """The fast protocol leaves them to the route, until they are made."""
    world = World()
    for number, size in enumerate((300, 0, 100)):
        listed = [endpoint(number * 1000 + each, f"s-{number}") for each in range(size)]
        world.change(f"s-{number}", *listed)
    request = TargetsRequest()
    assert world.lists.known(ANYBODY, request) is None
    document = await world.lists.answer(ANYBODY, request)
    assert len(msgspec.json.decode(document.body)) == 400
    assert world.get(request) is document
    assert document.etag == Document(document.body).etag
    world.change("s-2", endpoint(9999, "s-2"))
    assert len(msgspec.json.decode(world.get(request).body)) == 401


@pytest.mark.parametrize("parts", [[], [b""], [b"[", b"1", b"]"], [bytes(65_536), b"", bytes(range(256)) * 1_000]])
async def test_a_document_that_is_joined_in_turns_is_the_same(parts: list[bytes]) -> None:
    """It has the bytes and the entity tag of one that was made in one piece."""
    whole, joined = Document(b"".join(parts)), await joined_document(parts)
    assert (joined.body, joined.etag) == (whole.body, whole.etag)


def reader(*services: str) -> Principal:
    """Return a principal that may read some services."""
    return Principal("10.0.0.9", subject=Subject("token:x", "operator", [Grant((Verb.READ,), services)]))


def test_a_principal_sees_what_it_may_read() -> None:
    """Whoever asked before; and another one's ETag is none of a list that differs."""
    world = World(Policy("on"))
    for name in NAMES:
        world.change(name, endpoint(1, name))
    request = ServicesRequest()
    every, shops, carts = reader("*"), reader("shop*"), reader("cart")
    for principal, prefix in ((every, ""), (shops, "shop"), (carts, "cart"), (shops, "shop")):
        document = world.get(request, principal)
        assert document.body == world.expected(request, lambda name, prefix=prefix: name.startswith(prefix))
    assert len({world.get(request, each).etag for each in (every, shops, carts)}) == 3
    targets = [len(msgspec.json.decode(world.get(TargetsRequest(), each).body)) for each in (every, shops, carts)]
    assert targets == [3, 2, 1]
    refused: list[tuple[Principal, ListRequest]] = [
        (carts, ServiceRequest("shop")),
        (carts, EndpointsRequest("shop")),
        (carts, TargetsRequest(("cart", "shop"))),
        (reader(), request),
        (ANYBODY, request),
    ]
    for principal, forbidden in refused:
        assert world.lists.known(principal, forbidden) is None


async def test_what_is_refused_is_an_error_of_the_route() -> None:
    """As is what is not known, and a cursor that no page gave, in this order."""
    world = World(Policy("on"))
    world.change("shop", endpoint(1))
    with pytest.raises(NotAllowedError):
        await world.lists.answer(reader("cart"), EndpointsRequest("shop", cursor="no"))
    with pytest.raises(UnknownServiceError):
        await world.lists.answer(reader("*"), EndpointsRequest("nowhere", cursor="no"))
    for request in (EndpointsRequest("shop", cursor="no"), ServicesRequest(cursor="no")):
        with pytest.raises(InvalidError):
            await world.lists.answer(reader("*"), request)
        assert world.lists.known(reader("*"), request) is None


def test_nothing_is_known_before_the_first_reading() -> None:
    """An empty list of targets would drop every target of Prometheus."""
    front = MemoryFront({})
    lists = Lists(front.process.catalog)
    assert lists.known(ANYBODY, TargetsRequest()) is not None
    front.process.cache.set_database("another")
    assert lists.known(ANYBODY, TargetsRequest()) is None


def test_conditions_hold_for_the_document_that_is_held() -> None:
    """A 304 has the ETag and no body."""
    world = World()
    world.change("shop", endpoint(1))
    document = world.get(ServiceRequest("shop"))
    unchanged = document.represented_for(Conditions(document.etag))
    assert (unchanged.status, unchanged.body, dict(unchanged.headers)[b"etag"]) == (304, b"", document.etag)
    world.change("shop", endpoint(2))
    assert world.get(ServiceRequest("shop")).represented_for(Conditions(document.etag)).status == 200
