"""Lost endpoints and expected numbers: pure rules, and what the changeset makes of them over any history."""

from collections.abc import Callable
from typing import Any

import pytest
from harness.examples import examples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration

from registry.core.changeset import LAPSED, TAKEN_AWAY, Changeset
from registry.core.endpoint import Endpoint, Key, Override
from registry.core.presence import (
    MAX_LOST,
    MAX_LOST_AGE,
    Presence,
    is_lost,
    loss_in_words,
    pair,
    presence_of,
    spare_for,
    tally,
)
from registry.core.snapshot import Snapshot, SnapshotDelta
from wire.model import Report

TTL = 20.0
LATER = NOW + 100
DRAIN = Override(weight=None, drain=True, actor="anna", reason="", set_at=NOW, expires_at=None)

lost_rows = st.lists(
    st.builds(
        lambda number, instance, age: endpoint(
            number, stored=registration(instance), lapsed_at=NOW, removed_at=NOW, lost_at=NOW - age
        ),
        st.integers(1, 30),
        st.sampled_from(["a", "b", "c", "d"]),
        st.floats(-10, MAX_LOST_AGE * 1.1),
    ),
    max_size=6,
    unique_by=lambda row: row.id,
)
new_rows = st.lists(
    st.builds(
        lambda number, instance: endpoint(number, stored=registration(instance)),
        st.integers(1, 40),
        st.sampled_from(["a", "b", "x", "y"]),
    ),
    max_size=6,
    unique_by=lambda row: row.id,
)


@given(new_rows, lost_rows)
@examples(200)
def test_a_place_is_filled_once_and_by_its_own_return_first(entered: list[Endpoint], lost: list[Endpoint]) -> None:
    """Each new endpoint fills at most one place, none stays open that could be filled, and the oldest come first."""
    filled, spare = pair(entered, lost, NOW)
    positions, places = [position for position, _ in filled], [row.id for _, row in filled]
    assert sorted([*positions, *spare]) == list(range(len(entered)))
    assert len(set(places)) == len(places)
    open_places = [row for row in lost if is_lost(row, NOW) and row.id not in places]
    assert not (open_places and spare)
    assert all(is_lost(row, NOW) for _, row in filled)
    for row in open_places:
        assert row.key not in {new.key for new in entered}, "its own address returned"
    for position, row in filled:
        own = row.key == entered[position].key or row.registration.instance_id == (
            entered[position].registration.instance_id
        )
        older = [other for other in open_places if (other.lost_at, other.id) < (row.lost_at, row.id)]
        assert own or not older, "the oldest loss first"


@given(st.lists(st.sampled_from(["good", "sick", "silent", "drained", "overridden", "left", "lapsed"])), lost_rows)
@examples(200)
def test_the_observed_number_is_what_stays_and_what_was_lost(states: list[str], lost: list[Endpoint]) -> None:
    """Silent ones are expected and not present; what leaves on purpose is neither."""
    made: dict[str, dict[str, Any]] = {
        "good": {},
        "sick": {"stored": registration(health=Report.UNHEALTHY)},
        "silent": {"suspect_since": NOW},
        "drained": {"stored": registration(draining=True)},
        "overridden": {"override": DRAIN},
        "left": {"leaving_at": NOW},
        "lapsed": {"lapsed_at": NOW},
    }
    listed = tally(endpoint(number, **made[state]) for number, state in enumerate(states, start=1))
    presence = presence_of(listed, lost, None, NOW, {})
    assert presence.present == states.count("good") + states.count("sick")
    assert presence.expected == presence.present + states.count("silent") + len(presence.lost)
    assert len(presence.lost) == sum(is_lost(row, NOW) for row in lost)
    assert (presence.source, presence.missing) == ("observed", presence.expected - presence.present)
    by_operator = presence_of(listed, lost, 3, NOW, {})
    assert (by_operator.expected, by_operator.source) == (3, "operator")
    assert by_operator.missing == max(0, 3 - presence.present)


def test_the_newest_registration_that_names_a_number_counts() -> None:
    """Old and new endpoints of a deploy may differ; when all are lost, what they had said still counts."""
    rows = [
        endpoint(1, stored=registration(expected=3)),
        endpoint(2, stored=registration(expected=5), registered_at=NOW + 1),
        endpoint(3, stored=registration()),
        endpoint(4, stored=registration(expected=9), leaving_at=NOW, registered_at=NOW + 2),
    ]
    assert presence_of(tally(rows), (), None, NOW, {}).expected == 5
    assert presence_of(tally(rows), (), None, NOW, {}).source == "registration"
    gone = [replace(row, lapsed_at=NOW, lost_at=NOW) for row in rows[:2]]
    assert presence_of(tally([]), gone, None, NOW, {}).expected == 5
    assert presence_of(tally([]), gone, None, NOW + MAX_LOST_AGE, {}) == Presence(0, 0, "observed", [])


def test_a_clock_that_was_set_back_makes_nothing_strange() -> None:
    """A loss that lies ahead is still a loss, from just now."""
    row = endpoint(1, lapsed_at=NOW, lost_at=NOW, lost_reason=LAPSED)
    assert is_lost(row, NOW - 7200)
    assert loss_in_words(row, NOW - 7200) == f"gone 0s ago, was HEALTHY, {LAPSED}"
    assert loss_in_words(row, NOW + 725) == f"gone 12m5s ago, was HEALTHY, {LAPSED}"
    assert loss_in_words(endpoint(1), NOW) == ""


def test_only_a_newer_endpoint_that_serves_has_filled_a_place() -> None:
    """One that came before the silence, drains, is silent itself, or has filled a place already has not."""
    lapsing = endpoint(1)
    others = [
        endpoint(2),
        endpoint(3, spare_since=NOW - 1),
        endpoint(4, spare_since=NOW + 1, suspect_since=NOW + 2),
        endpoint(5, spare_since=NOW + 1, stored=registration(draining=True)),
        endpoint(6, spare_since=NOW + 1, lapsed_at=NOW + 2),
        replace(lapsing, spare_since=NOW + 1),
    ]
    assert spare_for(lapsing, NOW, others) is None
    newer, newest = endpoint(7, spare_since=NOW + 5), endpoint(8, spare_since=NOW + 9)
    assert spare_for(lapsing, NOW, [*others, newest, newer]) == newer


def key_of(row: Endpoint) -> Key:
    """Return its key, for reading."""
    return row.key


def lapsed(*rows: Endpoint, at: float = LATER, which: int = 0) -> Changeset:
    """Return a changeset in which one of the rows has lapsed."""
    opened = Changeset(at, rows)
    opened.lapse(key_of(rows[which]), at - 1)
    return opened


@pytest.mark.parametrize(
    ("fields", "loss"),
    [
        ({}, True),
        ({"suspect_since": NOW, "suspect_reason": "x"}, True),
        ({"stored": registration(health=Report.UNHEALTHY)}, True),
        ({"stored": registration(draining=True)}, False),
        ({"override": DRAIN}, False),
    ],
)
def test_a_lapse_is_a_loss_unless_something_took_it_out_before(fields: dict[str, Any], loss: bool) -> None:
    """The row says so in the transaction that lets it lapse, and keeps it when it is removed."""
    opened = lapsed(endpoint(1, **fields))
    (entry,) = opened.changed()
    assert (entry.after.lost_at == LATER, entry.after.lost_reason) == (loss, LAPSED if loss else "")
    assert ("it was drained before" in opened.events[0].reason) is not loss
    opened.remove(entry.after.key)
    assert (entry.after.lost_at == LATER, entry.after.removed_at) == (loss, LATER)


def test_what_returns_is_not_lost() -> None:
    """By its next heartbeat while it is listed, by a newer incarnation, and when it says that it leaves."""
    row = next(iter(lapsed(endpoint(1)).changed())).after
    acts: tuple[Callable[[Changeset], object], ...] = (
        lambda opened: opened.register(row.key, row.registration, "x"),
        lambda opened: opened.register(row.key, replace(row.registration, incarnation=2), "x"),
        lambda opened: opened.drain(row.key, None, None, "x"),
        lambda opened: opened.deregister(row.key, None, None, "x"),
        lambda opened: opened.deregister_by_operator(row.key, "gone", "anna"),
    )
    for act in acts:
        opened = Changeset(LATER + 1, [row])
        act(opened)
        assert opened.all_listed()[0].lost_at is None


def test_a_replacement_that_came_while_the_guard_kept_the_dead_one() -> None:
    """It fills the place in the moment of the loss, and only one of them."""
    dead, other = endpoint(1, suspect_since=NOW), endpoint(2, suspect_since=NOW)
    new = endpoint(3, spare_since=LATER - 10)
    opened = lapsed(dead, other, new)
    assert "10.0.0.4:80 of instance i-3 has filled its place" in opened.events[0].reason
    opened.lapse(other.key, LATER - 1)
    after = {entry.after.id: entry.after for entry in opened.changed()}
    assert (after[1].lost_at, after[2].lost_at, after[3].spare_since) == (None, LATER, None)


def test_a_successor_at_the_same_address_is_not_one_more() -> None:
    """A deploy in place fills no place of another's; the successor of a lost endpoint fills that."""
    lost = endpoint(1, lapsed_at=NOW, removed_at=NOW, lost_at=NOW)
    for before in (endpoint(2), endpoint(2, leaving_at=NOW), endpoint(2, leaving_at=NOW, removed_at=NOW)):
        opened = Changeset(LATER, [before])
        opened.register(before.key, registration("next"), "x")
        opened.fill_places([lost])
        assert opened.gained == []
    opened = Changeset(LATER, [lost])
    opened.register(lost.key, registration("next"), "x")
    opened.fill_places([lost])
    assert [entry.after.lost_at for entry in opened.changed()] == [None, None]
    assert [event.kind for event in opened.events] == ["registered"]


def test_a_place_that_another_fills_is_an_event_of_the_lost_one() -> None:
    """The history of the lost endpoint says what has taken its place."""
    lost = endpoint(1, lapsed_at=NOW, removed_at=NOW, lost_at=NOW)
    opened = Changeset(LATER, [])
    opened.register(endpoint(2).key, registration("i-2"), "x")
    opened.fill_places([lost])
    event = opened.events[-1]
    assert (event.kind, event.address, event.status) == ("replaced", lost.address, "REMOVED")
    assert event.reason == "10.0.0.3:80 of instance i-2 fills its place"
    assert all(entry.after.spare_since is None for entry in opened.changed())


def test_a_silent_endpoint_whose_address_is_given_away_is_lost() -> None:
    """One that renews has moved to the other service; one that is silent was never replaced."""
    for silent in (True, False):
        row = endpoint(1, suspect_since=NOW if silent else None)
        opened = Changeset(LATER, [row])
        opened.register(("cart", row.address, row.port), registration("other"), "x")
        (before,) = [entry.after for entry in opened.changed() if entry.after.service == "shop"]
        assert (before.lost_at == LATER, before.lost_reason) == (silent, TAKEN_AWAY if silent else "")


def test_losses_are_acknowledged_by_name_or_all() -> None:
    """With their operator and reason; what is not lost is not acknowledged."""
    rows = [endpoint(number, lapsed_at=NOW, removed_at=NOW, lost_at=NOW) for number in (1, 2, 3)]
    opened = Changeset(LATER, [*rows, endpoint(4)])
    assert opened.acknowledge({rows[0].key, endpoint(4).key}, "anna", "scaled in") == [rows[0]]
    assert (opened.events[0].kind, opened.events[0].actor) == ("lost_acknowledged", "anna")
    assert opened.events[0].reason == "the loss was acknowledged: scaled in"
    assert opened.acknowledge(None, "anna", "") == rows[1:]
    assert opened.acknowledge(None, "anna", "") == []


def test_lost_endpoints_of_one_service_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a lapse is in the history alone."""
    assert MAX_LOST == 10_000
    monkeypatch.setattr("registry.core.changeset.MAX_LOST", 2)
    rows = [endpoint(number) for number in (1, 2, 3)]
    opened = Changeset(LATER, rows)
    for row in rows:
        opened.lapse(row.key, LATER - 1)
    assert [entry.after.lost_at for entry in opened.changed()] == [LATER, LATER, None]


def test_a_drain_that_a_new_incarnation_ends_names_its_actor() -> None:
    """Whoever asked for it, and when."""
    opened = Changeset(LATER, [endpoint(1)])
    drained = opened.drain(endpoint(1).key, None, None, "anna from 10.0.0.9")
    opened = Changeset(LATER + 60, [drained])
    back = opened.register(drained.key, replace(registration("i-1"), incarnation=2), "x")
    reason = opened.events[0].reason
    assert reason.startswith("incarnation 2 of the same instance; this ends the drain by anna from 10.0.0.9 at 1970-")
    assert back.drained_by == ""


def test_a_snapshot_follows_losses() -> None:
    """A delta adds and ends losses by the rows that it names; a whole reading replaces all."""
    rows = [endpoint(number, lapsed_at=NOW, lost_at=NOW) for number in (1, 2)]
    first = Snapshot("shop").advance(
        SnapshotDelta("shop", 1, 1, listed=rows, lost=rows, expected=4, expected_by="anna")
    )
    assert set(first.lost) == {1, 2}
    gone = replace(rows[0], removed_at=NOW)
    second = first.advance(
        SnapshotDelta("shop", 2, 2, removed=[((gone.address, gone.port), 1)], lost=[gone], expected=4)
    )
    assert second.lost == {1: gone, 2: rows[1]}
    assert second.presence(NOW, {}).expected == 4
    third = second.advance(SnapshotDelta("shop", 2, 3, removed=[((gone.address, gone.port), 1)]))
    assert (set(third.lost), third.expected) == ({2}, None)
    assert third.advance(SnapshotDelta("shop", 2, 4, listed=[endpoint(3)], whole=True)).lost == {}


class Fleet(RuleBasedStateMachine):
    """A service whose endpoints come, die, restart and leave, each in a transaction of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.rows: dict[int, Endpoint] = {}
        self.number = 0

    def commit(self, changeset: Changeset) -> None:
        """Store what changed, as the store does."""
        if changeset.gained:
            changeset.fill_places([row for row in self.rows.values() if row.lost_at is not None])
        for entry in changeset.changed():
            if not entry.after.id:
                self.number += 1
                entry.stored_as(1000 + self.number)
            self.rows[entry.after.id] = entry.after
        self.now += 100

    def changeset(self) -> Changeset:
        """Open a transaction on all rows."""
        return Changeset(self.now, self.rows.values())

    def listed(self) -> list[Endpoint]:
        """Return the endpoints that serve."""
        return [row for row in self.rows.values() if row.removed_at is None and row.lapsed_at is None]

    @property
    def presence(self) -> Presence:
        """Return the strength now."""
        listed = tally(row for row in self.rows.values() if row.removed_at is None)
        return presence_of(listed, [row for row in self.rows.values() if row.lost_at is not None], None, self.now, {})

    def enter(self) -> None:
        """Register a new instance at a new address."""
        self.number += 1
        changeset = self.changeset()
        changeset.register(endpoint(self.number).key, registration(f"i-{self.number}"), "x")
        self.commit(changeset)

    def leave(self, row: Endpoint) -> None:
        """Deregister, and be removed."""
        changeset = self.changeset()
        changeset.deregister(row.key, None, None, "x")
        changeset.remove(row.key)
        self.commit(changeset)

    @rule()
    def grow(self) -> None:
        """One more, which fills a place if there is one."""
        before = self.presence
        self.enter()
        assert self.presence.expected == before.expected + (not before.lost)
        assert len(self.presence.lost) == max(0, len(before.lost) - 1)

    @precondition(lambda self: self.listed())
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        """Lose one, so that the expected number stays."""
        row, before = data.draw(st.sampled_from(self.listed())), self.presence
        changeset = self.changeset()
        changeset.lapse(row.key, self.now - 1)
        if data.draw(st.booleans()):
            changeset.remove(row.key)
        self.commit(changeset)
        assert (self.presence.expected, len(self.presence.lost)) == (before.expected, len(before.lost) + 1)

    @precondition(lambda self: self.listed())
    @rule(data=st.data())
    def shrink(self, data: st.DataObject) -> None:
        """One leaves on purpose, and is expected no more."""
        before = self.presence
        self.leave(data.draw(st.sampled_from(self.listed())))
        assert self.presence.expected == before.expected - 1
        assert self.presence.lost == before.lost

    @precondition(lambda self: self.listed())
    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """One leaves and comes back to its address, which hides no loss of another."""
        row, before = data.draw(st.sampled_from(self.listed())), self.presence
        self.leave(row)
        changeset = self.changeset()
        newer = replace(row.registration, incarnation=row.registration.incarnation + 1)
        changeset.register(row.key, newer, "x")
        self.commit(changeset)
        assert (self.presence.expected, self.presence.lost) == (before.expected, before.lost)

    @precondition(lambda self: self.listed() and not self.presence.lost)
    @rule()
    def deploy(self) -> None:
        """All are replaced by new instances at new addresses, which is no loss."""
        before, old = self.presence, self.listed()
        for _ in old:
            self.enter()
        for row in old:
            self.leave(row)
        assert (self.presence.expected, self.presence.present) == (before.expected, before.present)

    @precondition(lambda self: self.presence.lost)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """A lost one comes back, and is the one that is found."""
        row, before = data.draw(st.sampled_from(self.presence.lost)), self.presence
        changeset = self.changeset()
        changeset.register(row.key, row.registration, "x")
        self.commit(changeset)
        assert row.id not in {lost.id for lost in self.presence.lost}
        assert self.presence.expected == before.expected

    @invariant()
    def nothing_leaves_on_purpose_and_is_lost(self) -> None:
        """Who drained or deregistered is never among the lost."""
        assert not any(row.lost_at is not None and row.leaving_at is not None for row in self.rows.values())
        assert self.presence.missing == len(self.presence.lost)


TestFleet = Fleet.TestCase
TestFleet.settings = examples(50, stateful_step_count=20)
