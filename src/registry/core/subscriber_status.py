"""Status of subscribers: the reports of all processes, merged, and evaluated. No I/O; time is an argument.

Each process reports what it has seen of a subscriber (``registry.core.subscriber``). An Envoy polls several of them in
turn, so only all reports together say whether it keeps up.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from registry.core.subscriber import MIN_REFUSALS, REFUSED, REPORT_INTERVAL
from wire.node import Node

State = Literal["current", "behind", "stuck", "rejected", "silent"]
"""How a subscriber keeps up; only one over a stream says itself that it has rejected a version."""

REPORT_LAG = REPORT_INTERVAL + 5.0
"""Seconds by which a report of another process may be older than the state of that process."""

MAX_REPORTS_PUBLISHED = 5_000
"""Reports that a process publishes in one turn."""

PUBLISH_INTERVAL = 3.0
"""Seconds between two turns of publishing."""

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
    if report.status in REFUSED:
        return Evaluation("stuck", REFUSED[report.status])
    if (
        report.refusals >= MIN_REFUSALS
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
