"""The subscribers of the mesh configuration, as roll-outs look at them. No I/O; time is an argument.

Every process reports the Envoys that poll it for clusters, routes and listeners. Which of them have followed a phase of
a roll-out is decided in ``meshconfig.phases``.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from meshconfig.phases import GONE_AFTER, Sighting, Subscriber, newest
from registry.core.stream_subscriber import StreamReport
from registry.core.subscriber_status import SubscriberReport

MAX_WATCH_AGE = 10.0
"""Seconds after which what a process says of its watch is outdated; it says it every three."""


class MeshReport(Struct, frozen=True, gc=False):
    """The state of one subscription of an Envoy, as one process saw it. Times are seconds of the database's clock.

    ``kind`` is clusters, routes or listeners, ``name`` that of the route configuration and empty for the others;
    ``version`` is the version in its last poll, ``refused`` the newest one that it was sent and did not take;
    ``started_at`` is the time of its last poll without a version; ``error`` has its words about what it refuses, if it
    has a stream.
    """

    process: str
    kind: str
    name: str
    node_id: str
    address: str
    cluster: str
    envoy: str
    version: int | None
    refused: int | None
    refused_at: float | None
    denied: bool
    started_at: float | None
    first_seen: float
    polled_at: float
    seen_at: float
    held: bool
    pause: float | None
    error: str | None = None


class ProcessWatch(Struct, frozen=True):
    """For how long a process has taken polls and told of them.

    Attributes:
        process: the random id of the process.
        seconds: for how long.
        overlooked_ago: seconds since it last had no room to remember a subscriber; None: not lately.
        age: seconds since it said so.
    """

    process: str
    seconds: float
    overlooked_ago: float | None
    age: float


class Certainty(Struct, frozen=True):
    """Whether every Envoy that polls is known; as `meshconfig.phases.View` has it."""

    watched: bool
    overlooked: bool


def certainty(
    living: Iterable[str], watches: Iterable[ProcessWatch], silent_for: Iterable[float], clock_set_ago: float
) -> Certainty:
    """Return whether every Envoy that polls is known.

    Args:
        living: the ids of all processes that live, this one among them.
        watches: what each of them says.
        silent_for: seconds since the last report of each process that died or hangs. Its Envoys go elsewhere.
        clock_set_ago: seconds since the database's clock was set.
    """
    by_process = {watch.process: watch for watch in watches if watch.age <= MAX_WATCH_AGE}
    own = [by_process.get(process) for process in living]
    overlooked = clock_set_ago <= GONE_AFTER or any(
        watch is None or (watch.overlooked_ago is not None and watch.overlooked_ago <= GONE_AFTER) for watch in own
    )
    watched = not overlooked and all(watch is not None and watch.seconds > GONE_AFTER for watch in own)
    return Certainty(watched and all(seconds > GONE_AFTER for seconds in silent_for), overlooked)


def one_of_each(reports: Iterable[MeshReport]) -> list[MeshReport]:
    """Return one report for each subscription of a node at an address: of copies, the one that is furthest behind.

    An open stream counts more than one that has ended.
    """
    chosen: dict[tuple[str, str, str, str], MeshReport] = {}
    for report in reports:
        key = (report.kind, report.name, report.node_id, report.address)
        if key not in chosen or _urgency(report) > _urgency(chosen[key]):
            chosen[key] = report
    return list(chosen.values())


def _urgency(report: MeshReport) -> tuple[bool, bool, int]:
    return (report.held, report.refused is not None, -(report.version or 0))


def gather(
    reports: Iterable[MeshReport], endpoints: Iterable[SubscriberReport], now: float
) -> Mapping[str, Sequence[Subscriber]]:
    """Return the subscribers of each node.cluster, joined from the reports of all processes.

    Args:
        reports: about their clusters, routes and listeners.
        endpoints: about their endpoints.
        now: the time.
    """
    seen: defaultdict[tuple[str, str, str], defaultdict[tuple[str, str], list[Sighting]]]
    seen = defaultdict(lambda: defaultdict(list))
    for report in reports:
        seen[report.cluster, report.node_id, report.address][report.kind, report.name].append(_sighting(report))
    for eds in endpoints:
        subscriptions = seen.get((eds.cluster, eds.node_id, eds.address))
        if subscriptions is not None:
            subscriptions["endpoints", eds.service].append(_sighting_of_endpoints(eds))
    subscribers: defaultdict[str, list[Subscriber]] = defaultdict(list)
    for (cluster, node_id, address), subscriptions in seen.items():
        joined = {key: sighting for key, each in subscriptions.items() if (sighting := newest(each, now)) is not None}
        subscribers[cluster].append(
            Subscriber(
                node_id,
                address,
                joined.get(("clusters", "")),
                joined.get(("listeners", "")),
                {name: sighting for (kind, name), sighting in joined.items() if kind == "routes"},
                {name: sighting for (kind, name), sighting in joined.items() if kind == "endpoints"},
            )
        )
    return subscribers


def _sighting(report: MeshReport) -> Sighting:
    return Sighting(
        report.version,
        report.polled_at,
        report.seen_at,
        report.held,
        report.pause,
        report.started_at,
        report.refused,
        report.denied,
        error=report.error or "",
    )


def _sighting_of_endpoints(report: SubscriberReport) -> Sighting:
    return Sighting(
        report.version,
        report.polled_at,
        report.seen_at,
        report.held,
        report.pause,
        report.started_at,
        denied=report.status in (401, 403),
        proven=isinstance(report, StreamReport) and report.proves,
    )
