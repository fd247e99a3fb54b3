"""The seam between the gRPC listener and what it serves: a ``Service`` opens a ``Call`` for each stream.

The listener owns connections, frames, windows and limits, and knows nothing of the messages. A call owns the meaning of
its messages, does no I/O, and gets the time as an argument: monotonic seconds, as ``time.monotonic`` has them.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Protocol

from msgspec import Struct

from registry.auth.certificate import ClientCertificate

Metadata = Mapping[str, str]
"""The metadata of a call by name, in lower case. Values of a name that comes several times are joined by commas, and
those of names that end with ``-bin`` are base64, as they came."""


class Status(IntEnum):
    """The status codes of gRPC (doc/statuscodes.md of gRPC) that are sent here."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class StatusError(Exception):
    """Ends a call with a status.

    Args:
        status: the code, which says whether and when a client tries again.
        message: says what was received, what is allowed, and what to do. The client shows it to its operator.
    """

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Peer(Struct, frozen=True):
    """The other end of a connection; all calls of a connection have the same object.

    Attributes:
        address: its IP address.
        certificate: its verified client certificate; None without one.
    """

    address: str
    certificate: ClientCertificate | None = None


class Call(Protocol):
    """One RPC on one stream. The connection calls it, from one thread, and never from within one of its calls."""

    def receive(self, message: bytes, now: float) -> bool:
        """Take one message of the client; return whether ``next()`` may have something now.

        Nearly all messages are acknowledgements, behind which there is nothing to send.

        Raises:
            StatusError: to end the call.
        """

    def next(self, now: float) -> Sequence[bytes] | None:
        """Return the parts of the next message to send; None: there is none now.

        It is asked after a ``receive()`` that returned True, after ``wake()`` and at ``deadline()``, until it returns
        None, and only while the client's windows and the transport take more. Parts that calls share are not copied for
        each of them. A message of one part, which many calls send, is put into frames once for all of them.

        Raises:
            StatusError: to end the call.
        """

    def pending(self) -> bool:
        """Return whether requests wait for something, and ``wake()`` will come after ``next()`` has returned None.

        It is asked for a client that sends nothing more: its stream ends with OK as soon as nothing is pending.
        """

    def deadline(self) -> float | None:
        """Return the time at which ``next()`` is to be asked without any other reason; None: there is none.

        It is asked after each ``next()`` that returned None.
        """

    def close(self, now: float) -> None:
        """Forget the call, whose stream has ended for whatever reason; nothing else is called after it."""


class Service(Protocol):
    """Opens calls."""

    def open(self, path: str, metadata: Metadata, peer: Peer, wake: Callable[[], None]) -> Call:
        """Begin with a call.

        Args:
            path: the method, like ``/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources``.
            metadata: of the request; pseudo-headers are left out.
            peer: the client.
            wake: to be called when ``next()`` may have something, at any time but after ``close()``. It returns at
                once: many calls that become ready in one turn of the event loop are asked in turns, 50 at a time.

        Raises:
            StatusError: to end the call before any message.
        """
