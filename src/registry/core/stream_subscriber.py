"""Subscribers over gRPC streams: what they have acknowledged and rejected. No I/O; time is an argument.

Over a stream nothing is guessed: an acknowledgement (ACK) is proof that a version was accepted, and a rejection (NACK)
comes with the client's own words. So there are no pauses, and a client is never silent while it is connected.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from registry.core.subscriber_status import Evaluation, ServiceVersion, SubscriberReport
from wire.node import Node

BEHIND_AFTER = 10.0
"""Seconds after which a client that has not acknowledged what it was sent is behind."""
MAX_ERROR = 1_000
"""Characters that are kept of a client's words about what it rejects."""
_WITHOUT_VERSION = 0
"""The version of a service that is not registered."""


class StreamReport(SubscriberReport, frozen=True, gc=False, kw_only=True):
    """The state of one service on one stream, as the process that holds it sees it.

    ``version`` is the newest that the client has acknowledged, ``offered`` the one that it was sent since, at
    ``answered_at``. ``held`` is whether the stream is open: another process's is open while that process lives.

    Attributes:
        rejected_version: the version that the client has rejected; None: none, or it has accepted a newer one.
        rejected_at: when.
        error: the client's words about it.
        refusal: why access control does not give it the service; empty: it does.
        oversized: whether the service is not sent, because it is larger than the client takes.
        settled: whether all that is known is that another process has an ACK for all that it has sent.
    """

    rejected_version: int | None = None
    rejected_at: float | None = None
    error: str = ""
    refusal: str = ""
    oversized: bool = False
    settled: bool = False

    @property
    def proves(self) -> bool:
        """Whether the client holds endpoints of the service, and nothing that it was sent is under way."""
        if not self.held or self.refusal or self.rejected_version is not None:
            return False
        return self.settled or (bool(self.version) and self.offered is None)

    @property
    def precedence(self) -> tuple[object, ...]:
        """The order of reports about copies that share a node id and an address: one in trouble counts."""
        trouble = self.rejected_version is not None or bool(self.refusal) or self.oversized
        return (self.held, trouble, -(self.version or 0), self.polled_at, self.process)


class Trouble(Struct, frozen=True, gc=False, omit_defaults=True):
    """A service on a stream that may not be current; as `StreamReport` has it.

    Attributes:
        service: the name of the service.
    """

    service: str
    version: int | None = None
    offered: int | None = None
    answered_at: float | None = None
    rejected_version: int | None = None
    rejected_at: float | None = None
    error: str = ""
    refusal: str = ""
    oversized: bool = False


class StreamRow(Struct, frozen=True, gc=False):
    """One stream as its process tells the others of it.

    Nothing here changes with a change of a service, as long as the client acknowledges it.

    Attributes:
        process_id: the random id of the process that holds it.
        stream: its number in the process.
        process: the name of the process.
        node_id: the id of the node of its client.
        address: the address of its client.
        api: the variant of the protocol.
        cluster: the cluster of the node.
        zone: the zone of the node.
        envoy: the user agent and its version.
        opened_at: when it was opened, by the database's clock.
        services: everything that it asks for.
        troubles: those of them that may not be current.
    """

    process_id: str
    stream: int
    process: str
    node_id: str
    address: str
    api: str
    cluster: str
    zone: str
    envoy: str
    opened_at: float
    services: Sequence[str]
    troubles: Sequence[Trouble] = ()

    @property
    def node(self) -> Node:
        """The node of its client."""
        return Node(self.node_id, self.cluster, self.zone)


class SeenRow(Struct, frozen=True, gc=False):
    """A stream that another process has told of.

    Attributes:
        row: the stream.
        alive: whether that process lives.
        seen_at: when it was seen alive last, by the database's clock.
    """

    row: StreamRow
    alive: bool
    seen_at: float


def reports_of(seen: SeenRow, service: str | None = None) -> Iterator[StreamReport]:
    """Yield a report about each service of another process's stream; of one service alone if it is given."""
    row = seen.row
    troubles = {trouble.service: trouble for trouble in row.troubles}
    services: Iterable[str] = row.services
    if service is not None:
        services = [service] if service in row.services else []
    for name in services:
        trouble = troubles.get(name, _NO_TROUBLE)
        yield StreamReport(
            process=row.process,
            node_id=row.node_id,
            cluster=row.cluster,
            zone=row.zone,
            envoy=row.envoy,
            address=row.address,
            service=name,
            api=row.api,
            version_info="",
            version=trouble.version,
            offered=trouble.offered,
            status=403 if trouble.refusal else None,
            answered_at=trouble.answered_at,
            polled_at=seen.seen_at,
            first_seen=row.opened_at,
            held=seen.alive,
            pause=None,
            refusals=0,
            refused_since=None,
            rejected_version=trouble.rejected_version,
            rejected_at=trouble.rejected_at,
            error=trouble.error,
            refusal=trouble.refusal,
            oversized=trouble.oversized,
            settled=trouble is _NO_TROUBLE,
        )


def reports_of_rows(rows: Iterable[SeenRow], service: str | None, max_current: int) -> Iterator[StreamReport]:
    """Yield reports about other processes' streams; when they get too many, about those in trouble alone.

    Args:
        rows: the streams.
        service: the service that is asked for; None: all.
        max_current: services that are current, at most.
    """
    left = max_current
    for seen in rows:
        all_of_it = service is not None or len(seen.row.services) <= left
        left -= len(seen.row.services) if all_of_it else 0
        for report in reports_of(seen, service):
            if all_of_it or not report.settled:
                yield report


def trouble_of(report: StreamReport) -> Trouble:
    """Return what other processes are told of a report."""
    return Trouble(
        report.service,
        report.version,
        report.offered,
        report.answered_at,
        report.rejected_version,
        report.rejected_at,
        report.error,
        report.refusal,
        report.oversized,
    )


_NO_TROUBLE = Trouble("")
"""What stands for a service that is current."""


def evaluate_stream(report: StreamReport, ours: ServiceVersion, now: float, lag: float = 0.0) -> Evaluation:
    """Return how a subscriber over a stream keeps up.

    Args:
        report: the report of it.
        ours: the version of its service.
        now: the database's time.
        lag: seconds by which the report may be old, because it is another process's.
    """
    if not report.held:
        quiet = max(0.0, now - report.seen_at)
        return Evaluation("silent", f"the registry process that held its stream has not reported for {quiet:.0f} s")
    if report.settled:
        return Evaluation("current", "has acknowledged everything that it was sent")
    if report.refusal:
        return Evaluation("stuck", f"it gets nothing of this service: {report.refusal}")
    version = report.version or _WITHOUT_VERSION
    if report.rejected_version is not None and report.rejected_version > version:
        return Evaluation("rejected", _rejection(report))
    if version >= ours.version:
        return Evaluation("current", _why_current(report, ours))
    return _evaluate_older(report, ours, now, lag)


def _evaluate_older(report: StreamReport, ours: ServiceVersion, now: float, lag: float) -> Evaluation:
    """Return how a subscriber keeps up that has rejected nothing and acknowledged an older version than ours."""
    if report.oversized:
        reason = f"version {ours.version} is too large for one message to a gRPC client (4 MiB), so it is not sent"
        return Evaluation("behind", reason)
    if report.offered is not None and report.answered_at is not None:
        late = max(0.0, now - report.answered_at - lag)
        reason = f"{_holds(report)}, and has not answered version {report.offered} for {late:.0f} s"
    else:
        late = max(0.0, now - ours.since - lag)
        reason = f"{_holds(report)}, and version {ours.version} is {late:.0f} s old"
    return Evaluation("behind" if late > BEHIND_AFTER else "current", reason)


def _rejection(report: StreamReport) -> str:
    words = report.error or "it gave no reason"
    return f"refuses version {report.rejected_version} of {report.service}: {words}"


def _why_current(report: StreamReport, ours: ServiceVersion) -> str:
    if ours.version == _WITHOUT_VERSION and not report.version:
        return "the service is not registered"
    later = (report.version or 0) > ours.version
    return f"has acknowledged version {report.version}{', which this process has yet to read' if later else ''}"


def _holds(report: StreamReport) -> str:
    if report.version:
        return f"has acknowledged version {report.version}"
    return "has acknowledged nothing yet"
