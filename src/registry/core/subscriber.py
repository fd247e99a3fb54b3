"""Subscribers: which Envoys poll, which versions they hold, and whether they keep up. No I/O; time is an argument.

An Envoy that rejects a response does not say so over REST. The only sign is that its next polls carry the
``version_info`` that it had before, although a newer one was sent.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from wire.edge_assignments import TakenVersion
from wire.node import ANONYMOUS, Node, printable

State = Literal["current", "behind", "stuck", "rejected", "silent"]
"""How a subscriber keeps up; only one over a stream says itself that it has rejected a version."""

SUBSCRIBER_TIMEOUT = 900.0
"""Seconds after which a subscriber that was not seen is dropped."""

REPORT_INTERVAL = 15.0
"""Seconds after which a subscriber that polls on unchanged is reported again to the other processes."""

REPORT_LAG = REPORT_INTERVAL + 5.0
"""Seconds by which a report of another process may be older than the state of that process."""

MAX_REPORTS_PUBLISHED = 5_000
"""Reports that a process publishes in one turn."""

PUBLISH_INTERVAL = 3.0
"""Seconds between two turns of publishing."""

MAX_NAMES = 16
"""Names of one poll that are remembered; an Envoy asks for one."""

_MAX_TEXT = 128
"""Characters of a version_info that are kept for each name."""

_MAX_NAME = 255
"""Characters of a name, on average of one poll: a service cannot be called by a longer one."""

_PASSING_AFTER = 60.0
"""Seconds after which a v1 client that asked once is dropped: a person with curl."""
_BEHIND_AFTER = 10.0
"""Seconds, beside two pauses, in which a subscriber may still hold an older version."""
_STUCK_AFTER = 5.0
"""Seconds of refusals after which a subscriber is stuck."""
_SILENT_AFTER = 10.0
"""Seconds without a poll that are never silence."""
_UNKNOWN_PAUSE = 20.0
"""Seconds between two polls that are assumed where they were not measured."""
_USUAL_PAUSES = 3.0
"""Pauses without a poll after which a subscriber is silent."""
_MIN_REFUSALS = 2
"""Polls in a row without the version that was sent. One also occurs at a restart, and where two clusters of an Envoy
share a service."""
_OFFERED_AGAIN_AFTER = 300.0
"""Seconds after which an answer that was refused is given again: one that was lost on its way looks the same."""
_MIN_REFUSALS_OF_NEW = 3
"""Refusals in a row by a subscriber that has accepted nothing yet: one that is started again looks the same."""
_REFUSED = {
    401: "its polls are refused (401): it brings no valid token; it keeps the endpoints that it has",
    403: "its polls are refused (403): its token may not discover this service; it keeps the endpoints that it has",
}
"""The reason for each status of a poll that access control refuses."""
_SAME_START = 2.0
"""Seconds by which two reports of an edge about the beginning of a subscription may differ."""
_SMOOTHING = 0.2
"""Share of the newest pause in the smoothed one."""


SubscriptionKey = tuple[str, str, tuple[str, ...], str]
"""Node id, address, names and API. A node id alone is not enough: copies of one configuration often share it."""


class Subscription:
    """The polls of one node for the same names. Times are those of the process's monotonic clock.

    ``brought`` is the version_info of its last poll, ``offered`` that of the 200 it was answered, empty after a 304;
    ``pause`` is the smoothed time between an answer and the next poll. ``remembered`` is false for one that lives as
    long as the request only, so that nothing can be concluded from what it did before. ``refused_offer`` is the
    version_info that it refused last, of the types that offer an answer once, and ``refused_offer_at`` the time.
    ``started_at`` is the time of its last poll without a version, with which each subscription of an Envoy begins; None
    for one that this process has not seen begin. ``edge`` is the registrar whose edge answers its polls; empty: it
    polls a registry itself.
    """

    __slots__ = (
        "address",
        "answered_at",
        "api",
        "brought",
        "edge",
        "first_seen",
        "held",
        "key",
        "names",
        "node",
        "offered",
        "pause",
        "polled_at",
        "published",
        "published_at",
        "refusals",
        "refused_offer",
        "refused_offer_at",
        "refused_since",
        "remembered",
        "started_at",
        "status",
    )

    def __init__(self, key: SubscriptionKey, node: Node, now: float) -> None:
        self.key = key
        _, self.address, self.names, self.api = key
        self.node = node
        self.first_seen = self.polled_at = now
        self.answered_at = 0.0
        self.brought = self.offered = ""
        self.status = self.held = self.refusals = 0
        self.pause: float | None = None
        self.refused_since = 0.0
        self.refused_offer = ""
        self.refused_offer_at = 0.0
        self.remembered = False
        self.started_at: float | None = None
        self.edge = ""
        # The state that was published last to the other processes, and the monotonic time; written by SubscriberSync.
        self.published: object = None
        self.published_at = 0.0

    def poll(self, version_info: str, now: float) -> None:
        """Record a poll that arrived."""
        if len(version_info) > _MAX_TEXT:
            version_info = version_info[: _MAX_TEXT * len(self.names)]
        if self.status:
            pause = now - self.answered_at
            self.pause = pause if self.pause is None else self.pause + _SMOOTHING * (pause - self.pause)
        if self.offered and self.offered != version_info == self.brought:
            if not self.refusals:
                self.refused_since = now
            self.refusals += 1
        else:
            self.refusals = 0
        self.brought = version_info
        self.polled_at = now
        self.edge = ""
        if not version_info:
            self.started_at = now

    def relay(self, edge: str, taken: TakenVersion, status: int, now: float) -> None:
        """Record the last poll that an edge has answered.

        Args:
            edge: the registrar that says so.
            taken: the poll; its times are durations.
            status: the status of a poll for this name: 200 or 304, or that of a refusal.
            now: the time.
        """
        self.edge = edge
        self.brought, self.offered = taken.version[:_MAX_TEXT], taken.offered[:_MAX_TEXT]
        self.status = status
        self.refusals = taken.refusals
        self.refused_since = now - (taken.refused_ago or 0.0)
        if taken.started_ago is not None:
            started_at = now - taken.started_ago
            if self.started_at is None or abs(started_at - self.started_at) > _SAME_START:
                self.started_at = started_at
        self.pause = taken.pause
        self.polled_at = self.answered_at = now

    def answer(self, status: int, version_info: str, now: float) -> None:
        """Record the response to its poll."""
        self.status = status
        if len(version_info) > _MAX_TEXT:
            version_info = version_info[: _MAX_TEXT * len(self.names)]
        self.offered = version_info
        self.answered_at = now

    def note_refused_offer(self, now: float) -> None:
        """Note the answer that the poll which was just recorded has refused, or that it has accepted it after all."""
        if self.refusals >= (1 if self.brought else _MIN_REFUSALS_OF_NEW):
            self.refused_offer, self.refused_offer_at = self.offered, now
        elif self.refused_offer == self.brought:
            self.refused_offer = ""

    def has_refused(self, version_info: str, now: float) -> bool:
        """Return whether it has refused this version so lately that it is not offered again."""
        return self.refused_offer == version_info and now - self.refused_offer_at < _OFFERED_AGAIN_AFTER

    @property
    def seen_at(self) -> float:
        """The time of its last poll or response; a poll that is held now is newer."""
        return max(self.polled_at, self.answered_at)

    @property
    def substance(self) -> object:
        """The state that other processes have to know soon; all else only says that it polls on."""
        answered = self.status if self.status in _REFUSED else bool(self.status)
        return (
            self.brought,
            self.offered or self.brought,
            min(self.refusals, _MIN_REFUSALS),
            answered,
            self.refused_offer,
            self.edge,
            self.started_at,
        )

    def is_news(self, now: float) -> bool:
        """Return whether a report of it should be published."""
        touched = self.held > 0 or self.seen_at > self.published_at
        return self.published != self.substance or (touched and now - self.published_at > REPORT_INTERVAL)

    def forgotten(self, now: float) -> bool:
        """Return whether it has been silent for so long that it is dropped."""
        passing = not self.node.id and self.pause is None
        return not self.held and now - self.seen_at > (_PASSING_AFTER if passing else SUBSCRIBER_TIMEOUT)


class Subscribers:
    """The subscriptions that this process has seen, a bounded number of them.

    A made-up node id costs a client nothing. So a full table takes no new subscription, instead of dropping an Envoy
    that still polls; and while any is missing, its absence proves nothing (``refused_ago``).

    Args:
        max_sightings: pairs of a node and a name that are remembered.
    """

    def __init__(self, max_sightings: int = 50_000) -> None:
        self.max_sightings = max_sightings
        self.sightings = 0
        """Pairs of a node and a name that are remembered now. Written by _enter() and _leave()."""
        self._subscriptions: dict[SubscriptionKey, Subscription] = {}
        """All that are remembered. Written by _enter() and _leave()."""
        self._by_name: dict[str, dict[SubscriptionKey, Subscription]] = {}
        """The same by each of their names."""
        self._refused = 0
        """Sightings that were refused for want of room. Raised by _refuse(), emptied by take_refused()."""
        self._refused_at: float | None = None
        """When the last one was refused (monotonic). Written by _refuse()."""

    def __len__(self) -> int:
        return len(self._subscriptions)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._subscriptions.values()))

    def of(self, service: str) -> list[Subscription]:
        """Return the subscriptions that ask for a name, alone or with others."""
        return list(self._by_name.get(service, {}).values())

    def find(self, node: Node, address: str, names: tuple[str, ...], api: str, now: float) -> Subscription:
        """Return the subscription of a poll; a new one if there is none."""
        remembered = names if len(names) <= MAX_NAMES else names[:MAX_NAMES]
        key = (node.id, address, remembered, api)
        subscription = self._subscriptions.get(key)
        if subscription is None:
            subscription = Subscription(key, node, now)
            # An Envoy always has a node id, and v1 has no place for one. Without it a poll is a person's or a script's.
            if (node.id or api == "v1") and not self._enter(key, subscription):
                self._refuse(len(names), now)
        elif subscription.node is not node:
            # Started again with another version, zone or cluster, or read anew.
            subscription.node = node
        if subscription.remembered and remembered is not names:
            self._refuse(len(names) - MAX_NAMES, now)
        return subscription

    def get(self, node: Node, address: str, names: tuple[str, ...], api: str) -> Subscription | None:
        """Return the subscription of a poll; None if it is not remembered."""
        return self._subscriptions.get((node.id, address, names[:MAX_NAMES], api))

    def record_v1(self, address: str, service: str, now: float) -> None:
        """Record a request of v1 SDS, which names neither a node nor a version."""
        subscription = self.find(ANONYMOUS, address, (service,), "v1", now)
        subscription.poll("", now)
        subscription.answer(200, "", now)

    def forget(self, subscription: Subscription, now: float) -> None:
        """Drop a subscription that has been silent for too long."""
        if subscription.forgotten(now):
            self._leave(subscription.key)

    def refused_ago(self, now: float) -> float | None:
        """Return the seconds since a sighting was refused; None when that is too long ago to matter."""
        ago = None if self._refused_at is None else now - self._refused_at
        return ago if ago is not None and ago <= SUBSCRIBER_TIMEOUT else None

    def take_refused(self) -> int:
        """Return how many sightings were refused since the last call."""
        refused, self._refused = self._refused, 0
        return refused

    def _enter(self, key: SubscriptionKey, new: Subscription) -> bool:
        """Remember a subscription; return False when there is no room for it."""
        names = len(new.names)
        if not names:
            # It asks for nothing, so it is listed nowhere.
            return True
        if self.sightings + names > self.max_sightings or sum(map(len, new.names)) > _MAX_NAME * names:
            return False
        new.remembered = True
        self.sightings += names
        self._subscriptions[key] = new
        for name in new.names:
            self._by_name.setdefault(printable(name), {})[key] = new
        return True

    def _refuse(self, sightings: int, now: float) -> None:
        self._refused += sightings
        self._refused_at = now

    def _leave(self, key: SubscriptionKey) -> None:
        left = self._subscriptions.pop(key, None)
        if left is None:
            return
        left.remembered = False
        self.sightings -= len(left.names)
        for name in map(printable, left.names):
            others = self._by_name.get(name, {})
            others.pop(key, None)
            if not others:
                self._by_name.pop(name, None)


class SubscriberReport(Struct, frozen=True, gc=False):
    """The state of one subscriber of one service, as one process saw it. Times are seconds of the database's clock.

    ``version`` is the version in the subscriber's last poll, ``offered`` the one in its last 200; None where there was
    none, or one that is not ours. ``started_at`` is the time of its last poll without a version. ``edge`` is the
    registrar whose edge answers its polls; empty: it polls the process itself.
    """

    process: str
    node_id: str
    cluster: str
    zone: str
    envoy: str
    address: str
    service: str
    api: str
    version_info: str
    version: int | None
    offered: int | None
    status: int | None
    answered_at: float | None
    polled_at: float
    first_seen: float
    held: bool
    pause: float | None
    refusals: int
    refused_since: float | None
    started_at: float | None = None
    edge: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Service, node id, address and API, by which subscribers are listed."""
        return (self.service, self.node_id, self.address, self.api)

    @property
    def seen_at(self) -> float:
        """The time of its last poll or response; a poll that is held is newer."""
        return max(self.polled_at, self.answered_at or 0.0)

    @property
    def precedence(self) -> tuple[object, ...]:
        """The order of reports about one subscriber of one service: the greatest counts."""
        return (self.seen_at, self.held, self.process)


class ServiceVersion(Struct, frozen=True):
    """The version of a service, and the time since when this process has it, by the database's clock."""

    version: int
    since: float


class Evaluation(Struct, frozen=True):
    """How a subscriber keeps up, and the reason for that conclusion."""

    state: State
    reason: str


class SubscriberFilter(Struct, frozen=True):
    """The subscribers that are asked for; None stands for any."""

    service: str | None = None
    node_id: str | None = None
    cluster: str | None = None
    zone: str | None = None

    def fits(self, node: Node) -> bool:
        """Return whether a node is one of them, whatever it asks for."""
        return (
            self.node_id in (None, node.id) and self.cluster in (None, node.cluster) and self.zone in (None, node.zone)
        )


class SubscriberStatus(Struct, frozen=True):
    """A subscriber of a service, the version that the service is at, and how the subscriber keeps up."""

    report: SubscriberReport
    service_version: ServiceVersion
    evaluation: Evaluation


class ClusterSubscribers(Struct, frozen=True):
    """The subscribers of all processes that were asked for.

    Attributes:
        statuses: those that are known.
        others: whether the other processes could be asked.
        refused_ago: seconds since any process did not remember a subscriber, for want of room; None: not lately.
        unlisted: current services of streams that are not in the list, because it would be too long.
    """

    statuses: list[SubscriberStatus]
    others: bool
    refused_ago: float | None
    unlisted: int = 0

    @property
    def complete(self) -> bool:
        """Whether a subscriber that is not in it does not poll."""
        return self.others and self.refused_ago is None


def merge_reports(reports: Iterable[SubscriberReport]) -> list[SubscriberReport]:
    """Return one report for each subscriber of a service, in their order.

    An Envoy polls several processes in turn: the newest report counts. But refusals count wherever they were seen, as
    long as the subscriber still sends the version that it sent there.
    """
    newest: dict[tuple[str, str, str, str], SubscriberReport] = {}
    refusing: dict[tuple[str, str, str, str], SubscriberReport] = {}
    for report in reports:
        newer = newest.get(report.identity)
        if newer is None or report.precedence > newer.precedence:
            newest[report.identity] = report
        worst = refusing.get(report.identity)
        if report.refusals and (worst is None or report.refusals > worst.refusals):
            refusing[report.identity] = report
    return [_joined(newest[identity], refusing.get(identity)) for identity in sorted(newest)]


def _joined(newest: SubscriberReport, refusing: SubscriberReport | None) -> SubscriberReport:
    if refusing is None or newest.refusals or refusing.version_info != newest.version_info:
        return newest
    offered = refusing.offered if newest.offered is None else newest.offered
    return replace(newest, refusals=refusing.refusals, refused_since=refusing.refused_since, offered=offered)


def evaluate(report: SubscriberReport, ours: ServiceVersion, now: float, lag: float = 0.0) -> Evaluation:
    """Return how a subscriber keeps up.

    Args:
        report: the newest report of it.
        ours: the version of its service.
        now: the database's time.
        lag: seconds by which the report may be old, because it is another process's.
    """
    quiet = now - report.seen_at
    if not report.held and quiet > _patience(report.pause) + lag:
        return Evaluation(
            "silent", f"has not polled for {quiet:.0f} s{_usually(report.pause)}{_behind_edge(report, quiet)}"
        )
    if report.status in _REFUSED:
        return Evaluation("stuck", _REFUSED[report.status])
    if (
        report.refusals >= _MIN_REFUSALS
        and report.refused_since is not None
        and now - report.refused_since > _STUCK_AFTER
    ):
        return Evaluation("stuck", f"{_refusal(report)}{_behind_edge(report, quiet)}")
    reason = _why_current(report, ours, quiet)
    if reason:
        return Evaluation("current", reason)
    late = now - ours.since - lag
    if late > _grace(report.pause):
        reason = f"{_brings(report)}, and version {ours.version} is {late:.0f} s old{_behind_edge(report, quiet)}"
        return Evaluation("behind", reason)
    return Evaluation("current", f"{_brings(report)}; version {ours.version} is new")


def _patience(pause: float | None) -> float:
    """Return the seconds without a poll that are usual, and a margin."""
    return max(_SILENT_AFTER, _USUAL_PAUSES * (_UNKNOWN_PAUSE if pause is None else pause))


def _grace(pause: float | None) -> float:
    """Return the seconds in which a subscriber that polls at its pace cannot be expected to know a version."""
    return _BEHIND_AFTER + 2 * (pause or 0.0)


def _behind_edge(report: SubscriberReport, quiet: float) -> str:
    """Return which edge answers a subscriber, and how old its word is; empty for one that polls a registry itself."""
    if not report.edge:
        return ""
    return f"; it is behind the edge of {report.edge}, which told of it {max(0.0, quiet):.0f} s ago"


def _usually(pause: float | None) -> str:
    return "" if pause is None else f"; it usually does within {max(pause, 0.1):.1f} s of an answer"


def _refusal(report: SubscriberReport) -> str:
    if not report.version_info:
        return (
            f"asks again without a version after version {report.offered}, {report.refusals} times: refuses or restarts"
        )
    return f"was answered version {report.offered} and {_brings(report)} all the same, {report.refusals} times in a row"


def _brings(report: SubscriberReport) -> str:
    if report.version is not None:
        return f"brings version {report.version}"
    return "brings a version that is not ours" if report.version_info else "brings no version"


def _why_current(report: SubscriberReport, ours: ServiceVersion, quiet: float) -> str | None:
    """Return why a subscriber is taken to have our version; None if it is not."""
    if report.api == "v1":
        return "polls v1, which has no versions"
    if report.version is not None and report.version >= ours.version:
        later = report.version > ours.version
        return f"holds version {report.version}{', which this process has yet to read' if later else ''}"
    if report.offered is not None and report.offered >= ours.version and not report.refusals:
        # Its next poll shows whether it accepted that.
        return f"was answered version {report.offered} {max(0.0, quiet):.1f} s ago"
    return None


def report_lag(sightings: int) -> float:
    """Return the seconds by which the reports of a process with so many sightings may be old."""
    return max(REPORT_INTERVAL, PUBLISH_INTERVAL * sightings / MAX_REPORTS_PUBLISHED) + REPORT_LAG - REPORT_INTERVAL
