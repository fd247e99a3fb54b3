"""Make before break: the phases in which Envoys come from what they are served to what is wanted.

A route that leads to a cluster which an Envoy does not have yet, or has no longer, fails every request. So the
Envoys of one node.cluster are first given the clusters of both (`Phase.ADD`), then the new routes and listeners
(`Phase.SWITCH`), and last they lose the clusters that nothing leads to any more (`Phase.DONE`). A phase ends by what
the Envoys show in their polls, or by its deadline.

A node.cluster has a `Rollout` of its own, and so has the share of its Envoys that gets a revision early: one that waits
holds back no other. Times are seconds of the database's clock. It may be set, so that no deadline is counted by it:
`Rollout.waited` grows by the monotonic time for which somebody looked.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum

from msgspec import Struct
from msgspec.structs import replace

from meshconfig.resource import NodeResources, Resource

SETTLE = 2.0
"""Seconds for which Envoys have time to use what they have shown that they have."""
MAX_SETTLE = 300.0
"""Seconds for which a cluster whose readiness nothing tells is waited for at most."""
DEADLINE = 60.0
"""Seconds after which a phase ends although not every subscriber has followed."""
DEADLINE_PAUSES = 3.0
"""Pauses of the slowest subscriber that it is waited for in any case."""
MAX_DEADLINE = 900.0
"""Seconds that a phase takes at most; a subscriber that is silent for as long is forgotten."""
GONE_AFTER = 35.0
"""Seconds without a poll after which a subscriber is gone: the longest hold and two refresh delays.

For as long every process has to have taken polls before it counts that a subscriber was not seen."""
UNKNOWN_PAUSE = 20.0
"""Seconds between two polls that are assumed of a subscriber that has polled once."""
MAX_ELAPSED = 5.0
"""Seconds by which a phase ages in one look: time in which nobody looked says nothing about subscribers."""

_CLOCK_ERROR = 1.0
"""Seconds by which two processes may disagree about the database's clock."""


class Phase(IntEnum):
    """How far the Envoys of a node.cluster have come towards what is wanted."""

    ADD = 1
    """Clusters are old and new ones; routes and listeners are the old ones."""
    SWITCH = 2
    """Routes and listeners are the new ones; clusters are still old and new ones."""
    DONE = 3
    """Everything is as wanted."""


class Rollout(Struct, frozen=True, gc=False):
    """The state of a roll-out, of which a restart or another process goes on.

    Attributes:
        phase: how far it has come.
        fresh: the added clusters that routes may not lead to yet, each with the time since when it is served.
        waited: seconds for which this phase has been looked at.
        shown_at: the value of `waited` at which every subscriber had shown this phase; None: not yet.
    """

    phase: Phase = Phase.DONE
    fresh: Mapping[str, float] = {}
    waited: float = 0.0
    shown_at: float | None = None


class Versions(Struct, frozen=True, gc=False):
    """The versions at which the resources of a node.cluster are served.

    Attributes:
        clusters: that of all clusters.
        listeners: that of all listeners.
        routes: that of each route configuration, by name.
    """

    clusters: int = 0
    listeners: int = 0
    routes: Mapping[str, int] = {}


class Sighting(Struct, frozen=True, gc=False):
    """The last polls of one subscription, in whichever process they came.

    Attributes:
        version: the version in its last poll, which is what it has accepted; None: none, or none of ours.
        polled_at: the time of its last poll.
        seen_at: the time of its last poll or response.
        held: whether a poll of it is held now.
        pause: seconds that usually pass between a response and its next poll; None: not known.
        started_at: the time of its last poll without a version, with which each subscription begins; None: not known.
        refused: the newest version that it was sent and did not take; None: it refuses nothing.
        denied: whether access control refuses its polls.
        proven: whether it has acknowledged the endpoints over a stream, which sends those of a changed cluster again.
        error: its words about what it refuses; empty: it has none, as over REST.
    """

    version: int | None
    polled_at: float
    seen_at: float
    held: bool = False
    pause: float | None = None
    started_at: float | None = None
    refused: int | None = None
    denied: bool = False
    proven: bool = False
    error: str = ""


class Subscriber(Struct, frozen=True, gc=False):
    """One Envoy and its subscriptions. Copies that share a node id and an address count as one.

    Attributes:
        node_id: the id of its node.
        address: the address that it polls from.
        clusters: its polls for clusters.
        listeners: its polls for listeners.
        routes: its polls for route configurations, by name.
        endpoints: its polls for endpoints, by service.
    """

    node_id: str
    address: str
    clusters: Sighting | None = None
    listeners: Sighting | None = None
    routes: Mapping[str, Sighting] = {}
    endpoints: Mapping[str, Sighting] = {}


class View(Struct, frozen=True):
    """Everything that is known about the subscribers of a node.cluster at one time.

    Attributes:
        subscribers: those that any process has seen.
        now: the time.
        elapsed: monotonic seconds since the last look.
        clock_step: seconds by which the database's clock was set since the last look.
        watched: whether every process has taken polls, and told of them, for longer than `GONE_AFTER`.
        overlooked: whether any process had no room lately to remember a subscriber.
    """

    subscribers: Sequence[Subscriber]
    now: float
    elapsed: float = 0.0
    clock_step: float = 0.0
    watched: bool = True
    overlooked: bool = False


class Laggard(Struct, frozen=True, order=True, gc=False):
    """A subscriber that has not shown a phase yet.

    Attributes:
        node_id: the id of its node.
        address: the address that it polls from.
        kind: what it has not shown: clusters, listeners, routes or endpoints.
        name: the route configuration or the service; empty for clusters and listeners.
        reason: why, as a sentence without its subject.
        refuses: whether it refuses what it was sent.
    """

    node_id: str
    address: str
    kind: str
    name: str
    reason: str
    refuses: bool = False


class Outlook(Struct, frozen=True, gc=False):
    """The result of a look at a roll-out.

    Attributes:
        rollout: its state from now on.
        resources: what is to be served from now on; None: what is served already.
        laggards: the subscribers that have not shown this phase. If `resources` are set, they were left behind.
        deadline: the value of `waited` at which the phase ends although subscribers are awaited; infinite while one
            refuses.
        reason: why the phase has not ended, or why it ended, as a sentence.
    """

    rollout: Rollout
    resources: NodeResources | None = None
    laggards: tuple[Laggard, ...] = ()
    deadline: float = DEADLINE
    reason: str = ""

    @property
    def refused(self) -> bool:
        """Whether the roll-out stands still until those that refuse are gone or something else is wanted."""
        return any(laggard.refuses for laggard in self.laggards)


def begin(served: NodeResources, wanted: NodeResources, rollout: Rollout, now: float) -> tuple[NodeResources, Rollout]:
    """Return what is served as soon as something else is wanted, and the roll-out that begins.

    Args:
        served: what is served now, in the middle of an earlier roll-out too.
        wanted: what is wanted now.
        rollout: the state of the earlier roll-out.
        now: the time.
    """
    old, new = _clusters(served), _clusters(wanted)
    if not served.get("routes") and not served.get("listeners"):
        # Nothing leads to any cluster yet: there is no request that could be lost, and none succeeds before.
        return wanted, Rollout()
    # No route leads to one that was added lately and is not wanted any more: it may be what an Envoy refuses.
    old = {name: cluster for name, cluster in old.items() if name in new or name not in rollout.fresh}
    fresh = {
        # One that was changed before it was shown begins again.
        name: rollout.fresh[name] if name in rollout.fresh and old[name].sha256 == cluster.sha256 else now
        for name, cluster in new.items()
        if name not in old or name in rollout.fresh
    }
    clusters = {**old, **new}
    if fresh:
        return {**served, "clusters": clusters}, Rollout(Phase.ADD, fresh)
    return _switch(clusters, wanted)


def advance(served: NodeResources, wanted: NodeResources, rollout: Rollout, versions: Versions, view: View) -> Outlook:
    """Return what follows from what the subscribers show: the next phase, or whom this one waits for."""
    if rollout.phase is Phase.DONE:
        return Outlook(rollout)
    rollout = _looked_at(rollout, view)
    alive = list(_alive(view))
    if rollout.phase is Phase.ADD:
        added = rollout.fresh
        laggards = [lack for subscriber in alive for lack in _lacking_clusters(subscriber, served, added, versions)]
        subscriptions = [subscriber.clusters for subscriber in alive]
    else:
        added = {}
        laggards = [lack for subscriber in alive for lack in _lacking_routes(subscriber, versions)]
        subscriptions = [each for subscriber in alive for each in (subscriber.listeners, *subscriber.routes.values())]
    certain = not view.overlooked and (view.watched or any(subscriptions))
    rollout = _settling(rollout, shown=certain and not laggards)
    settle = _settle(served, added)
    deadline = _deadline((each.pause or 0.0 for each in subscriptions if each is not None), settle)
    outlook = Outlook(rollout, laggards=tuple(sorted(laggards)), deadline=deadline)
    if outlook.refused:
        # The one that refuses has its whole time once it takes something.
        begun_anew = Rollout(rollout.phase, rollout.fresh)
        return replace(outlook, rollout=begun_anew, deadline=float("inf"), reason=_words(laggards))
    if laggards or not certain:
        if rollout.waited < deadline:
            return replace(outlook, reason=_words(laggards))
        outlook = replace(outlook, reason=f"{rollout.waited:.0f} s have passed, and {_words(laggards)}")
    elif any(subscriptions):
        if rollout.waited - (rollout.shown_at or 0.0) < settle:
            return replace(outlook, reason=f"every Envoy has followed, and has {settle:g} s to use it")
        outlook = replace(outlook, reason="every Envoy has followed")
    else:
        outlook = replace(outlook, reason="no Envoy polls")
    if rollout.phase is Phase.ADD:
        resources, following = _switch(_clusters(served), wanted)
    else:
        resources, following = wanted, Rollout()
    return replace(outlook, rollout=following, resources=resources)


def newest(sightings: Iterable[Sighting], now: float) -> Sighting | None:
    """Return what several processes have seen of one subscription; None if that is nothing.

    The newest counts. But it is remembered everywhere when the subscription began, its longest pause, and what it has
    refused while it still brings the version that it brought there. A sighting of the future was stored before the
    clock was set back, by a process that is gone; nothing tells what is newer than it.
    """
    seen = [each for each in sightings if each.seen_at <= now + _CLOCK_ERROR]
    if not seen:
        return None
    last = max(seen, key=lambda each: (each.seen_at, each.held))
    pauses = [each.pause for each in seen if each.pause is not None]
    if not pauses and len(seen) > 1:
        # It has polled each process once.
        pauses = [last.polled_at - min(each.polled_at for each in seen)]
    began = [each.started_at for each in seen if each.started_at is not None]
    refused = [each.refused for each in seen if each.refused is not None and each.version == last.version]
    words = [each.error for each in seen if each.error and each.version == last.version]
    return replace(
        last,
        held=any(each.held for each in seen),
        pause=max(pauses, default=None),
        started_at=max(began, default=None),
        refused=max(refused, default=None),
        error=last.error or next(iter(words), ""),
        proven=any(each.proven for each in seen if each.held),
    )


def phases_between(served: NodeResources, wanted: NodeResources) -> tuple[Phase, ...]:
    """Return the phases that a roll-out of this goes through, the last one included."""
    resources, rollout = begin(served, wanted, Rollout(), 0.0)
    if rollout.phase is Phase.DONE:
        return (Phase.DONE,)
    if rollout.phase is Phase.SWITCH:
        return (Phase.SWITCH, Phase.DONE)
    _, following = _switch(_clusters(resources), wanted)
    return (Phase.ADD, Phase.DONE) if following.phase is Phase.DONE else (Phase.ADD, Phase.SWITCH, Phase.DONE)


def _clusters(resources: NodeResources) -> Mapping[str, Resource]:
    return resources.get("clusters", {})


def _switch(clusters: Mapping[str, Resource], wanted: NodeResources) -> tuple[NodeResources, Rollout]:
    """Return the new routes and listeners, beside all clusters while there are any that nothing wants."""
    if clusters.keys() <= _clusters(wanted).keys():
        return wanted, Rollout()
    return {**wanted, "clusters": clusters}, Rollout(Phase.SWITCH)


def _looked_at(rollout: Rollout, view: View) -> Rollout:
    """Return a roll-out as a look finds it: older, and with its times as the database's clock counts them now."""
    waited = rollout.waited + min(max(view.elapsed, 0.0), MAX_ELAPSED)
    if not view.clock_step:
        return replace(rollout, waited=waited)
    return replace(
        rollout, waited=waited, fresh={name: since + view.clock_step for name, since in rollout.fresh.items()}
    )


def _settling(rollout: Rollout, *, shown: bool) -> Rollout:
    """Return a roll-out with the time since which all have shown its phase, which ends when another one is awaited."""
    if not shown:
        return replace(rollout, shown_at=None)
    return replace(rollout, shown_at=rollout.waited) if rollout.shown_at is None else rollout


def _alive(view: View) -> Iterator[Subscriber]:
    """Yield each subscriber without the subscriptions that have ended.

    That nobody has seen a poll is worth nothing while a process may not have been there to see it.
    """
    for subscriber in view.subscribers:
        yield replace(
            subscriber,
            clusters=_unless_gone(subscriber.clusters, view),
            listeners=_unless_gone(subscriber.listeners, view),
            routes={name: each for name, each in subscriber.routes.items() if _unless_gone(each, view)},
        )


def _unless_gone(sighting: Sighting | None, view: View) -> Sighting | None:
    if sighting is None or sighting.held or not view.watched:
        return sighting
    pause = UNKNOWN_PAUSE if sighting.pause is None else sighting.pause
    usual = min(DEADLINE_PAUSES * pause, MAX_DEADLINE)
    return None if view.now - sighting.seen_at > max(GONE_AFTER, usual) else sighting


def _lacking_clusters(
    subscriber: Subscriber, served: NodeResources, added: Mapping[str, float], versions: Versions
) -> Iterator[Laggard]:
    """Yield what a subscriber has not shown of the added clusters."""
    if subscriber.clusters is None:
        return
    lack = _lack(subscriber.clusters, versions.clusters, "clusters")
    if lack is not None:
        yield Laggard(subscriber.node_id, subscriber.address, "clusters", "", *lack)
        return
    clusters = _clusters(served)
    users = Counter(cluster.eds_service for cluster in clusters.values())
    for name, since in added.items():
        service = clusters[name].eds_service
        if service and not _has_endpoints(subscriber, service, since, shared=users[service] > 1):
            reason = f"has not shown the endpoints of {service} since it has the cluster {name}"
            yield Laggard(subscriber.node_id, subscriber.address, "endpoints", service, reason)


def _has_endpoints(subscriber: Subscriber, service: str, since: float, *, shared: bool) -> bool:
    """Return whether a subscriber shows that a cluster which it was given lately has its endpoints.

    Args:
        subscriber: the subscriber, which has shown the cluster.
        service: the service of the cluster.
        since: when the cluster was first served.
        shared: whether another cluster asks for the same service: its polls look the same.
    """
    sighting, clusters = subscriber.endpoints.get(service), subscriber.clusters
    if sighting is not None and sighting.proven:
        return True
    if sighting is None or sighting.version is None or sighting.denied or clusters is None:
        return False
    if sighting.started_at is not None and sighting.started_at >= since - _CLOCK_ERROR:
        return True
    # A process that was killed may have taken with it when the subscription began. One of an earlier cluster ended with
    # that cluster, and polls no more.
    return not shared and sighting.polled_at > clusters.polled_at >= since


def _lacking_routes(subscriber: Subscriber, versions: Versions) -> Iterator[Laggard]:
    """Yield what a subscriber has not shown of the new listeners and routes."""
    if subscriber.listeners is not None:
        lack = _lack(subscriber.listeners, versions.listeners, "listeners")
        if lack is not None:
            yield Laggard(subscriber.node_id, subscriber.address, "listeners", "", *lack)
    for name, sighting in sorted(subscriber.routes.items()):
        if name in versions.routes:
            lack = _lack(sighting, versions.routes[name], f"routes {name!r}")
            if lack is not None:
                yield Laggard(subscriber.node_id, subscriber.address, "routes", name, *lack)


def _lack(sighting: Sighting, version: int, noun: str) -> tuple[str, bool] | None:
    """Return why a subscription does not show a version, and whether it refuses it; None if it does."""
    if sighting.version is not None and sighting.version >= version:
        return None
    if sighting.refused is not None and sighting.refused >= version:
        return f"refuses the new {noun}{f': {sighting.error}' if sighting.error else '; its log says why'}", True
    if sighting.denied:
        return f"is denied the {noun}: its polls bring no valid token, or one that may not discover", False
    return f"has not shown the new {noun}", False


def _deadline(pauses: Iterable[float], settle: float) -> float:
    """Return the seconds after which a phase ends although not every subscriber has followed."""
    return min(max(DEADLINE, DEADLINE_PAUSES * max(pauses, default=0.0), 2 * settle), MAX_DEADLINE)


def _settle(served: NodeResources, added: Iterable[str]) -> float:
    """Return the seconds that clusters need after Envoy has them, where nothing tells that they serve."""
    clusters = _clusters(served)
    return min(max([SETTLE, *(clusters[name].settle for name in added)]), MAX_SETTLE)


def _words(laggards: Collection[Laggard]) -> str:
    """Return who is awaited, as a sentence."""
    if not laggards:
        return "it is not certain that every Envoy that polls is known"
    first = min(laggards, key=lambda each: (not each.refuses, each))
    others = len({(each.node_id, each.address) for each in laggards}) - 1
    more = f", and {others} more {'is' if others == 1 else 'are'} awaited" if others else ""
    return f"{first.node_id or 'an Envoy without a node id'} at {first.address} {first.reason}{more}"
