"""A large service under shares: what a change looks at, and in how many turns it is made and encoded."""

from collections.abc import Generator
from typing import TypeVar

from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.shares import Share, Shares
from registry.core.snapshot import Snapshot, SnapshotDelta
from registry.xds import eds
from registry.xds.grpc.assignment import AssignmentSource, Variant
from registry.xds.resources import ENDPOINTS as ENDPOINTS_TYPE
from registry.xds.resources import Api, RestPath
from wire.model import Report
from wire.node import ANONYMOUS

Result = TypeVar("Result")

_VARIANTS: tuple[Variant, ...] = ("envoy", "grpc")
ENDPOINTS = 5_000
BY_5 = Shares((Share("revision=b", 5.0),), "anna", "", NOW)
BY_25 = Shares((Share("revision=b", 25.0),), "anna", "", NOW)


def listed(number: int) -> Endpoint:
    """Return an endpoint; each hundredth is of the next revision."""
    stored = registration(f"i-{number}", revision="a" if number % 100 else "b", zone="abc"[number % 3])
    return replace(endpoint(number, stored=stored), address=f"10.0.{number >> 8}.{number & 255}")


def turns_of(work: Generator[None, None, Result]) -> tuple[int, Result]:
    """Return after how many interruptions a work ends, and its result."""
    turns = 0
    while True:
        try:
            next(work)
        except StopIteration as done:
            return turns, done.value
        turns += 1


def served(shares: Shares = BY_5) -> Snapshot:
    """Return a service that was asked for."""
    rows = [listed(number) for number in range(1, ENDPOINTS + 1)]
    snapshot = Snapshot("shop").advance(SnapshotDelta("shop", 1, 1, listed=rows, whole=True, shares=shares))
    ask(snapshot, "v3")
    return snapshot


def ask(snapshot: Snapshot, api: Api) -> None:
    """Ask for a service as a poll does."""
    eds.Assignment(snapshot.version, snapshot, "db").response(RestPath(ENDPOINTS_TYPE, api))


def anew(snapshot: Snapshot) -> bytes:
    """Return the answer of a process that reads the service now."""
    rows = [replace(each, share_weight=None) for each in snapshot.ordered()]
    delta = SnapshotDelta("shop", snapshot.version, snapshot.change, listed=rows, whole=True, shares=snapshot.shares)
    return eds.encode("v3", Snapshot("shop").advance(delta), "db").body


def test_a_change_of_one_endpoint_looks_at_no_other() -> None:
    """As rounded weights stay, all others are the same objects, made in one turn."""
    before = served()
    row = listed(7)
    row = replace(row, change=2, registration=replace(row.registration, health=Report.UNHEALTHY))
    turns, after = turns_of(before.advance_in_turns(SnapshotDelta("shop", 2, 2, listed=[row], shares=BY_5)))
    assert turns == 0
    others = [each for key, each in after.endpoints.items() if each is not before.endpoints[key]]
    assert [each.id for each in others] == [7]
    turns_of(eds.prepare(after, "db"))
    assert after.encoded["v3"].body == anew(after)


def test_a_service_that_is_read_whole_is_made_in_turns() -> None:
    """With shares and without: the rows, their groups and their weights; and so is one whose endpoints all leave."""
    rows = [listed(number) for number in range(1, ENDPOINTS + 1)]
    for shares, passes in ((None, 1), (BY_5, 3)):
        delta = SnapshotDelta("shop", 1, 1, listed=rows, whole=True, shares=shares)
        turns, snapshot = turns_of(Snapshot("shop").advance_in_turns(delta))
        assert turns >= passes * (ENDPOINTS // 100)
        removed = [(each.key[1:], each.id) for each in rows]
        turns, empty = turns_of(snapshot.advance_in_turns(SnapshotDelta("shop", 2, 2, removed=removed, shares=shares)))
        assert turns >= ENDPOINTS // 100
        assert (len(snapshot.endpoints), len(empty.endpoints)) == (ENDPOINTS, 0)


def test_new_weights_of_all_are_made_and_encoded_in_turns() -> None:
    """Before anybody asks, and to the same bytes as a process has that reads the service now."""
    turns, after = turns_of(served().advance_in_turns(SnapshotDelta("shop", 2, 2, shares=BY_25)))
    assert turns >= ENDPOINTS // 100 - 1
    turns, _ = turns_of(eds.prepare(after, "db"))
    assert turns >= ENDPOINTS // 100 - 1
    assert after.encoded["v3"].body == anew(after)
    assert sum(each.weight or 0 for each in after.endpoints.values() if each.registration.revision == "b") == 250_000


def test_a_service_that_nobody_asked_for_is_not_encoded() -> None:
    """Nor is a small one, before it is asked for."""
    snapshot = served()
    snapshot.encoded.clear()
    after = snapshot.advance(SnapshotDelta("shop", 2, 2, shares=BY_25))
    assert turns_of(eds.prepare(after, "db"))[0] == 0
    assert not after.encoded


def test_what_nobody_asks_for_any_more_is_not_encoded() -> None:
    """One poll of v2, and one stream, cost later changes nothing; what is asked for is encoded ahead for ever."""
    cache, snapshot = SnapshotCache(), served()
    ask(snapshot, "v2")
    cache.restore("db", {"shop": snapshot})
    AssignmentSource(cache, "grpc").find(ANONYMOUS, "shop")
    for version in range(2, 25):
        rows = [replace(snapshot.endpoints[listed(7).key[1:]], change=version)]
        snapshot = snapshot.advance(SnapshotDelta("shop", version, version, listed=rows, shares=BY_5))
        turns_of(eds.prepare(snapshot, "db"))
        assert set(snapshot.encoded) | set(snapshot.streamed) == ({"v2", "v3", "grpc"} if version <= 21 else {"v3"})
        ask(snapshot, "v3")


def test_streams_get_the_same_bytes_when_they_are_made_in_turns() -> None:
    """In both variants that were asked for, before they are asked for again."""
    before = served()
    caches = (SnapshotCache(), SnapshotCache())
    sources = [{variant: AssignmentSource(cache, variant) for variant in _VARIANTS} for cache in caches]
    caches[0].restore("db", {"shop": before})
    for source in sources[0].values():
        source.find(ANONYMOUS, "shop")
    after = before.advance(SnapshotDelta("shop", 2, 2, shares=BY_25))
    turns, _ = turns_of(eds.prepare(after, "db"))
    assert turns >= 3 * (ENDPOINTS // 100 - 1)
    assert set(after.streamed) == set(_VARIANTS)
    rows = [replace(each, share_weight=None) for each in after.ordered()]
    read_now = Snapshot("shop").advance(SnapshotDelta("shop", 2, 2, listed=rows, whole=True, shares=BY_25))
    caches[1].restore("db", {"shop": read_now})
    for variant, source in sources[1].items():
        assert source.find(ANONYMOUS, "shop") == after.streamed[variant].resource
