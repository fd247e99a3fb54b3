"""The protocol of a discovery stream, without I/O: requests come in, and answers are asked for. Time is an argument.

The rules are those of the xDS protocol (envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol). The parts that state of
the world and delta have in common are here:

- One answer of a type is in flight. Until the client has accepted or rejected it, changes only mark names as dirty, so
  a slow client costs nothing and gets the newest state. One that does neither for ten seconds gets the next answer.
- A version that the client has rejected is not sent again on this stream; the next one is, at once.
- A process that is not sure of something says nothing about it.
- Within an update, clusters come before assignments, listeners and routes; clusters are removed last.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from sys import intern, version_info
from typing import TypeVar

from google.protobuf.message import DecodeError
from msgspec import Struct

from registry.errors import UnavailableError
from registry.http2.call import Status, StatusError
from registry.xds.grpc import messages_pb2 as messages
from registry.xds.grpc.client import Client, read_client
from registry.xds.grpc.observer import Guard, Observer, Rejection
from registry.xds.grpc.record import TypeRecord
from registry.xds.grpc.response import Parts, ResponseTails
from registry.xds.grpc.source import EncodedResource, Source
from registry.xds.resources import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES
from wire.node import Node, printable

ACK_TIMEOUT = 10.0
"""Seconds after which a stream goes on although its last answer was neither accepted nor rejected."""
MAX_ANSWER = 7 * 512 * 1024
"""Bytes of an answer of several resources, and of one resource for a gRPC library, which takes 4 MiB at most."""
MAX_NAMES = 10_000
"""Names of one type on one stream."""
MAX_NAME = 1024
"""Characters of a resource name."""
_MAX_MESSAGE = 1000
"""Characters that are kept of a client's words about a rejected answer."""
_CLUSTERS_URL, _ENDPOINTS_URL = CLUSTERS.type_urls["v3"], ENDPOINTS.type_urls["v3"]
"""Bound once, because they are looked for with each answer."""
_share: Callable[[str], str] = str if version_info[:2] == (3, 12) else intern
"""Returns the text that all streams share. Python 3.12.1 never frees one of these, and clients may ask for any name."""
Request = TypeVar("Request", messages.DiscoveryRequest, messages.DeltaDiscoveryRequest)
WILDCARD = "*"
"""The name of all resources of a node."""


class Discoverable(Struct, frozen=True):
    """Everything that the streams of a process share.

    Attributes:
        sources: the sources by their type URL, for a kind of client.
        tails: the ends of answers.
    """

    sources: Callable[[Client], Mapping[str, Source]]
    tails: ResponseTails


class Stream(ABC):
    """One stream of discovery; a `registry.http2.call.Call`.

    Args:
        shared: what the streams of this process share.
        guard: decides which names the client may discover.
        observer: takes note of what happens.
        wake: called when there may be something to send.
        only: the type URL of the only type that may be asked for; None: all, as ADS has it.
    """

    delta: bool
    """Whether answers are deltas."""

    def __init__(
        self,
        shared: Discoverable,
        guard: Guard,
        observer: Observer,
        wake: Callable[[], None],
        only: str | None = None,
    ) -> None:
        self._client = Client()
        """The client, as its first request says; anonymous before that. Written by _begin()."""
        self._begun = False
        """Whether the first request has come."""
        self._ending: StatusError | None = None
        """What ends the stream. Written by end()."""
        self.answers = 0
        """Answers that were sent so far."""
        self._awaited: set[str] = set()
        """Assignments that clusters wait for which were sent on this stream, until they are sent behind them."""
        self._shared = shared
        self._guard = guard
        self._observer = observer
        self._wake = wake
        self._only = only
        self._sources: Mapping[str, Source] = {}
        """What may be asked for, by type URL. Written with the first request."""
        self._records: dict[str, TypeRecord] = {}
        """What was asked for, by type URL, in the order in which types are sent."""

    @property
    def records(self) -> Iterable[TypeRecord]:
        """The records of the types that were asked for."""
        return self._records.values()

    @property
    def node(self) -> Node:
        """The node of the first request; anonymous before that."""
        return self._client.node

    @property
    def user_agent(self) -> str:
        """The user agent of the first request."""
        return self._client.user_agent

    def end(self, error: StatusError) -> None:
        """End the stream with a status when it is asked for its next answer."""
        self._ending = error
        self._wake()

    def receive(self, message: bytes, now: float) -> bool:
        """Take a request; return whether there may be something to send now.

        Raises:
            StatusError: it cannot be read, asks for too much, or for something else than this method serves.
        """
        for record in self._records.values():
            if message and message == record.expected_ack:
                # It is the same as if it were read: an ACK of what is in flight, with the names of the last request.
                self._accept(record, now)
                return self._is_busy()
        self._read(message, now)
        self._look_anew()
        return True

    @abstractmethod
    def _read(self, message: bytes, now: float) -> None:
        """Read a request, and do what it says.

        Raises:
            StatusError: as ``receive``.
        """

    def _is_busy(self) -> bool:
        for record in self._records.values():
            if record.dirty or record.dirty_all or record.answer_due or record.removals_due:
                return True
        return False

    def next(self, now: float) -> Parts | None:
        """Return the next answer; None: there is nothing to send now.

        Raises:
            StatusError: this process cannot say yet what the client asked for first, or the stream is to end.
        """
        if self._ending is not None:
            raise self._ending
        removes = False
        for record in self._records.values():
            # As has_work, without a call: this is asked twice for each push.
            has_work = (record.dirty or record.dirty_all or record.answer_due) and not record.unsure
            if has_work and self._may_send(record, now):
                parts = self._plain_answer(record, now) or self._special_answer(record, now)
                if parts is not None:
                    self.answers += 1
                    return parts
            removes |= record.removals_due
        return self._remove_clusters(self._records[_CLUSTERS_URL], now) if removes else None

    def _special_answer(self, record: TypeRecord, now: float) -> Parts | None:
        parts = self._answer(record, now)
        self._look_anew()
        return parts

    def _look_anew(self) -> None:
        """Have it looked at what is noted of names, because that may have changed."""
        for record in self._records.values():
            record.is_ordinary = False

    def _plain_answer(self, record: TypeRecord, now: float) -> Parts | None:
        """Return the shared answer to the change of one assignment; None: there is none.

        Nearly all answers are such. It is the one that ``_answer`` returns, in a third of the time.
        """
        name = record.plain_change if record.type is ENDPOINTS and not self._awaited else None
        if name is None:
            return None
        try:
            resource = record.source.find(self._client.node, name)
        except UnavailableError:
            return None
        if resource is None or record.sent.get(name) == resource.version:
            return None
        whole = self._shared.tails.whole(_ENDPOINTS_URL, resource, delta=self.delta)
        if whole is None or whole.number <= record.whole_number:
            # One that was sent before may not come again, because its nonce would mean two answers.
            return None
        record.dirty.clear()
        record.in_flight = {name: record.sent.get(name, "")}
        record.sent[name] = resource.version
        record.answer_size = 1
        record.sent_at = now
        record.note_whole(whole)
        self._observer.answered(ENDPOINTS, delta=self.delta, resources=1)
        return whole.parts

    def _remove_clusters(self, clusters: TypeRecord, now: float) -> Parts | None:
        """Return an answer that removes clusters, once nothing that was sent can use them any more."""
        if not self._is_settled() or not self._may_send(clusters, now):
            return None
        clusters.dirty_all, clusters.removals_due = True, False
        parts = self._special_answer(clusters, now)
        self.answers += parts is not None
        return parts

    def _is_settled(self) -> bool:
        """Return whether the client has accepted all listeners and routes that there are for it."""
        records = [self._records.get(each.type_urls["v3"]) for each in (LISTENERS, ROUTES)]
        return not any(
            record is not None and (record.has_work or record.in_flight is not None or record.rejected)
            for record in records
        )

    def pending(self) -> bool:
        """Return False: what a stream lacks in order to answer ends it, or comes with some later change."""
        return False

    def deadline(self) -> float | None:
        """Return when the stream goes on without an ACK; None: nothing that is to be sent waits for one."""
        deadline: float | None = None
        for record in self._records.values():
            if (record.dirty or record.dirty_all or record.answer_due) and not record.unsure:
                # Another answer that is in flight, perhaps for minutes, holds nothing up: its time may be over.
                awaited = record if record.in_flight is not None else self._records.get(_CLUSTERS_URL)
                if awaited is not None and awaited.in_flight is not None:
                    at = awaited.sent_at + ACK_TIMEOUT
                    deadline = at if deadline is None else min(deadline, at)
        return deadline

    def close(self, now: float) -> None:
        """Stop watching."""
        for record in self._records.values():
            self._unwatch(record)
        if self._begun:
            self._observer.closed(now)

    @abstractmethod
    def _answer(self, record: TypeRecord, now: float) -> Parts | None:
        """Return an answer of a type; None: nothing has to be sent."""

    def _begin(self, node: bytes) -> None:
        """Read the client in the first request; later ones may repeat it, and are not looked at."""
        if not self._begun:
            self._begun = True
            self._client = read_client(node)
            self._sources = self._shared.sources(self._client)
            self._observer.opened(self)

    def _parse(self, kind: type[Request], message: bytes) -> tuple[Request, TypeRecord | None]:
        """Return a request and the record of its type; None for a type that is not served.

        Raises:
            StatusError: it cannot be read, or is of no type of this method.
        """
        try:
            request = kind.FromString(message)
        except DecodeError:
            words = f"the message is no {kind.DESCRIPTOR.name}"
            raise StatusError(Status.INVALID_ARGUMENT, words) from None
        self._begin(request.node)
        return request, self._record_of(request.type_url)

    def _record_of(self, type_url: str) -> TypeRecord | None:
        """Return the record of a type, new at its first request; None for a type that is not served.

        Raises:
            StatusError: the method is for another type.
        """
        if self._only is not None:
            if type_url not in ("", self._only):
                raise StatusError(
                    Status.INVALID_ARGUMENT,
                    f"this method serves {self._only}, not {type_url[:200]!r}; use ADS for others",
                )
            type_url = self._only
        elif not type_url:
            raise StatusError(Status.INVALID_ARGUMENT, "the request has no type_url, which ADS needs")
        record = self._records.get(type_url)
        if record is None and type_url in self._sources:
            record = TypeRecord(self._sources[type_url])
            records = {**self._records, type_url: record}
            self._records = dict(sorted(records.items(), key=lambda item: item[1].source.type.order))
        return record

    def _watch(self, record: TypeRecord, added: Iterable[str], removed: Iterable[str]) -> None:
        """Watch what a record asks for now."""
        if record.watch is None:
            names = None if record.wildcard else record.names
            changed = partial(self._note_changes, record)
            record.watch = record.source.standing_watch(self._client.node, names, changed)
        elif not record.wildcard:
            record.watch.remove(removed)
            record.watch.add(added)

    def _unwatch(self, record: TypeRecord) -> None:
        """Watch nothing, because the client asks for all resources now, or for some of them instead."""
        if record.watch is not None:
            record.watch.cancel()
            record.watch = None

    def _check_access(self, record: TypeRecord, names: Iterable[str]) -> None:
        """Remember which of some new names the client may not discover, and why."""
        for name in names:
            words = self._guard.refusal(record.type, self._client.node, name)
            if words:
                record.refused[name] = words

    def _note_changes(self, record: TypeRecord, names: AbstractSet[str] | None) -> None:
        """Take note that names have changed; None: any of them may have."""
        idle = not record.has_work
        record.unsure = False
        if names is None or record.wildcard:
            record.dirty_all = True
        else:
            for name in names:
                if name in record.names:
                    if name in record.dirty and record.in_flight is not None:
                        self._observer.coalesced(record.type)
                    record.dirty[name] = None
        if record.type.keyed_by_cluster:
            # One revision changes clusters and routes together, and its clusters are removed last.
            for other in self._records.values():
                if other.type.keyed_by_cluster:
                    other.dirty_all = True
        if idle:
            self._wake()

    def _may_send(self, record: TypeRecord, now: float) -> bool:
        if record.in_flight is None:
            return not (record.uses_clusters and self._is_held(record, now))
        if now - record.sent_at < ACK_TIMEOUT:
            return False
        # It may still be rejected, which the next nonce voids; so the next answer brings its names once more.
        in_flight = record.settle()
        record.take_back(in_flight)
        record.dirty.update(dict.fromkeys(in_flight))
        self._observer.unacknowledged(record.type)
        return True

    def _settle(self, record: TypeRecord, request: Request, now: float) -> bool:
        """Take the ACK or NACK of a request; return whether it repeats what was accepted or rejected before.

        An ACK is the nonce of the last answer without an error, a NACK the same with one. Versions say nothing, and
        neither do the nonces of earlier answers.
        """
        nonce, accepts = request.response_nonce, not request.HasField("error_detail")
        if not nonce or nonce != record.nonce:
            return False
        if record.in_flight is None:
            return accepts
        if accepts:
            self._accept(record, now)
        else:
            self._reject(record, request.error_detail.message.decode("utf-8", "replace"), now)
        return False

    def _accept(self, record: TypeRecord, now: float) -> None:
        in_flight = record.settle()
        record.unsure = False
        if record.rejections:
            record.note_accepted(in_flight if self._is_divisible(record) else tuple(record.rejected))
        self._observer.acknowledged(record.type, in_flight, now)

    def _reject(self, record: TypeRecord, message: str, now: float) -> None:
        in_flight = record.settle()
        record.unsure = False
        sent = record.sent
        refused = {name: sent[name] for name in in_flight if name in sent}
        rejection = Rejection(now, printable(message[:_MAX_MESSAGE]), refused)
        if not self._is_divisible(record):
            record.rejected = dict(sent)
        elif record.answer_size > 1:
            # Any of them may be the bad one, or one that was unsubscribed since; alone, the others are accepted.
            record.alone.update(refused)
            record.dirty.update(dict.fromkeys(refused))
        else:
            record.rejected.update(refused)
        if refused and len(refused) < len(in_flight) and self._is_divisible(record):
            # Names that do not exist are told again, without what was refused.
            record.dirty.update(dict.fromkeys(name for name in in_flight if name not in refused))
        record.rejections.update(dict.fromkeys(refused, rejection))
        record.take_back(in_flight)
        self._observer.rejected(record.type, rejection)

    @abstractmethod
    def _is_divisible(self, record: TypeRecord) -> bool:
        """Return whether the resources of a type may be sent in several answers."""

    def _send_assignments_again(self, clusters: Iterable[EncodedResource]) -> None:
        """Send the assignments of changed clusters again, right behind them.

        Envoy begins with such a cluster anew, and may not ask for its assignment. Its ACK comes when no cluster warms
        any more (its ClusterManagerImpl pauses CDS), so that to wait for it would be to wait for ever.
        """
        names = {name for cluster in clusters for name in cluster.endpoints}
        self._awaited |= names
        endpoints = self._records.get(_ENDPOINTS_URL)
        if endpoints is not None:
            for name in names:
                if endpoints.sent.pop(name, None) is not None or name in endpoints.missing:
                    endpoints.missing.discard(name)
                    endpoints.dirty[name] = None

    def _is_held(self, record: TypeRecord, now: float) -> bool:
        """Return whether changed listeners or routes wait for clusters that are on their way, which they may use."""
        if not record.answers:
            return False
        clusters = self._records.get(_CLUSTERS_URL)
        return clusters is not None and clusters.in_flight is not None and now - clusters.sent_at < ACK_TIMEOUT

    def _collect(self, record: TypeRecord) -> tuple[list[EncodedResource], list[str]]:
        """Take the dirty names, as many as one answer holds: the resources to send, and the names without one.

        Raises:
            StatusError: as ``_note_unsure``.
        """
        node, find = self._client.node, record.source.find
        resources: list[EncodedResource] = []
        missing: list[str] = []
        size = 0
        doubt: UnavailableError | None = None
        for name in list(record.dirty):
            try:
                resource = None if name in record.refused else find(node, name)
            except UnavailableError as error:
                # It may be this name alone, which stays dirty.
                doubt = error
                continue
            if resource is None:
                missing.append(name)
                resource = self._absent(record, name)
            else:
                record.missing.discard(name)
            if resource is not None and self._is_news(record, resource) and not self._is_oversized(record, resource):
                alone = name in record.alone
                if resources and (size + resource.size > MAX_ANSWER or alone):
                    break
                resources.append(resource)
                size += resource.size
                if alone:
                    record.alone.discard(name)
                    del record.dirty[name]
                    break
            del record.dirty[name]
        record.holds_nothing -= {each.name for each in resources}.difference(missing)
        if doubt is not None and (resources or missing):
            record.unsure = True
        elif doubt is not None:
            self._note_unsure(record, doubt)
        return resources, missing

    def _absent(self, _record: TypeRecord, _name: str) -> EncodedResource | None:
        """Return what stands for an unknown name; None: nothing."""
        return None

    def _is_news(self, record: TypeRecord, resource: EncodedResource) -> bool:
        name, version = resource.name, resource.version
        return record.sent.get(name) != version and record.rejected.get(name) != version

    def _is_oversized(self, record: TypeRecord, resource: EncodedResource) -> bool:
        """Return whether a resource is larger than a gRPC library takes, which would reconnect for ever."""
        if not self._client.is_grpc or resource.size <= MAX_ANSWER:
            record.too_large.pop(resource.name, None)
            return False
        if record.too_large.get(resource.name) != resource.version:
            record.too_large[resource.name] = resource.version
            self._observer.oversized(record.type, resource.name, resource.size)
        return True

    def _note_unsure(self, record: TypeRecord, error: UnavailableError) -> None:
        """Say nothing of a type before its next change.

        Raises:
            StatusError: the client has just started, and another process may know; one that holds something waits here.
        """
        record.unsure = True
        if not (self.answers or record.brought or record.brought_versions):
            raise StatusError(Status.UNAVAILABLE, str(error)) from None

    def _note_sent(self, record: TypeRecord, resources: Sequence[EncodedResource], now: float) -> int:
        """Take note of an answer that is not shared, and return its number, which is its nonce."""
        sent, brought = record.sent, record.brought_versions
        in_flight = {}
        for resource in resources:
            name = resource.name
            in_flight[name] = sent.get(name, "")
            sent[name] = resource.version
            brought.pop(name, None)
        if record.type is CLUSTERS:
            self._send_assignments_again(resources)
        elif record.type is ENDPOINTS and self._awaited:
            self._awaited.difference_update(in_flight)
        record.in_flight = in_flight
        record.answer_size = len(in_flight)
        record.sent_at = now
        record.answer_due = False
        record.answers += 1
        record.nonce, record.expected_ack = str(record.answers), b""
        self._observer.answered(record.type, delta=self.delta, resources=len(in_flight))
        return record.answers


def check_count(names: int) -> None:
    """Refuse more names than a stream may ask for of one type.

    Raises:
        StatusError: there are too many.
    """
    if names > MAX_NAMES:
        raise StatusError(Status.INVALID_ARGUMENT, f"{names} names; at most {MAX_NAMES} are allowed for one type")


def distinct_names(requested: Sequence[str]) -> dict[str, None]:
    """Return the names of a request, each once.

    Raises:
        StatusError: there are too many, or one is too long.
    """
    check_count(len(requested))
    for name in requested:
        if len(name) > MAX_NAME:
            raise StatusError(
                Status.INVALID_ARGUMENT, f"a name has {len(name)} characters; at most {MAX_NAME} are allowed"
            )
    # Names of services are the same texts on all streams, which share them.
    return dict.fromkeys(map(_share, requested))
