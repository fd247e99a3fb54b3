"""Snapshots that grow by steps."""

from array import array
from collections import Counter
from random import Random
from typing import Any

from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration, snapshot

from registry.core.endpoint import Endpoint, Quarantined
from registry.core.endpoint_table import AddressPort
from registry.core.snapshot import Snapshot, SnapshotDelta
from registry.xds.eds import Assignment, EncodedAssignment, encode, resource
from registry.xds.resources import ENDPOINTS, Api, RestPath

PLACES = 3
APIS: list[Api] = ["v2", "v3"]


class Service:
    """A service in the database: its rows with the change that each was written by."""

    def __init__(self) -> None:
        self.version = self.change = self.floor = 0
        self.rows: dict[int, tuple[Endpoint, int]] = {}

    def write(self, *rows: Endpoint, visible: bool = True) -> None:
        """Commit rows in one change."""
        self.change += 1
        self.version += visible
        self.rows |= {row.id: (row, self.change) for row in rows}

    def prune(self) -> None:
        """Forget the tombstones."""
        gone = {number: change for number, (row, change) in self.rows.items() if row.removed_at is not None}
        self.floor = max(self.floor, *gone.values(), 0)
        self.rows = {number: row for number, row in self.rows.items() if number not in gone}

    def step(self, since: int) -> SnapshotDelta:
        """Return what became of the service since a change, as the feed reads it."""
        whole = since < self.floor or since == 0
        changed = [row for row, change in self.rows.values() if whole or change > since]
        return SnapshotDelta(
            "shop",
            self.version,
            self.change,
            listed=[row for row in changed if row.removed_at is None],
            removed=[((row.address, row.port), row.id) for row in changed if row.removed_at is not None and not whole],
            whole=whole,
        )

    def content(self) -> dict[AddressPort, Endpoint]:
        """Return what is listed."""
        return {(row.address, row.port): row for row, _ in self.rows.values() if row.removed_at is None}


def apply(steps: list[SnapshotDelta]) -> Snapshot:
    """Return the snapshot after steps, in their order."""
    reached = Snapshot("shop")
    for step in steps:
        reached = reached.advance(step)
    return reached


operations = st.lists(
    st.tuples(st.sampled_from(["enter", "change", "remove", "replace", "prune"]), st.integers(1, PLACES)),
    min_size=1,
    max_size=14,
)


def perform(service: Service, operation: str, number: int, serial: int) -> None:
    """Let something happen at one of the places."""
    at = endpoint(number)
    current = service.content().get((at.address, at.port))
    if operation == "prune":
        service.prune()
    elif current is None and operation in ("enter", "replace"):
        service.write(replace(at, id=serial, registration=registration(f"i-{serial}")))
    elif current is not None and operation == "change":
        changed = replace(current.registration, detail=str(serial))
        service.write(replace(current, registration=changed), visible=False)
    elif current is not None and operation == "remove":
        service.write(replace(current, removed_at=1.0))
    elif current is not None and operation == "replace":
        successor = replace(at, id=serial, registration=registration(f"i-{serial}"))
        service.write(replace(current, removed_at=1.0), successor)


@examples(150)
@given(operations, st.data())
def test_every_reader_arrives_at_the_same(done: list[tuple[str, int]], data: st.DataObject) -> None:
    """Whichever steps a reader took, and from whenever on, it ends with what a reader of everything has."""
    service = Service()
    reached = Snapshot("shop")
    for serial, (operation, number) in enumerate(done, 100):
        perform(service, operation, number, serial)
        if data.draw(st.booleans()):
            reached = reached.advance(service.step(reached.change))
    reached = reached.advance(service.step(reached.change))
    assert reached.endpoints == service.content()
    assert (reached.version, reached.change) == (service.version, service.change)
    assert reached.counts == Counter(row.status.value for row in reached.endpoints.values())


@examples(150)
@given(operations, st.randoms())
def test_whole_steps_converge_in_any_order(done: list[tuple[str, int]], random: Random) -> None:
    """Readings that overtake one another, or come twice, end with the newest, and never go back on the way."""
    service = Service()
    steps = []
    for serial, (operation, number) in enumerate(done, 100):
        perform(service, operation, number, serial)
        steps.append(service.step(0))
    random.shuffle(steps)
    reached = Snapshot("shop")
    for step in steps * 2:
        following = reached.advance(step)
        assert (following.version, following.change) >= (reached.version, reached.change)
        reached = following
    assert reached.endpoints == service.content()


@examples(100)
@given(operations, st.data())
def test_duplicates_and_latecomers_change_nothing(done: list[tuple[str, int]], data: st.DataObject) -> None:
    """A step that is not newer leaves the very snapshot in place."""
    service = Service()
    reached, taken = Snapshot("shop"), []
    for serial, (operation, number) in enumerate(done, 100):
        perform(service, operation, number, serial)
        taken.append(service.step(reached.change))
        reached = reached.advance(taken[-1])
        late = data.draw(st.sampled_from(taken))
        assert reached.advance(late) is reached


def test_the_next_owner_of_an_address_survives_a_late_removal() -> None:
    """A removal names the endpoint, not only its address."""
    old = endpoint(1)
    new = replace(old, id=9, registration=registration("i-9"))
    place = (old.address, old.port)
    begun = snapshot(new, version=2, change=2)
    after = begun.advance(SnapshotDelta("shop", 3, 3, removed=[(place, old.id)]))
    assert dict(after.endpoints) == {place: new}


def test_a_takeover_within_one_step_lists_the_new_owner() -> None:
    """Departure and arrival at one address come together."""
    old = endpoint(1)
    new = replace(old, id=9, registration=registration("i-9"))
    place = (old.address, old.port)
    after = snapshot(old).advance(SnapshotDelta("shop", 2, 2, listed=[new], removed=[(place, old.id)]))
    assert dict(after.endpoints) == {place: new}


def test_a_snapshot_is_never_changed() -> None:
    """Who holds the old one goes on reading the old one."""
    begun = snapshot(endpoint(1))
    after = begun.advance(SnapshotDelta("shop", 2, 2, listed=[endpoint(2)], removed=[(("10.0.0.2", 80), 1)]))
    assert [row.id for row in begun.ordered()] == [1]
    assert [row.id for row in after.ordered()] == [2]


def spoilt(number: int) -> Quarantined:
    """Return the endpoint of this number as one that must be kept out."""
    at = endpoint(number)
    return Quarantined(at.id, at.service, at.address, at.port, "weight 0 is not from 1 to 10000")


def test_a_spoilt_endpoint_is_kept_out_and_shown() -> None:
    """It leaves the answers, alone, and stands beside them until it is mended or removed."""
    begun = snapshot(endpoint(1), endpoint(2))
    kept_out = begun.advance(SnapshotDelta("shop", 2, 2, quarantined=[spoilt(1)]))
    assert [row.id for row in kept_out.ordered()] == [2]
    assert dict(kept_out.quarantined) == {("10.0.0.2", 80): spoilt(1)}
    assert (begun.quarantined, len(begun.endpoints)) == ({}, 2)
    mended = kept_out.advance(SnapshotDelta("shop", 3, 3, listed=[endpoint(1)]))
    assert ([row.id for row in mended.ordered()], mended.quarantined) == ([1, 2], {})
    removed = kept_out.advance(SnapshotDelta("shop", 3, 3, removed=[(("10.0.0.2", 80), 1)]))
    assert ([row.id for row in removed.ordered()], removed.quarantined) == ([2], {})
    replaced = replace(endpoint(1), id=9)
    after = kept_out.advance(SnapshotDelta("shop", 3, 3, listed=[replaced], removed=[(("10.0.0.2", 80), 1)]))
    assert ([row.id for row in after.ordered()], after.quarantined) == ([2, 9], {})


def test_a_whole_step_forgets_who_was_kept_out() -> None:
    """And brings who is to be kept out now."""
    kept_out = snapshot(endpoint(2)).advance(SnapshotDelta("shop", 2, 2, quarantined=[spoilt(1)]))
    assert kept_out.advance(SnapshotDelta("shop", 3, 3, listed=[endpoint(2)], whole=True)).quarantined == {}
    again = kept_out.advance(SnapshotDelta("shop", 3, 3, quarantined=[spoilt(2)], whole=True))
    assert (dict(again.quarantined), dict(again.endpoints)) == ({("10.0.0.3", 80): spoilt(2)}, {})


ENCODED = EncodedAssignment(200, b"3", "database:1", database_id="database", cuts=array("I"))


def kept(version: int, **step: Any) -> dict[str, EncodedAssignment]:
    """Return which answers a snapshot of version 1 hands on to the one of ``version``."""
    begun = snapshot(endpoint(1))
    begun.encoded["v3"] = ENCODED
    return begun.advance(SnapshotDelta("shop", version, 2, **step)).encoded


def test_answers_to_envoys_stand_while_the_version_does() -> None:
    """A change that no Envoy can see costs no encoding; others encode anew."""
    assert kept(1) == {"v3": ENCODED}
    assert kept(2) == {}
    assert kept(1, whole=True) == {}


@examples(150)
@given(operations, st.data())
def test_an_answer_does_not_depend_on_the_one_before(done: list[tuple[str, int]], data: st.DataObject) -> None:
    """What is copied from the former answer is what would be encoded anew, whichever snapshots were asked for."""
    service = Service()
    reached = Snapshot("shop")
    for serial, (operation, number) in enumerate(done, 100):
        perform(service, operation, number, serial)
        reached = reached.advance(service.step(reached.change))
        for api in data.draw(st.sets(st.sampled_from(APIS))):
            fresh = Snapshot("shop", reached.version, reached.change, reached.endpoints)
            kept = Assignment(reached.version, reached, "database").response(RestPath(ENDPOINTS, api))
            assert kept.body == encode(api, fresh, "database").body
            assert resource(api, reached) == resource(api, fresh)


def test_one_former_answer_is_kept_at_most() -> None:
    """Until the new one is encoded; however many changes nobody asks about, memory does not follow."""
    first = snapshot(endpoint(1))
    encode("v3", first, "database")
    later = first.advance(SnapshotDelta("shop", 2, 2, listed=[endpoint(2)])).advance(
        SnapshotDelta("shop", 3, 3, listed=[endpoint(3)])
    )
    assert later.former is first
    encode("v3", later, "database")
    assert later.former is None


def test_endpoints_are_counted_by_what_is_published() -> None:
    """For the metrics and the catalogue."""
    gone = endpoint(3, lapsed_at=NOW)
    begun = Snapshot("shop").advance(SnapshotDelta("shop", 1, 1, listed=[endpoint(1), endpoint(2), gone]))
    assert begun.counts == {"HEALTHY": 2, "TIMEOUT": 1}


def test_the_order_is_that_of_the_ids() -> None:
    """All processes agree on it, whatever order their rows came in."""
    assert [row.id for row in snapshot(endpoint(3), endpoint(1), endpoint(2)).ordered()] == [1, 2, 3]
