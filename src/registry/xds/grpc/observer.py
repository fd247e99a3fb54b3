"""The seam between streams and the registry: what a stream shows of itself, and what it may ask for.

A stream keeps one record for each of its types and tells nothing twice: lists of subscribers read the records when
somebody asks for them, and an `Observer` hears of what a record does not keep. Each stream has an observer of its own.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from msgspec import Struct

from registry.http2.call import StatusError
from registry.xds.resources import ResourceType
from wire.node import Node


class Rejection(Struct, frozen=True):
    """An answer that a client has refused (NACK).

    Attributes:
        at: when, monotonic.
        message: the client's own words, printable and cut.
        versions: the versions that it has refused, by name.
    """

    at: float
    message: str
    versions: Mapping[str, str]


class Record(Protocol):
    """The state of one resource type of a stream, read whenever somebody lists subscribers."""

    @property
    def type(self) -> ResourceType:
        """The resource type."""

    @property
    def names(self) -> Collection[str]:
        """The names that are asked for, without ``*``."""

    @property
    def wildcard(self) -> bool:
        """Whether all resources of the node are asked for."""

    @property
    def sent_at(self) -> float:
        """When the last answer was sent, monotonic."""

    @property
    def answers(self) -> int:
        """The number of answers that were sent so far."""

    @property
    def held(self) -> Collection[str]:
        """The names of which the client holds a version for sure."""

    @property
    def unheld(self) -> Collection[str]:
        """The names that are asked for, and of which the client holds no version for sure."""

    @property
    def unanswered(self) -> Collection[str]:
        """The names of the last answer, while it is neither acknowledged nor rejected; else none."""

    @property
    def waiting(self) -> Collection[str]:
        """The names that have something to send, and wait for their turn."""

    @property
    def troubled(self) -> Collection[str]:
        """The names with a rejection, a refusal, or a newest version that is too large; nearly always none."""

    def accepted(self, name: str) -> str:
        """Return the version of a name that the client holds for sure; empty: none."""

    def offered(self, name: str) -> str:
        """Return the version of a name that was sent last; empty: none."""

    def rejection(self, name: str) -> Rejection | None:
        """Return the newest rejection of a name, until a newer version of it is acknowledged; None: there is none."""

    def refusal(self, name: str) -> str:
        """Return why the guard refuses a name; empty: it does not."""

    def oversized(self, name: str) -> bool:
        """Return whether the newest version of a name is too large for the client, and so is not sent."""


class ObservedStream(Protocol):
    """A stream as others may look at it."""

    @property
    def node(self) -> Node:
        """The node of the first request, with the version of its user agent."""

    @property
    def user_agent(self) -> str:
        """The user agent of the node, such as ``envoy`` or ``gRPC Go``; empty: it named none."""

    @property
    def delta(self) -> bool:
        """Whether it is of the incremental variant."""

    @property
    def records(self) -> Iterable[Record]:
        """The records of the types that were asked for."""

    def end(self, error: StatusError) -> None:
        """End the stream with a status, soon."""


class Observer(Protocol):
    """Takes note of what happens on one stream. Each method returns at once, raises nothing, and does nothing here."""

    def opened(self, stream: ObservedStream) -> None:
        """Note that the first request was read, so that the node is known."""

    def closed(self, now: float) -> None:
        """Note that the stream has ended."""

    def answered(self, resource_type: ResourceType, *, delta: bool, resources: int) -> None:
        """Note an answer with so many resources."""

    def acknowledged(self, resource_type: ResourceType, previous: Mapping[str, str], now: float) -> None:
        """Note an ACK; ``previous`` has the versions that its resources replace by name, empty for a new one."""

    def rejected(self, resource_type: ResourceType, rejection: Rejection) -> None:
        """Note a NACK."""

    def unacknowledged(self, resource_type: ResourceType) -> None:
        """Note that an answer was neither accepted nor refused in time, and that the stream goes on without."""

    def coalesced(self, resource_type: ResourceType) -> None:
        """Note a change that a later one overtook, before it could be sent."""

    def oversized(self, resource_type: ResourceType, name: str, size: int) -> None:
        """Note a resource that is not sent, because it is larger than the client takes."""


class Guard(Protocol):
    """Decides what one stream may ask for."""

    def refusal(self, resource_type: ResourceType, node: Node, name: str) -> str:
        """Return why a name may not be discovered; empty: it may.

        It is asked once for each name that a stream asks for, and once for the wildcard ("*"). A refused name is
        answered as one that is not registered, with these words where the protocol has a place for them.
        """


class NoGuard(Guard):
    """Refuses nothing, for tests and while access is off."""

    def refusal(self, resource_type: ResourceType, node: Node, name: str) -> str:  # noqa: ARG002  # as Guard has it
        """Return nothing."""
        return ""
