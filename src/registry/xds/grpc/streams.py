"""The open streams of this process: what is counted of them, and what lists of subscribers say of each.

A stream keeps what it was sent, and the client's word about it. Here is one small object for each stream, and nothing
for each of its services: reports are made when somebody reads them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import structlog

from registry.core.clock import Clock
from registry.core.stream_subscriber import BEHIND_AFTER, MAX_ERROR, StreamReport
from registry.metrics import (
    PROPAGATION,
    XDS_ANSWERS,
    XDS_COALESCED,
    XDS_NACKS,
    XDS_OVERSIZED,
    XDS_STREAMS,
    XDS_UNACKNOWLEDGED,
)
from registry.xds.grpc.observer import Guard, ObservedStream, Observer, Record, Rejection
from registry.xds.resource_cache import ServedType
from registry.xds.resources import ENDPOINTS, ResourceType
from registry.xds.version_info import parse_version_info
from wire.node import ANONYMOUS, Node, printable

log = structlog.get_logger()

_ANONYMOUS_CLIENT = "other"
_MAX_AGES = 1_000
"""Versions whose time is remembered, so that a thousand streams that acknowledge one change look it up once."""
_observe = PROPAGATION.labels("stream").observe
_coalesce = XDS_COALESCED.inc


class StreamEntry(Observer):
    """One open stream.

    Args:
        streams: the streams of this process.
        method: the method that was called, without its service.
        address: the IP address of the client.
        opened_at: when it was opened (monotonic).
    """

    __slots__ = ("_streams", "address", "client", "guard", "method", "opened_at", "published", "stream")

    def __init__(self, streams: "Streams", method: str, address: str, opened_at: float) -> None:
        self._streams = streams
        self.method = method
        self.address = address
        self.opened_at = opened_at
        self.client = _ANONYMOUS_CLIENT
        """The label of the client in metrics. Written by opened()."""
        self.guard: Guard | None = None
        """What decides which names it may ask for; None: everything is allowed. Written by StreamAccess."""
        self.stream: ObservedStream | None = None
        """The stream, from its first request until it ends. Written by opened() and closed()."""
        self.published: object = None
        """What was published of it to the other processes. Written by SubscriberSync."""

    @property
    def node(self) -> Node:
        """The node of its client."""
        return ANONYMOUS if self.stream is None else self.stream.node

    def opened(self, stream: ObservedStream) -> None:
        """Enter the stream, whose client is known now."""
        self.stream = stream
        self.client = label_of(stream.user_agent)
        self._streams.enter(self)

    def closed(self, now: float) -> None:  # noqa: ARG002  # as Observer has it
        """Forget the stream."""
        if self.stream is not None:
            self._streams.leave(self)
            self.stream = None

    def answered(self, resource_type: ResourceType, *, delta: bool, resources: int) -> None:  # noqa: ARG002
        """Count an answer."""
        self._streams.count_answer[resource_type.name, delta]()

    def acknowledged(self, resource_type: ResourceType, previous: Mapping[str, str], now: float) -> None:
        """Observe the age of the changes that the client has taken with this answer."""
        if resource_type is ENDPOINTS:
            self._streams.observe_ages(previous, now)

    def rejected(self, resource_type: ResourceType, rejection: Rejection) -> None:
        """Count a rejection, and log it with the client's words."""
        self._streams.note_rejection(self, resource_type, rejection)

    def unacknowledged(self, resource_type: ResourceType) -> None:  # noqa: ARG002  # as Observer has it
        """Count an answer that stayed without ACK and NACK."""
        XDS_UNACKNOWLEDGED.inc()

    def coalesced(self, resource_type: ResourceType) -> None:  # noqa: ARG002  # as Observer has it
        """Count a change that was overtaken."""
        _coalesce()

    def oversized(self, resource_type: ResourceType, name: str, size: int) -> None:
        """Count a resource that is too large, and log it."""
        XDS_OVERSIZED.labels(resource_type.name).inc()
        log.warning(
            "resource_oversized",
            type=resource_type.name,
            name=printable(name),
            bytes=size,
            node=self.node.id,
            peer=self.address,
        )


class Streams:
    """The open streams of this process.

    Args:
        served: the resource types that are served.
        clock: the database's time.
        note_rejection: called with each rejection, its stream and its type.
    """

    def __init__(
        self,
        served: Iterable[ServedType],
        clock: Clock,
        note_rejection: Callable[[StreamEntry, ResourceType, Rejection], None] | None = None,
    ) -> None:
        served = list(served)
        self._caches = {each.type.name: each.cache for each in served}
        self._clock = clock
        self._note_rejection = note_rejection
        self._entries: dict[StreamEntry, None] = {}
        """The open streams, the oldest first. Written by enter() and leave()."""
        self._made: dict[tuple[str, str], float | None] = {}
        """When the oldest change was stored that a holder of a version lacks, by name and version; None: not known.
        Written by _made_after()."""
        self.count_answer = {
            (each.type.name, delta): XDS_ANSWERS.labels(each.type.name, "delta" if delta else "sotw").inc
            for each in served
            for delta in (False, True)
        }
        """What counts an answer, by type and variant. Bound once, because it is called for each answer."""
        for each in served:
            XDS_NACKS.labels(each.type.name)

    def __len__(self) -> int:
        """Return the number of open streams whose client is known."""
        return len(self._entries)

    def __iter__(self) -> Iterator[StreamEntry]:
        """Iterate over the open streams, the oldest first."""
        return iter(list(self._entries))

    def observer(self, method: str, address: str, now: float) -> StreamEntry:
        """Return the observer of a stream that begins."""
        return StreamEntry(self, method, address, now)

    def enter(self, entry: StreamEntry) -> None:
        """Enter a stream whose client is known."""
        self._entries[entry] = None
        XDS_STREAMS.labels(entry.method, entry.client).inc()

    def leave(self, entry: StreamEntry) -> None:
        """Forget a stream that has ended."""
        if entry in self._entries:
            del self._entries[entry]
            XDS_STREAMS.labels(entry.method, entry.client).dec()

    def note_rejection(self, entry: StreamEntry, resource_type: ResourceType, rejection: Rejection) -> None:
        """Count a rejection, log it, and pass it on."""
        XDS_NACKS.labels(resource_type.name).inc()
        versions = {printable(name): version for name, version in list(rejection.versions.items())[:5]}
        log.warning(
            "answer_rejected",
            type=resource_type.name,
            node=entry.node.id,
            cluster=entry.node.cluster,
            peer=entry.address,
            client=client_of(entry),
            versions=versions,
            resources=len(rejection.versions),
            error=rejection.message[:MAX_ERROR],
        )
        if self._note_rejection is not None:
            self._note_rejection(entry, resource_type, rejection)

    def observe_ages(self, previous: Mapping[str, str], now: float) -> None:
        """Observe the age of the oldest change that each of these services has brought.

        A client that held nothing of a service begins with it: that is not measured.
        """
        made, at = self._made, self._clock.at(now)
        for key in previous.items():
            if key[1]:
                made_at = made[key] if key in made else self._made_after(key, now)
                if made_at is not None:
                    _observe(max(0.0, at - made_at))

    def _made_after(self, key: tuple[str, str], now: float) -> float | None:
        """Return when the oldest change was stored that a holder of a version of a service lacks, and remember it."""
        name, version = key
        cache = self._caches[ENDPOINTS.name]
        versions = parse_version_info(cache.database_id, (name,), version, ENDPOINTS)
        age = None if versions is None else cache.change_age(name, versions[0], now)
        made_at = None if age is None else self._clock.at(now) - age
        if len(self._made) >= _MAX_AGES:
            self._made.clear()
        self._made[key] = made_at
        return made_at


def label_of(user_agent: str) -> Literal["envoy", "grpc", "other"]:
    """Return the label of a client in metrics, which is one of few."""
    if user_agent == "envoy":
        return "envoy"
    return "grpc" if user_agent.startswith("gRPC") else "other"


def client_of(entry: StreamEntry) -> str:
    """Return the user agent of a client and its version, as lists of subscribers have them."""
    name = "" if entry.stream is None else entry.stream.user_agent
    return f"{name} {entry.node.version}".strip()


def troubled_names(record: Record, now: float) -> Iterator[str]:
    """Yield the names of a record that may not be current; all others are acknowledged as they were sent.

    A stream of a thousand services that are current costs nothing here.
    """
    troubled = set(record.troubled)
    if record.unanswered and now - record.sent_at > BEHIND_AFTER:
        troubled.update(record.unanswered, record.waiting)
    yield from troubled.intersection(record.names)


class ReportMaker:
    """Makes the reports about the services on streams of one process.

    Args:
        process: the name of the process, which its reports carry.
        clock: the database's time.
        database_id: returns the database whose versions are read.
    """

    def __init__(self, process: str, clock: Clock, database_id: Callable[[], str]) -> None:
        self._process = process
        self._clock = clock
        self._database_id = database_id

    def reports(self, entry: StreamEntry, record: Record, names: Iterable[str], now: float) -> Iterator[StreamReport]:
        """Yield a report about each of these services of a stream, which its record has."""
        stream = entry.stream
        if stream is None:
            return
        node, at = stream.node, self._clock.at
        envoy, address = client_of(entry), printable(entry.address)
        api = "grpc-delta" if stream.delta else "grpc"
        unanswered = record.unanswered
        for name in names:
            rejection = record.rejection(name)
            accepted = record.accepted(name)
            yield StreamReport(
                process=self._process,
                node_id=node.id,
                cluster=node.cluster,
                zone=node.zone,
                envoy=envoy,
                address=address,
                service=printable(name),
                api=api,
                version_info=printable(accepted),
                version=self._number(name, accepted),
                offered=self._number(name, record.offered(name)) if name in unanswered else None,
                status=403 if record.refusal(name) else None,
                answered_at=at(record.sent_at) if name in unanswered else None,
                polled_at=at(now),
                first_seen=at(entry.opened_at),
                held=True,
                pause=None,
                refusals=0,
                refused_since=None,
                rejected_version=None if rejection is None else self._number(name, rejection.versions.get(name, "")),
                rejected_at=None if rejection is None else at(rejection.at),
                error="" if rejection is None else rejection.message[:MAX_ERROR],
                # It quotes the name, which may be any text.
                refusal=printable(record.refusal(name)),
                oversized=record.oversized(name),
            )

    def _number(self, name: str, version: str) -> int | None:
        versions = parse_version_info(self._database_id(), (name,), version, ENDPOINTS) if version else None
        return None if versions is None else versions[0]
