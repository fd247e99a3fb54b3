"""Access on streams: who opens one, what it may ask for, and when its credential or a grant ends.

A stream is decided when it opens and when a name is asked for, as a poll is each time. A decision stands as long as
what it rests on: every second those streams are looked at whose credential has ended or changed.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence

import structlog

from registry.auth.certificate import certificate_names
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cooperative import cooperatively
from registry.errors import NotAllowedError, RegistryError, UnauthenticatedError, UnavailableError
from registry.http2.call import Call, Metadata, Peer, Service, Status, StatusError
from registry.metrics import XDS_REFUSED
from registry.usecases.authentication import Authentication, Sender
from registry.xds.grpc.observer import Guard, NoGuard, ObservedStream, Observer, Record
from registry.xds.grpc.streams import StreamEntry, Streams
from registry.xds.resources import ResourceType
from wire.node import Node

log = structlog.get_logger()

_AUTHORIZATION = "authorization"
_MAX_WAITING_BYTES = 1 << 20
"""Bytes of requests that are kept while a credential is searched in PostgreSQL; the first has 61 kB."""
_DISCOVER = Verb.DISCOVER
_NO_GUARD = NoGuard()
_STATUSES = {
    UnauthenticatedError: Status.UNAUTHENTICATED,
    NotAllowedError: Status.PERMISSION_DENIED,
    UnavailableError: Status.UNAVAILABLE,
}


class StreamGuard(Guard):
    """Decides what one stream may ask for, by the principal that opened it.

    Args:
        policy: decides.
        peer: the client.
        authorization: its credential, as it was sent; None: none was.
        principal: its principal.
    """

    __slots__ = ("_policy", "authorization", "generation", "peer", "principal")

    def __init__(self, policy: Policy, peer: Peer, authorization: bytes | None, principal: Principal) -> None:
        self._policy = policy
        self.peer = peer
        self.authorization = authorization
        self.principal = principal
        """The principal. Written when the stream opens, and by StreamAccess when its facts are read anew."""
        self.generation = -1
        """The generation of the table of credentials that the principal comes from. Written by StreamAccess."""

    def __repr__(self) -> str:
        """Name the principal, and never the credential."""
        return f"StreamGuard({self.principal.name})"

    def refusal(self, resource_type: ResourceType, node: Node, name: str) -> str:
        """Return why a name may not be discovered, and note it; empty: it may."""
        try:
            self._policy.allow(self.principal, _DISCOVER, _decided_by(resource_type, node, name))
        except RegistryError as error:
            return str(error)
        return ""

    def would_refuse(self, principal: Principal, resource_type: ResourceType, node: Node, name: str) -> str:
        """Return why a principal would be refused a name, without noting it; empty: it would not, or nothing is."""
        if not self._policy.enforces(_DISCOVER):
            return ""
        refusal = self._policy.refusal(principal, _DISCOVER, _decided_by(resource_type, node, name))
        return "" if refusal is None else refusal.reason


class StreamAccess:
    """Admits streams, and ends those whose credential or grants have ended.

    Args:
        policy: decides who may discover what.
        authentication: makes principals.
        streams: the open streams.
    """

    def __init__(self, policy: Policy, authentication: Authentication, streams: Streams) -> None:
        self._policy = policy
        self._authentication = authentication
        self._streams = streams

    def is_known(self, metadata: Metadata, peer: Peer) -> bool:
        """Return whether the principal of a call can be made from memory."""
        return self._policy.mode == "off" or self._sender(peer).identify(_authorization_of(metadata))

    async def search(self, metadata: Metadata, peer: Peer) -> None:
        """Read the credential of a call from PostgreSQL.

        Raises:
            StatusError: it cannot be read now (UNAVAILABLE).
        """
        principal = await self._principal(peer, _authorization_of(metadata))
        if principal.subject.unknown:
            raise _refuse(Status.UNAVAILABLE, principal.subject.problem)

    def admit(self, path: str, metadata: Metadata, peer: Peer) -> tuple[Guard, Observer]:
        """Return what guards and what observes a stream.

        Raises:
            StatusError: there is no valid credential (UNAUTHENTICATED), it allows nothing to be discovered
                (PERMISSION_DENIED), or nothing is known yet (UNAVAILABLE).
        """
        entry = self._streams.observer(path.rpartition("/")[2], peer.address, time.monotonic())
        if self._policy.mode == "off":
            return _NO_GUARD, entry
        authorization = _authorization_of(metadata)
        sender = self._sender(peer)
        if not sender.identify(authorization):
            # search() was asked, and what it read is gone again.
            raise _refuse(Status.UNAVAILABLE, "the credential is not known to this process now; try again")
        guard = StreamGuard(self._policy, peer, authorization, sender.principal)
        guard.generation = self._authentication.generation
        refusal = self._policy.refusal(sender.principal, _DISCOVER)
        if refusal is not None and self._policy.enforces(_DISCOVER):
            try:
                self._policy.refuse(sender.principal, refusal)
            except RegistryError as error:
                raise _refuse(_status_of(error), str(error)) from None
        entry.guard = guard
        return guard, entry

    async def review(self) -> None:
        """End the streams whose credential has ended or whose grants have changed for something that they ask for.

        Changes of other subjects cost a stream nothing: it goes on with the same answers.
        """
        if self._policy.mode == "off":
            return
        now = time.time()
        async for entry in cooperatively(self._streams):
            guard, stream = entry.guard, entry.stream
            if not isinstance(guard, StreamGuard) or stream is None:
                continue
            certificate = guard.peer.certificate
            if certificate is not None and certificate.has_expired(now):
                self._end(
                    entry, stream, Status.UNAUTHENTICATED, "the client certificate of this connection has expired"
                )
            elif guard.principal.subject.ended or guard.generation != self._authentication.generation:
                try:
                    await self._review_stream(entry, guard, stream)
                except Exception:
                    # A defect in one of them keeps no other from being looked at.
                    log.exception("stream_not_reviewed", principal=guard.principal.name, node=entry.node.id)
                    guard.generation = self._authentication.generation
                    if self._policy.enforces(_DISCOVER):
                        self._end(entry, stream, Status.UNAVAILABLE, "its access could not be decided; see the log")

    async def _review_stream(self, entry: StreamEntry, guard: StreamGuard, stream: ObservedStream) -> None:
        generation = self._authentication.generation
        principal = await self._principal(guard.peer, guard.authorization)
        problem = principal.subject.problem
        if principal.subject.unknown and not guard.principal.subject.ended:
            # PostgreSQL is away; nothing says that anything has ended.
            return
        if problem and self._policy.enforces(_DISCOVER):
            status = Status.UNAVAILABLE if principal.subject.unknown else Status.UNAUTHENTICATED
            self._end(entry, stream, status, problem)
        else:
            self._review_names(entry, guard, stream, principal)
        guard.principal, guard.generation = principal, generation

    def _review_names(
        self, entry: StreamEntry, guard: StreamGuard, stream: ObservedStream, principal: Principal
    ) -> None:
        """End a stream that asks for a name which its principal may discover no longer, or may discover now."""
        if principal.fingerprint == guard.principal.fingerprint:
            return
        granted = False
        for record in stream.records:
            for name in _asked_names(record):
                before = record.refusal(name)
                after = guard.would_refuse(principal, record.type, stream.node, name)
                if after and not before:
                    self._end(entry, stream, Status.PERMISSION_DENIED, after)
                    return
                granted |= bool(before) and not after
        if granted:
            words = "what this client may discover has changed; a new stream gets what was granted"
            self._end(entry, stream, Status.UNAVAILABLE, words)

    def _end(self, entry: StreamEntry, stream: ObservedStream, status: Status, words: str) -> None:
        guard = entry.guard
        principal = guard.principal.name if isinstance(guard, StreamGuard) else ""
        log.info("stream_access_ended", principal=principal, node=entry.node.id, status=status.name, reason=words)
        stream.end(_refuse(status, words))

    def _sender(self, peer: Peer) -> Sender:
        return self._authentication.sender(peer.address, certificate_names(peer.certificate))

    async def _principal(self, peer: Peer, authorization: bytes | None) -> Principal:
        return await self._authentication.principal(peer.address, authorization, certificate_names(peer.certificate))


class AdmittedService(Service):
    """Opens the calls of a service once it is known who calls.

    Args:
        access: tells whether that is known, and searches what is not.
        service: opens the calls, and asks ``StreamAccess.admit``.
    """

    def __init__(self, access: StreamAccess, service: Service) -> None:
        self._access = access
        self._service = service

    def open(self, path: str, metadata: Metadata, peer: Peer, wake: Callable[[], None]) -> Call:
        """Open a call at once where the caller is known, as nearly always, and otherwise after a search.

        Raises:
            StatusError: as the service's ``open`` does.
        """
        if self._access.is_known(metadata, peer):
            return self._service.open(path, metadata, peer, wake)
        return WaitingCall(
            lambda: self._access.search(metadata, peer), lambda: self._service.open(path, metadata, peer, wake), wake
        )


class WaitingCall(Call):
    """A call whose requests wait until the credential of its caller was searched.

    Args:
        search: searches; raises a StatusError that ends the call.
        open_call: opens the call behind this one.
        wake: called when there is something to send, or the call is to end.
    """

    __slots__ = ("_call", "_error", "_open", "_requests", "_task", "_wake")

    def __init__(
        self, search: Callable[[], Coroutine[None, None, None]], open_call: Callable[[], Call], wake: Callable[[], None]
    ) -> None:
        self._open = open_call
        self._wake = wake
        self._call: Call | None = None
        """The call behind this one, once the search has ended. Written by _look()."""
        self._error: Exception | None = None
        """What ends the call: a StatusError, or a defect. Written by _look()."""
        self._requests: list[bytes] = []
        """The requests so far, while the search goes on, and until next() passes them on in their order."""
        self._task: asyncio.Task[None] | None = asyncio.get_running_loop().create_task(self._look(search))

    def receive(self, message: bytes, now: float) -> bool:
        """Keep a request, or pass it on.

        Raises:
            StatusError: too much came before the credential was found, or as the call behind this one raises.
        """
        if self._call is not None and not self._requests:
            return self._call.receive(message, now)
        if sum(map(len, self._requests)) + len(message) > _MAX_WAITING_BYTES:
            words = f"more than {_MAX_WAITING_BYTES} bytes of requests came before the credential was looked up"
            raise StatusError(Status.RESOURCE_EXHAUSTED, words)
        self._requests.append(message)
        return True

    def next(self, now: float) -> Sequence[bytes] | None:
        """Return the next message.

        Raises:
            StatusError: the search has failed, or as the call behind this one raises.
        """
        if self._error is not None:
            raise self._error
        if self._call is None:
            return None
        requests, self._requests = self._requests, []
        for request in requests:
            self._call.receive(request, now)
        return self._call.next(now)

    def pending(self) -> bool:
        """Return whether the search goes on, or the call behind this one waits for something."""
        return self._error is None and (self._call is None or self._call.pending())

    def deadline(self) -> float | None:
        """Return when there is more to do."""
        return None if self._call is None else self._call.deadline()

    def close(self, now: float) -> None:
        """Forget the call."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._call is not None:
            self._call.close(now)

    async def _look(self, search: Callable[[], Coroutine[None, None, None]]) -> None:
        try:
            await search()
            self._call = self._open()
        except Exception as error:  # noqa: BLE001  # next() raises it, and its owner decides as for all calls
            self._error = error
        self._wake()


def _authorization_of(metadata: Metadata) -> bytes | None:
    value = metadata.get(_AUTHORIZATION)
    return None if value is None else value.encode()


def _decided_by(resource_type: ResourceType, node: Node, name: str) -> str:
    """Return the name that access is decided by: clusters, routes and listeners are those of the node's cluster."""
    return node.cluster if resource_type.keyed_by_cluster else name


def _asked_names(record: Record) -> Sequence[str]:
    return [*record.names, "*"] if record.wildcard else list(record.names)


def _status_of(error: RegistryError) -> Status:
    return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), Status.INTERNAL)


def _refuse(status: Status, words: str) -> StatusError:
    XDS_REFUSED.labels(status.name).inc()
    return StatusError(status, words)
