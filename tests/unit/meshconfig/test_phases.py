"""The phases of a roll-out: which clusters, routes and listeners are served when, and whom a phase waits for."""

from collections.abc import Iterable, Mapping
from hashlib import sha256

import pytest
from msgspec.structs import replace

from meshconfig import phases
from meshconfig.phases import (
    DEADLINE,
    GONE_AFTER,
    MAX_DEADLINE,
    MAX_SETTLE,
    SETTLE,
    Outlook,
    Phase,
    Rollout,
    Sighting,
    Subscriber,
    Versions,
    View,
)
from meshconfig.resource import NodeResources, Resource

NOW = 1_000.0
OLD, NEW = 5, 6
"""The version before the phase that is looked at, and its own."""


def cluster(name: str, service: str | None = None, *, body: str = "", settle: float = 0.0) -> Resource:
    """Return a cluster of a service, its own name unless another is given."""
    digest = sha256(f"{name} {service} {body}".encode()).hexdigest()
    return Resource("clusters", name, b"", digest, eds_service=name if service is None else service, settle=settle)


def routes(*uses: str, name: str = "default", body: str = "") -> Resource:
    """Return a route configuration that leads to clusters."""
    return Resource("routes", name, b"", sha256(f"{uses} {body}".encode()).hexdigest(), uses=uses)


def node(clusters: Iterable[Resource], *tables: Resource) -> NodeResources:
    """Return the resources of a node.cluster."""
    return {
        "clusters": {each.name: each for each in clusters},
        "routes": {each.name: each for each in tables},
        "listeners": {},
    }


def simple(*names: str) -> NodeResources:
    """Return clusters of these names, and a route configuration that leads to each."""
    return node([cluster(name) for name in names], routes(*names))


def names_of(resources: NodeResources) -> tuple[str, ...]:
    """Return the names of the clusters."""
    return tuple(sorted(resources["clusters"]))


def sighting(version: int | None, **more: object) -> Sighting:
    """Return a subscription that polled just now."""
    return replace(Sighting(version, NOW, NOW, pause=0.3), **more)


def envoy(
    name: str = "e1",
    clusters: Sighting | None = None,
    tables: Sighting | None = None,
    endpoints: Mapping[str, Sighting] | None = None,
) -> Subscriber:
    """Return a subscriber."""
    return Subscriber(name, "10.0.0.1", clusters, None, {} if tables is None else {"default": tables}, endpoints or {})


def look(
    served: NodeResources, wanted: NodeResources, rollout: Rollout, *subscribers: Subscriber, **more: object
) -> Outlook:
    """Look at a roll-out half a second after the last look."""
    view = replace(View(subscribers, NOW, 0.5), **more)
    return phases.advance(served, wanted, rollout, Versions(NEW, NEW, {"default": NEW}), view)


def test_a_switch_to_another_cluster_is_made_before_it_is_broken() -> None:
    """First the clusters of both, then the routes, then the new clusters alone; each resource is the wanted one."""
    old, new = simple("user"), simple("user-next")
    served, rollout = phases.begin(old, new, Rollout(), NOW)
    assert (names_of(served), served["routes"], rollout.phase) == (("user", "user-next"), old["routes"], Phase.ADD)
    shown = envoy(clusters=sighting(NEW), endpoints={"user-next": sighting(3, started_at=NOW)})
    first = look(served, new, replace(rollout, shown_at=0.0, waited=SETTLE), shown)
    assert first.resources is not None
    assert (names_of(first.resources), first.resources["routes"]) == (("user", "user-next"), new["routes"])
    second = look(
        first.resources, new, replace(first.rollout, shown_at=0.0, waited=SETTLE), envoy(tables=sighting(NEW))
    )
    assert (second.resources, second.rollout) == (new, Rollout())
    assert phases.phases_between(old, new) == (Phase.ADD, Phase.SWITCH, Phase.DONE)


def test_one_phase_is_enough_where_the_same_clusters_stay() -> None:
    """A cluster that keeps its name is replaced by its new body at once, beside the new routes."""
    old = node([cluster("user")], routes("user"))
    new = node([cluster("user", body="new")], routes("user", body="new"))
    assert phases.begin(old, new, Rollout(), NOW) == (new, Rollout())
    assert phases.phases_between(old, new) == (Phase.DONE,)


def test_a_changed_cluster_has_its_new_body_in_the_first_phase() -> None:
    """It is served beside the added one, before any route leads there."""
    old = simple("user")
    new = node([cluster("user", body="new"), cluster("shop")], routes("user", "shop"))
    served, _ = phases.begin(old, new, Rollout(), NOW)
    assert served["clusters"]["user"] == new["clusters"]["user"]


def test_the_first_definition_is_served_at_once() -> None:
    """No route leads anywhere yet; to wait would only delay the first request."""
    for served in ({}, node([cluster("a")])):
        assert phases.begin(served, simple("b"), Rollout(), NOW) == (simple("b"), Rollout())


def test_what_is_only_removed_begins_with_the_routes() -> None:
    """There is no cluster that anybody would have to have first."""
    old, new = simple("user", "shop"), simple("user")
    served, rollout = phases.begin(old, new, Rollout(), NOW)
    assert (names_of(served), served["routes"], rollout.phase) == (("shop", "user"), new["routes"], Phase.SWITCH)
    assert phases.phases_between(old, new) == (Phase.SWITCH, Phase.DONE)


def test_what_is_only_added_ends_with_the_routes() -> None:
    """Nothing is left to be taken away."""
    old, new = simple("user"), simple("user", "shop")
    assert phases.phases_between(old, new) == (Phase.ADD, Phase.DONE)


def test_a_second_revision_keeps_what_subscribers_may_still_use() -> None:
    """The clusters that routes lead to stay; those that none led to yet go, as one of them may be refused."""
    first, _ = phases.begin(simple("a"), simple("b"), Rollout(), NOW)
    served, rollout = phases.begin(first, simple("c"), Rollout(Phase.ADD, {"b": NOW}), NOW + 1)
    assert (names_of(served), dict(rollout.fresh)) == (("a", "c"), {"c": NOW + 1})


def test_a_rollback_in_the_middle_needs_no_new_cluster() -> None:
    """The old clusters are all there, and nothing has to be taken from anybody who uses it."""
    served, _ = phases.begin(simple("a"), simple("b"), Rollout(), NOW)
    back, rollout = phases.begin(served, simple("a"), Rollout(Phase.ADD, {"b": NOW}), NOW + 1)
    assert (back, rollout) == (simple("a"), Rollout())
    switched = {**simple("b"), "clusters": simple("a", "b")["clusters"]}
    back, rollout = phases.begin(switched, simple("a"), Rollout(Phase.SWITCH), NOW + 1)
    assert (back["routes"], names_of(back), rollout.phase) == (simple("a")["routes"], ("a", "b"), Phase.SWITCH)


def test_a_cluster_that_was_never_shown_stays_to_be_shown_in_the_next_revision() -> None:
    """Since when it is served counts, unless it has another body now."""
    served, rollout = phases.begin(simple("a"), simple("a", "b"), Rollout(), NOW)
    _, same = phases.begin(served, simple("a", "b", "c"), rollout, NOW + 5)
    assert dict(same.fresh) == {"b": NOW, "c": NOW + 5}
    _, changed = phases.begin(served, node([cluster("a"), cluster("b", body="new")]), rollout, NOW + 5)
    assert dict(changed.fresh) == {"b": NOW + 5}


def test_a_cluster_that_is_wanted_again_was_not_shown_for_that() -> None:
    """It was served for a moment, wanted no longer, and wanted again before it was taken away."""
    served, rollout = phases.begin(simple("a"), simple("a", "b"), Rollout(), NOW)
    served, rollout = phases.begin(served, simple("a"), rollout, NOW + 1)
    assert (served, rollout) == (simple("a"), Rollout())
    served, rollout = phases.begin(served, simple("a", "b"), rollout, NOW + 2)
    assert (rollout, served["routes"]) == (Rollout(Phase.ADD, {"b": NOW + 2}), simple("a")["routes"])


ADDING = Rollout(Phase.ADD, {"b": NOW})
SERVED, WANTED = phases.begin(simple("a"), simple("b"), Rollout(), NOW)[0], simple("b")
FOLLOWED = envoy(clusters=sighting(NEW), endpoints={"b": sighting(3, started_at=NOW)})


@pytest.mark.parametrize(
    ("subscriber", "reason"),
    [
        (envoy(clusters=sighting(OLD)), "has not shown the new clusters"),
        (envoy(clusters=sighting(None)), "has not shown the new clusters"),
        (envoy(clusters=sighting(OLD, denied=True)), "is denied the clusters"),
        (envoy(clusters=sighting(NEW)), "has not shown the endpoints of b"),
        (envoy(clusters=sighting(NEW), endpoints={"b": sighting(None, started_at=NOW)}), "endpoints of b"),
        (envoy(clusters=sighting(NEW), endpoints={"b": sighting(3, started_at=NOW, denied=True)}), "endpoints of b"),
        # It belongs to a cluster of an earlier time, and is remembered for 15 minutes.
        (envoy(clusters=sighting(NEW), endpoints={"b": sighting(3, polled_at=NOW - 100)}), "endpoints of b"),
        (envoy(clusters=sighting(NEW), endpoints={"b": sighting(3, started_at=NOW - 100)}), "endpoints of b"),
    ],
)
def test_the_first_phase_waits_for_each_subscriber(subscriber: Subscriber, reason: str) -> None:
    """It has to show the clusters, and that the added ones have endpoints; who lacks what is said."""
    outlook = look(SERVED, WANTED, ADDING, FOLLOWED, replace(subscriber, node_id="e2"))
    assert outlook.resources is None
    assert [(each.node_id, reason in each.reason) for each in outlook.laggards] == [("e2", True)]
    assert "e2 at 10.0.0.1" in outlook.reason


def test_endpoints_that_were_polled_after_the_clusters_count_without_the_beginning() -> None:
    """A process that was killed may have taken with it when the subscription began."""
    endpoints = {"b": sighting(3, polled_at=NOW + 1)}
    assert look(SERVED, WANTED, ADDING, envoy(clusters=sighting(NEW), endpoints=endpoints)).laggards == ()


def test_a_renamed_cluster_is_not_proven_by_the_polls_of_the_old_one() -> None:
    """Both ask for the same service: only a subscription that began after the new cluster tells."""
    new = node([cluster("users", "user")], routes("users"))
    served, rollout = phases.begin(simple("user"), new, Rollout(), NOW)
    subscriber = envoy(clusters=sighting(NEW), endpoints={"user": sighting(3, polled_at=NOW + 1)})
    assert look(served, new, rollout, subscriber).laggards
    begun = replace(subscriber, endpoints={"user": sighting(3, started_at=NOW + 0.2)})
    assert not look(served, new, rollout, begun).laggards


def test_all_that_have_followed_have_time_to_use_it() -> None:
    """From when the last one has shown it; a cluster of which nothing tells may take longer."""
    outlook = look(SERVED, WANTED, ADDING, FOLLOWED)
    assert (outlook.resources, outlook.rollout.shown_at) == (None, 0.5)
    assert look(SERVED, WANTED, replace(outlook.rollout, waited=SETTLE), FOLLOWED).resources is not None
    dns = node([cluster("b", "", settle=7.0)], routes("b"))
    served, rollout = phases.begin(simple("a"), dns, Rollout(), NOW)
    shown = envoy(clusters=sighting(NEW))
    waiting = look(served, dns, replace(rollout, shown_at=0.0, waited=6.0), shown)
    assert (waiting.resources, "7 s" in waiting.reason) == (None, True)
    assert look(served, dns, replace(rollout, shown_at=0.0, waited=6.5), shown).resources is not None


def test_no_settling_time_is_absurd() -> None:
    """A health check a day does not hold a roll-out for a day, nor does the deadline come before it."""
    slow = node([cluster("b", "", settle=86_400.0)], routes("b"))
    served, rollout = phases.begin(simple("a"), slow, Rollout(), NOW)
    shown = envoy(clusters=sighting(NEW))
    assert look(served, slow, replace(rollout, shown_at=0.0, waited=MAX_SETTLE - 1), shown).resources is None
    assert look(served, slow, replace(rollout, shown_at=0.0, waited=MAX_SETTLE), shown).resources is not None


def test_one_that_comes_later_has_its_own_time_to_settle() -> None:
    """While a laggard is awaited, or may be there unseen, nobody has shown the phase; the time begins anew after it."""
    shown = replace(ADDING, shown_at=0.0, waited=SETTLE - 1)
    late = envoy("late", clusters=sighting(OLD))
    for newcomers, doubt in (((late,), {}), ((), {"overlooked": True})):
        outlook = look(SERVED, WANTED, shown, FOLLOWED, *newcomers, **doubt)
        assert (outlook.resources, outlook.rollout.shown_at) == (None, None)
        followed = look(SERVED, WANTED, replace(outlook.rollout, waited=SETTLE + 10), FOLLOWED)
        assert (followed.resources, followed.rollout.shown_at) == (None, SETTLE + 10.5)


def test_the_second_phase_waits_for_routes_and_listeners() -> None:
    """Those of a name that is not served any more are not waited for, and neither are other subscriptions."""
    rollout = Rollout(Phase.SWITCH)
    late = [
        envoy("routes", sighting(NEW), sighting(OLD)),
        replace(envoy("listeners"), listeners=sighting(OLD)),
        replace(envoy("gone"), routes={"gone": sighting(OLD)}),
        envoy("clusters", sighting(OLD)),
    ]
    outlook = look(SERVED, WANTED, rollout, *late)
    assert [(each.node_id, each.kind, each.name) for each in outlook.laggards] == [
        ("listeners", "listeners", ""),
        ("routes", "routes", "default"),
    ]


def test_without_subscribers_a_phase_ends_at_once_if_that_is_certain() -> None:
    """Otherwise the deadline decides: a process that has just started has seen nobody yet."""
    assert look(SERVED, WANTED, ADDING).resources is not None
    for doubt in ({"watched": False}, {"overlooked": True}):
        outlook = look(SERVED, WANTED, ADDING, **doubt)
        assert (outlook.resources, "not certain" in outlook.reason) == (None, True)
        assert look(SERVED, WANTED, replace(ADDING, waited=DEADLINE), **doubt).resources is not None


def test_one_that_is_not_remembered_is_waited_for_beside_others() -> None:
    """A process that had no room for a subscriber does not know what that one shows."""
    shown = replace(ADDING, waited=SETTLE + 1)
    assert look(SERVED, WANTED, shown, FOLLOWED, overlooked=True).resources is None
    assert look(SERVED, WANTED, replace(shown, shown_at=0.0), FOLLOWED, watched=False).resources is not None


def test_a_subscriber_that_is_gone_is_not_waited_for() -> None:
    """It polls nowhere for longer than a hold, and every process was there to see it."""
    gone = sighting(OLD, seen_at=NOW - GONE_AFTER - 1)
    for subscriber, awaited in (
        (envoy(clusters=gone), False),
        (envoy(clusters=replace(gone, held=True)), True),
        (envoy(clusters=replace(gone, pause=GONE_AFTER)), True),
        (envoy(clusters=replace(gone, pause=None)), True),
        (envoy(clusters=replace(gone, seen_at=NOW - GONE_AFTER + 1)), True),
    ):
        assert bool(look(SERVED, WANTED, ADDING, subscriber).laggards) is awaited
    assert look(SERVED, WANTED, ADDING, envoy(clusters=gone), watched=False).laggards


def test_a_deadline_leaves_a_stuck_subscriber_behind() -> None:
    """After 60 seconds, or three pauses of the slowest one; whoever was left behind is named."""
    stuck = envoy(clusters=sighting(OLD))
    assert look(SERVED, WANTED, replace(ADDING, waited=DEADLINE - 1), stuck).resources is None
    outlook = look(SERVED, WANTED, replace(ADDING, waited=DEADLINE), stuck)
    assert outlook.resources is not None
    assert [each.node_id for each in outlook.laggards] == ["e1"]
    assert outlook.reason.startswith("60 s have passed, and e1 at 10.0.0.1 has not shown the new clusters")
    slow = envoy(clusters=sighting(OLD, pause=100.0))
    assert look(SERVED, WANTED, replace(ADDING, waited=299.0), slow).deadline == 300.0
    absurd = envoy(clusters=sighting(OLD, pause=1e9))
    assert look(SERVED, WANTED, ADDING, absurd).deadline == MAX_DEADLINE


def test_a_refusal_stops_the_roll_out() -> None:
    """However long it lasts; one that is gone, or refused something older, stops nothing."""
    refusing = envoy(clusters=sighting(OLD, refused=NEW))
    outlook = look(SERVED, WANTED, replace(ADDING, waited=MAX_DEADLINE), refusing, replace(FOLLOWED, node_id="a"))
    assert (outlook.resources, outlook.refused, outlook.deadline) == (None, True, float("inf"))
    # When it takes what it refused, it has its whole time.
    assert outlook.rollout == ADDING
    assert "e1 at 10.0.0.1 refuses the new clusters" in outlook.reason
    before = envoy(clusters=sighting(OLD, refused=OLD))
    assert not look(SERVED, WANTED, ADDING, before).refused
    gone = envoy(clusters=sighting(OLD, refused=NEW, seen_at=NOW - 100))
    assert look(SERVED, WANTED, ADDING, gone).resources is not None
    tables = envoy(tables=sighting(OLD, refused=NEW))
    assert look(SERVED, WANTED, Rollout(Phase.SWITCH, waited=MAX_DEADLINE), tables).refused


def test_time_in_which_nobody_looked_does_not_count() -> None:
    """A registry that was away, or a clock that was set, brings no deadline nearer."""
    stuck = envoy(clusters=sighting(OLD))
    assert look(SERVED, WANTED, ADDING, stuck, elapsed=10_000.0).rollout.waited == phases.MAX_ELAPSED
    assert look(SERVED, WANTED, ADDING, stuck, elapsed=-10.0).rollout.waited == 0.0


@pytest.mark.parametrize("step", [3_600.0, -3_600.0])
def test_a_clock_that_was_set_moves_the_times_of_a_roll_out(step: float) -> None:
    """A subscription that began before is not taken for a newer one, nor one that began after for an older one."""
    outlook = look(
        SERVED, WANTED, ADDING, envoy(clusters=sighting(OLD)), now=NOW + step, clock_step=step, watched=False
    )
    assert dict(outlook.rollout.fresh) == {"b": NOW + step}


def test_what_several_processes_have_seen_is_joined() -> None:
    """The newest counts; when a subscription began, and what it refuses, is not lost with it."""
    first = Sighting(3, NOW - 5, NOW - 5, pause=0.3, started_at=NOW - 9, refused=4)
    second = Sighting(3, NOW - 1, NOW - 1, held=True, pause=0.2, started_at=NOW - 20)
    assert phases.newest([first, second], NOW) == replace(second, pause=0.3, started_at=NOW - 9, refused=4)
    later = replace(second, version=4)
    assert phases.newest([first, later], NOW) == replace(later, pause=0.3, started_at=NOW - 9)
    assert phases.newest([first, replace(second, seen_at=NOW + 3_600)], NOW) == first
    assert phases.newest([], NOW) is None
    once = [Sighting(3, NOW - 30, NOW - 30), Sighting(3, NOW, NOW)]
    assert phases.newest(once, NOW) == replace(once[1], pause=30.0)
    assert phases.newest([once[0], replace(once[1], pause=0.3), replace(first, pause=9.0)], NOW) == replace(
        once[1], pause=9.0, started_at=NOW - 9, refused=4
    )
