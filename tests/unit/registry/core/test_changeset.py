"""The rules of registration, ownership and departure, case by case."""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration

from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key, Override
from registry.core.override_change import OverrideChange
from registry.errors import FencedError, InadmissibleError, NotFoundError
from wire.model import Health, Report

KEY = ("shop", "10.0.0.2", 80)
LATER = NOW + 100
WEIGHT = Override(weight=5, drain=False, actor="anna", reason="hot", set_at=NOW, expires_at=None)
FOR_I_2 = Override(weight=5, drain=False, actor="anna", reason="hot", set_at=NOW, expires_at=None, instance_id="i-2")
DRAIN = Override(weight=None, drain=True, actor="anna", reason="", set_at=NOW, expires_at=LATER)


def changeset(*rows: Endpoint, now: float = LATER, kept: Mapping[Key, Override] | None = None) -> Changeset:
    """Open a changeset a while after its rows were written."""
    return Changeset(now, rows, kept)


def set_by(parts: str, reason: str = "no reason given") -> str:
    """Return how an event says what Anna had set."""
    return f"anna set {parts} at {dt.datetime.fromtimestamp(NOW, dt.UTC).isoformat(timespec='seconds')}: {reason}"


def kinds(opened: Changeset) -> list[str]:
    """Return what happened, in order."""
    return [event.kind for event in opened.events]


def test_a_first_registration_enters_an_endpoint() -> None:
    """It is listed as told, holds a lease, and its history begins."""
    opened = changeset()
    entered = opened.register(KEY, registration("i-1", weight=3), "10.0.0.9")
    assert (entered.status, entered.weight, entered.registered_at) == (Health.HEALTHY, 3, LATER)
    assert opened.listed(KEY) == entered
    assert [entry.after for entry in opened.granted()] == [entered]
    (event,) = opened.events
    assert (event.kind, event.actor, event.status) == ("registered", "10.0.0.9", "HEALTHY")


def test_the_same_again_changes_nothing_and_grants() -> None:
    """A heartbeat that says what is known leaves no trace but the lease."""
    row = endpoint(1)
    opened = changeset(row)
    assert opened.register(KEY, row.registration, "x") == row
    assert (list(opened.changed()), opened.events) == ([], [])
    assert len(list(opened.granted())) == 1


@pytest.mark.parametrize(
    ("fields", "kind", "reason", "visible"),
    [
        ({"health": Report.UNHEALTHY, "detail": "503"}, "health", "HEALTHY to UNHEALTHY: 503", True),
        ({"health": Report.DEGRADED}, "health", "HEALTHY to DEGRADED: no detail given", True),
        ({"draining": True}, "drained", "its instance drains", True),
        ({"weight": 7, "zone": "b"}, "changed", "zone, weight", True),
        ({"metadata": {"stage": True}}, "changed", "metadata", True),
        ({"detail": "200 in 3 ms"}, "changed", "detail", False),
        ({"repository": "shop"}, "changed", "repository", False),
        ({"ttl": 30.0}, "changed", "ttl", False),
    ],
)
def test_a_change_is_named(fields: dict[str, Any], kind: str, reason: str, visible: bool) -> None:
    """The history says what changed; whether Envoys hear of it depends on what they could see."""
    opened = changeset(endpoint(1))
    opened.register(KEY, registration("i-1", **fields), "x")
    (event,) = opened.events
    assert (event.kind, event.reason) == (kind, reason)
    (entry,) = opened.changed()
    assert entry.visible is visible


def test_metadata_that_only_python_takes_for_equal_is_a_change() -> None:
    """From 1 to true is a change that Envoys can see."""
    row = endpoint(1, stored=registration("i-1", metadata={"stage": 1}))
    opened = changeset(row)
    opened.register(KEY, registration("i-1", metadata={"stage": True}), "x")
    (entry,) = opened.changed()
    assert entry.visible


def test_a_lapsed_endpoint_returns_with_a_heartbeat() -> None:
    """TIMEOUT ends, and the end of being routable is forgotten."""
    opened = changeset(endpoint(1, lapsed_at=NOW + 50))
    returned = opened.register(KEY, registration("i-1"), "x")
    assert (returned.status, returned.unroutable_at, kinds(opened)) == (Health.HEALTHY, None, ["returned"])


def test_a_drain_is_final_for_its_incarnation() -> None:
    """Later heartbeats of it change nothing; the next incarnation starts afresh."""
    opened = changeset(endpoint(1))
    opened.drain(KEY, "i-1", 1, "x")
    assert opened.register(KEY, registration("i-1"), "x").status is Health.DRAINING
    assert opened.register(KEY, registration("i-1", 2), "x").status is Health.HEALTHY


def test_a_drain_without_names_is_an_operators() -> None:
    """Neither instance nor incarnation has to be known."""
    assert changeset(endpoint(1)).drain(KEY, None, None, "anna").status is Health.DRAINING


@pytest.mark.parametrize("leave", ["drain", "deregister"])
def test_a_drain_may_overtake_the_first_heartbeat_of_its_incarnation(leave: str) -> None:
    """Fault 9: the heartbeat that comes after it, late, brings nothing back."""
    opened = changeset(endpoint(1))
    getattr(opened, leave)(KEY, "i-1", 7, "x")
    assert not changeset_after(opened, lambda next_one: next_one.register(KEY, registration("i-1", 7), "x"))


def changeset_after(opened: Changeset, act: Callable[[Changeset], Endpoint]) -> bool:
    """Tell whether an act in the next transaction is granted and ends routable."""
    following = changeset(*(entry.after for entry in opened.entries), now=LATER + 1)
    try:
        return act(following).routable
    except FencedError:
        return False


@pytest.mark.parametrize("health", [Report.HEALTHY, Report.DEGRADED, Report.UNHEALTHY])
def test_an_unhealthy_endpoint_that_drains_stays_unhealthy(health: Report) -> None:
    """Envoy does not re-evaluate UNHEALTHY to DRAINING."""
    expected = Health.UNHEALTHY if health is Report.UNHEALTHY else Health.DRAINING
    row = endpoint(1, stored=registration("i-1", health=health))
    assert changeset(row).drain(KEY, None, None, "x").status is expected
    assert changeset(row).deregister(KEY, None, None, "x").status is expected
    assert changeset(row).override(KEY, DRAIN, "anna").status is expected


def test_who_deregistered_stays_away() -> None:
    """Its incarnation is refused while it is listed and as a tombstone, a newer one is not."""
    opened = changeset(endpoint(1))
    left = opened.deregister(KEY, "i-1", 1, "x")
    assert (left.status, left.leaving_at) == (Health.DRAINING, LATER)
    assert not list(opened.granted())
    with pytest.raises(FencedError, match=r"incarnation 1 of i-1 has left .* for good") as caught:
        opened.register(KEY, registration("i-1", 1), "x")
    assert (caught.value.owner, caught.value.incarnation) == ("i-1", 1)
    opened.remove(KEY)
    tombstone = changeset(*(entry.after for entry in opened.entries))
    with pytest.raises(FencedError, match="has left"):
        tombstone.register(KEY, registration("i-1", 1), "x")
    assert tombstone.register(KEY, registration("i-1", 2), "x").routable


def test_who_merely_lapsed_comes_back_after_the_removal() -> None:
    """A loss of contact is no departure: the tombstone of a lapsed endpoint refuses nobody."""
    gone = endpoint(1, lapsed_at=NOW, removed_at=NOW + 20)
    assert changeset(gone).register(KEY, registration("i-1", 1), "x").routable


def test_an_older_incarnation_does_not_come_back_after_the_removal() -> None:
    """Its successor merely lapsed; what the older one gave back stays given back."""
    gone = endpoint(1, stored=registration("i-1", 2), lapsed_at=NOW, removed_at=NOW + 20)
    with pytest.raises(FencedError):
        changeset(gone).register(KEY, registration("i-1", 1), "x")
    assert changeset(gone).register(KEY, registration("i-1", 2), "x").routable


def test_who_lapsed_while_draining_does_not_come_back() -> None:
    """Its drain was on purpose."""
    gone = endpoint(1, stored=registration("i-1", draining=True), lapsed_at=NOW, removed_at=NOW + 20)
    with pytest.raises(FencedError):
        changeset(gone).register(KEY, registration("i-1", 1), "x")


def test_leaving_twice_is_not_found() -> None:
    """There is nothing left to give back; with lapsed_too off neither for who lapsed."""
    with pytest.raises(NotFoundError, match="has left already"):
        changeset(endpoint(1, leaving_at=NOW)).deregister(KEY, None, None, "x")
    with pytest.raises(NotFoundError, match="has left already"):
        changeset(endpoint(1, lapsed_at=NOW)).deregister(KEY, None, None, "x", lapsed_too=False)
    assert changeset(endpoint(1, lapsed_at=NOW)).deregister(KEY, None, None, "x").leaving_at == LATER


def test_only_the_owner_leaves() -> None:
    """Another instance or an older incarnation is refused, and told who owns the endpoint."""
    opened = changeset(endpoint(1, stored=registration("i-1", 5)))
    for instance, incarnation in (("i-2", 9), ("i-1", 4)):
        with pytest.raises(FencedError, match=r"incarnation 5 of i-1 owns 10\.0\.0\.2:80") as caught:
            opened.drain(KEY, instance, incarnation, "x")
        assert (caught.value.owner, caught.value.incarnation) == ("i-1", 5)
    with pytest.raises(NotFoundError, match="is not registered for cart"):
        opened.drain(("cart", "10.0.0.2", 80), None, None, "x")


@pytest.mark.parametrize("late", [1, 4])
def test_an_older_incarnation_is_told_which_one_owns(late: int) -> None:
    """Fault 21: of two processes with one instance id the newer wins."""
    opened = changeset(endpoint(1, stored=registration("i-1", 5)))
    with pytest.raises(FencedError, match="incarnation 5 of i-1 owns") as caught:
        opened.register(KEY, registration("i-1", late), "x")
    assert caught.value.incarnation == 5


def test_a_newer_instance_takes_an_address_over() -> None:
    """Fault 20: the old row ends at once, and its owner gets 409; the address has a new owner."""
    opened = changeset(endpoint(1))
    opened.register(KEY, registration("i-2"), "x")
    assert kinds(opened) == ["taken_over", "registered"]
    assert [listed.registration.instance_id for listed in opened.all_listed()] == ["i-2"]
    with pytest.raises(FencedError, match="was taken over by instance i-2") as caught:
        opened.register(KEY, registration("i-1"), "x")
    assert caught.value.owner == "i-2"
    assert opened.register(KEY, registration("i-1", 2), "x").routable


def test_an_address_that_another_service_takes_leaves_in_two_phases() -> None:
    """Nothing replaces it in its old service, so it is published as draining first."""
    opened = changeset(endpoint(1))
    opened.register(("cart", "10.0.0.2", 80), registration("i-2"), "x")
    old = opened.listed(KEY)
    assert old is not None
    assert (old.status, old.leaving_at, kinds(opened)) == (Health.DRAINING, LATER, ["taken_over", "registered"])


SUSPECT = endpoint(1, suspect_since=NOW, suspect_reason="2 of 9 lapsed within 60 s", owner="identity:shop")


def test_another_instance_ends_a_suspect_of_its_service_at_once() -> None:
    """An address has one owner, so that the guard has nothing left to hold; whoever owned it may not object."""
    opened = changeset(SUSPECT)
    opened.register(KEY, registration("i-2"), "x", owner="identity:other")
    assert kinds(opened) == ["taken_over", "registered"]
    assert [(row.registration.instance_id, row.suspect_since) for row in opened.all_listed()] == [("i-2", None)]


def test_another_instance_ends_a_suspect_of_another_service() -> None:
    """It is published as draining, and removed after the delay, guard or not."""
    opened = changeset(SUSPECT)
    opened.register(("cart", "10.0.0.2", 80), registration("i-2"), "x", owner="identity:other")
    old = opened.listed(KEY)
    assert old is not None
    assert (old.status, old.leaving_at, kinds(opened)) == (Health.DRAINING, LATER, ["taken_over", "registered"])


def test_another_port_of_a_suspects_address_says_nothing() -> None:
    """Tasks in bridge and host mode share the address of their machine, so the other port may be another task's."""
    opened = changeset(SUSPECT)
    opened.register(("shop", "10.0.0.2", 81), registration("i-2"), "x")
    assert opened.listed(KEY) == SUSPECT


def test_one_instance_may_serve_several_services_at_one_address() -> None:
    """An address has one owner, not one service."""
    opened = changeset(endpoint(1))
    opened.register(("cart", "10.0.0.2", 80), registration("i-1"), "x")
    assert len([listed for listed in opened.all_listed() if listed.routable]) == 2


def test_clients_without_incarnations_are_never_refused() -> None:
    """The drop-in contracts know no fence: their registration returns who left."""
    opened = changeset(endpoint(1, stored=registration("i-1", 5), leaving_at=NOW))
    returned = opened.register(KEY, registration("i-1", 0), "x", fenced=False)
    assert (returned.status, returned.leaving_at) == (Health.HEALTHY, None)


def test_a_client_without_incarnations_keeps_the_known_one() -> None:
    """Beside a registrar of the same instance it must not open the door to older ones."""
    opened = changeset(endpoint(1, stored=registration("i-1", 5)))
    assert opened.register(KEY, registration("i-1", 0), "x", fenced=False).registration.incarnation == 5


def test_draining_twice_is_one_event() -> None:
    """The second asks for what is already so: it is granted, stores nothing and tells nothing."""
    opened = changeset(endpoint(1))
    first = opened.drain(KEY, "i-1", 1, "x")
    assert opened.drain(KEY, None, None, "anna") == first
    assert kinds(opened) == ["drained"]
    again = changeset(first)
    assert again.drain(KEY, "i-1", 1, "x") == first
    assert (list(again.changed()), again.events) == ([], [])


def test_a_drain_by_a_newer_incarnation_is_an_event_of_its_own() -> None:
    """It says more than the first one: a heartbeat of the newer incarnation that comes late must not undo it."""
    opened = changeset(endpoint(1))
    opened.drain(KEY, "i-1", 1, "x")
    assert opened.drain(KEY, "i-1", 7, "x").registration.incarnation == 7
    assert kinds(opened) == ["drained", "drained"]


def test_an_override_survives_re_registration() -> None:
    """An override is kept for its instance, whichever incarnation of it comes back."""
    opened = changeset(kept={KEY: FOR_I_2})
    back = opened.register(KEY, registration("i-2", 9), "x")
    assert (back.weight, back.override, opened.overrides) == (5, FOR_I_2, {})


def test_an_override_without_an_instance_waits_for_whoever_comes() -> None:
    """Such are those that a registry of the schema before wrote."""
    assert changeset(kept={KEY: WEIGHT}).register(KEY, registration("i-2"), "x").weight == 5


@pytest.mark.parametrize("row", [None, endpoint(1, stored=registration("i-2"), override=FOR_I_2)], ids=["kept", "set"])
def test_an_override_does_not_fall_on_the_next_instance(row: Endpoint | None) -> None:
    """Addresses are given out again: who is given this one starts as it registers, and the override is forgotten."""
    opened = changeset(*([] if row is None else [row]), kept={KEY: FOR_I_2})
    new = opened.register(KEY, registration("i-3", weight=9), "x")
    assert (new.weight, new.override, opened.overrides) == (9, None, {KEY: None})
    following = changeset(*(entry.after for entry in opened.entries), now=LATER + 1)
    assert following.register(KEY, registration("i-2", 2), "x").override is None


def test_an_override_is_of_the_instance_that_owns_the_endpoint() -> None:
    """Whatever its caller wrote there."""
    opened = changeset(endpoint(1))
    set_one = opened.override(KEY, FOR_I_2, "anna").override
    assert set_one is not None
    assert (set_one.instance_id, opened.overrides) == ("i-1", {KEY: set_one})


def test_an_override_that_was_cleared_does_not_come_back_in_the_same_transaction() -> None:
    """Nor is one lost that was set just before its instance came back."""
    opened = changeset(endpoint(1, override=DRAIN), kept={KEY: DRAIN})
    opened.clear_override(KEY, "bert")
    assert opened.register(KEY, registration("i-1", 2), "x").routable
    opened.override(KEY, WEIGHT, "anna")
    assert opened.register(KEY, registration("i-1", 3), "x").weight == 5


def test_an_override_is_described() -> None:
    """The history says what was set and why, and who took it back."""
    opened = changeset(endpoint(1))
    opened.override(KEY, WEIGHT, "anna")
    opened.override(KEY, DRAIN, "anna")
    opened.override(KEY, replace(DRAIN, canary=False), "anna")
    opened.override(KEY, replace(WEIGHT, canary=True), "anna")
    opened.clear_override(KEY, "bert")
    assert [(event.kind, event.reason, event.actor) for event in opened.events] == [
        ("overridden", "weight 5: hot", "anna"),
        ("overridden", "drain", "anna"),
        ("overridden", "no canary, drain", "anna"),
        ("overridden", f"weight 5, canary: hot; this ends the drain: {set_by('no canary, drain')}", "anna"),
        ("override_cleared", f"taken back; {set_by('weight 5, canary', 'hot')}", "bert"),
    ]
    assert opened.overrides == {KEY: None}
    with pytest.raises(NotFoundError, match="is not registered for cart"):
        opened.override(("cart", "10.0.0.2", 80), WEIGHT, "anna")


def test_taking_nothing_back_is_not_found() -> None:
    """An operator who mistypes an address must not be told that it is done; twice is once too often."""
    for opened in (changeset(), changeset(endpoint(1))):
        with pytest.raises(NotFoundError, match=r"no override is set for 10\.0\.0\.2:80 of shop"):
            opened.clear_override(KEY, "bert")
        assert (opened.overrides, opened.events) == ({}, [])
    opened = changeset(endpoint(1, override=WEIGHT), kept={KEY: WEIGHT})
    opened.clear_override(KEY, "bert")
    with pytest.raises(NotFoundError):
        opened.clear_override(KEY, "bert")


def test_an_override_of_who_is_not_listed_can_be_taken_back() -> None:
    """It waits for its instance, so it has to be possible to clear it without an endpoint."""
    opened = changeset(kept={KEY: FOR_I_2})
    opened.clear_override(KEY, "bert")
    assert (opened.overrides, opened.events) == ({KEY: None}, [])
    assert opened.register(KEY, registration("i-2", 2), "x").override is None


def test_an_override_ends_with_its_time() -> None:
    """Not before, not when it was set anew, and also when its endpoint is gone."""
    early = changeset(endpoint(1, override=DRAIN), kept={KEY: DRAIN}, now=LATER - 1)
    early.end_override(KEY)
    assert early.overrides == {}
    due = changeset(endpoint(1, override=DRAIN), kept={KEY: DRAIN})
    due.end_override(KEY)
    ended = due.listed(KEY)
    assert ended is not None
    assert (ended.routable, ended.unroutable_at, due.overrides) == (True, None, {KEY: None})
    orphan = changeset(kept={KEY: DRAIN})
    orphan.end_override(KEY)
    assert (orphan.overrides, orphan.events) == ({KEY: None}, [])
    endless = changeset(endpoint(1, override=WEIGHT), kept={KEY: WEIGHT})
    endless.end_override(KEY)
    assert endless.overrides == {}


def test_a_lapse_says_how_long_nothing_was_heard() -> None:
    """The reason counts from the last heartbeat, not from the end of the lease; twice is once."""
    opened = changeset(endpoint(1))
    opened.lapse(KEY, LATER - 1.5)
    opened.lapse(KEY, LATER - 1.5)
    opened.lapse(("cart", "10.0.0.2", 80), LATER)
    (event,) = opened.events
    assert event.reason == "no heartbeat for 21.5 s; the lease of 20 s expired"
    assert (event.status, event.actor) == ("TIMEOUT", "sweeper")


def test_a_suspicion_is_said_once_and_ends_with_a_heartbeat() -> None:
    """Envoy sees no change; the history says why the endpoint is kept, and when its heartbeats returned."""
    opened = changeset(endpoint(1))
    opened.suspect(KEY, "2 of 10 of the service lapsed within 60 s")
    opened.suspect(KEY, "3 of 10 of the service lapsed within 60 s")
    opened.suspect(("cart", "10.0.0.2", 80), "x")
    (entry,) = opened.changed()
    assert (entry.visible, entry.leased, entry.after.suspect_since) == (False, True, LATER)
    (event,) = opened.events
    assert (event.kind, event.status, event.actor) == ("suspected", "SILENT", "sweeper")
    assert event.reason == "its lease expired, and it is kept in the answers: 2 of 10 of the service lapsed within 60 s"
    following = changeset(entry.after)
    returned = following.register(KEY, registration("i-1"), "x")
    assert (returned.suspect_since, returned.suspect_reason, kinds(following)) == (None, "", ["returned"])
    lapsing = changeset(entry.after)
    lapsing.lapse(KEY, LATER)
    assert [listed.suspect_since for listed in lapsing.all_listed()] == [None]
    lapsing.suspect(KEY, "x")
    assert kinds(lapsing) == ["lapsed"]


@pytest.mark.parametrize(
    ("silent", "reported", "kind", "reason"),
    [
        ({"suspect_since": NOW}, {"draining": True}, "drained", "its instance drains; a heartbeat came while"),
        ({"suspect_since": NOW}, {"health": Report.UNHEALTHY}, "health", "HEALTHY to UNHEALTHY: no detail given; a"),
        ({"suspect_since": NOW}, {"weight": 5}, "returned", "a heartbeat came while the guard kept it served"),
        ({"lapsed_at": NOW}, {"draining": True}, "drained", "its instance drains; a heartbeat came after"),
        ({"lapsed_at": NOW}, {"health": Report.UNHEALTHY}, "returned", "HEALTHY to UNHEALTHY: no detail given; a"),
        ({}, {"draining": True}, "drained", "its instance drains"),
        ({}, {"health": Report.UNHEALTHY}, "health", "HEALTHY to UNHEALTHY: no detail given"),
    ],
)
def test_what_a_heartbeat_says_is_recorded_as_what_it_is(
    silent: dict[str, Any], reported: dict[str, Any], kind: str, reason: str
) -> None:
    """Also when it comes from who was silent: what takes an endpoint out of rotation is no mere return."""
    opened = changeset(endpoint(1, **silent))
    opened.register(KEY, registration("i-1", **reported), "x")
    (event,) = opened.events
    assert event.kind == kind
    assert event.reason.startswith(reason)


def test_a_removal_leaves_a_tombstone() -> None:
    """The endpoint is not listed any more and its row says since when; a second removal is nothing."""
    opened = changeset(endpoint(1, leaving_at=NOW))
    opened.remove(KEY)
    opened.remove(KEY)
    (entry,) = opened.changed()
    assert (entry.after.removed_at, entry.visible, opened.listed(KEY)) == (LATER, True, None)
    assert [event.status for event in opened.events] == ["REMOVED"]


def test_an_override_whose_time_is_over_lends_its_end_to_no_change() -> None:
    """The sweeper has not cleared it yet: what is set now must not end with it a moment later."""
    over = Override(None, True, "anna", "", NOW - 60, LATER - 1)
    opened = changeset(endpoint(1, override=over))
    opened.change_override(KEY, OverrideChange(weight=5, reason="slow").by("bert"), "bert")
    (kept,) = opened.overrides.values()
    assert kept is not None
    assert (kept.weight, kept.drain, kept.expires_at) == (5, False, None)


CLOCK = 1_764_000_000.0
DAY = 86_400_000


def test_a_new_incarnation_may_be_a_day_ahead_of_postgresql() -> None:
    """Further ahead it would keep out all that its instance starts later: it is refused, with both times."""
    latest = int(CLOCK * 1000) + DAY
    assert changeset(now=CLOCK).register(KEY, registration("i-1", incarnation=latest), "x").status is Health.HEALTHY
    with pytest.raises(InadmissibleError) as caught:
        changeset(now=CLOCK).register(KEY, registration("i-1", incarnation=latest + 1), "x")
    assert (caught.value.pointer, caught.value.limit) == ("$.incarnation", "incarnation")
    assert "2025-11-25T16:00:00+00:00 in milliseconds" in str(caught.value)
    assert "PostgreSQL's clock says 2025-11-24T16:00:00+00:00" in str(caught.value)
    with pytest.raises(InadmissibleError, match="after the year 9999"):
        changeset(now=CLOCK).register(KEY, registration("i-1", incarnation=2**53), "x")


@pytest.mark.parametrize("now", [CLOCK, CLOCK - 10 * 365 * 86_400])
def test_what_is_stored_is_never_refused_for_its_incarnation(now: float) -> None:
    """Renewals and changes go on, also after PostgreSQL's clock was set back; its instance may follow it by one."""
    row = endpoint(1, registration=registration("i-1", incarnation=2**53 - 7))
    assert changeset(row, now=now).register(KEY, row.registration, "x") == row
    changed = registration("i-1", incarnation=2**53 - 7, weight=3)
    assert changeset(row, now=now).register(KEY, changed, "x").weight == 3
    raised = registration("i-1", incarnation=2**53 - 6)
    assert changeset(row, now=now).register(KEY, raised, "x").registration.incarnation == 2**53 - 6
    with pytest.raises(InadmissibleError):
        changeset(row, now=now).register(KEY, registration("i-1", incarnation=2**53), "x")


@pytest.mark.parametrize("leave", ["drain", "deregister"])
def test_who_leaves_names_no_incarnation_of_the_future(leave: str) -> None:
    """A drain under an absurd incarnation would keep the owner out as well."""
    row = endpoint(1, registration=registration("i-1", incarnation=5))
    opened = changeset(row, now=CLOCK)
    with pytest.raises(InadmissibleError) as caught:
        getattr(opened, leave)(KEY, "i-1", 2**53, "x")
    assert caught.value.pointer == "query:incarnation"
    assert getattr(opened, leave)(KEY, "i-1", int(CLOCK * 1000), "x").draining
