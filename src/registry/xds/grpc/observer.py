"""The seam between streams and the registry: what a stream shows of itself, and what it may ask for.

A stream keeps one record for each of its types and tells nothing twice: lists of subscribers read the records when
somebody asks for them, and events are called only for what a record does not keep.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from registry.core.subscriber import Node
from registry.xds.resources import ResourceType

Variant = Literal["sotw", "delta"]
"""The variants of the protocol: state of the world, and incremental."""


class Rejection(Struct, frozen=True):
    """An answer that the client has rejected (NACK).

    Attributes:
        versions: the version of each resource in the answer, by name; that of all resources of a node is "*".
        message: the client's own words, as they came.
        at: when the rejection came (monotonic).
    """

    versions: Mapping[str, int]
    message: str
    at: float


class InFlight(Struct, frozen=True):
    """An answer that was sent and that the client has neither acknowledged nor rejected.

    Attributes:
        versions: the version of each resource in the answer, by name; that of all resources of a node is "*".
        since: when it was sent (monotonic).
    """

    versions: Mapping[str, int]
    since: float


class TypeRecord(Protocol):
    """What a stream keeps of one resource type; it is read whenever somebody lists subscribers."""

    @property
    def type(self) -> ResourceType:
        """The resource type."""

    @property
    def names(self) -> Collection[str]:
        """The names that are asked for; "*" is among them for all resources of the node."""

    @property
    def in_flight(self) -> InFlight | None:
        """The answer that was sent last, while the client has not said what it makes of it."""

    @property
    def rejection(self) -> Rejection | None:
        """The newest rejection, until a later answer with one of its names is acknowledged; None: there is none."""

    def accepted(self, name: str) -> int:
        """Return the version of a name that the client has acknowledged; 0: none yet."""


class ObservedStream(Protocol):
    """A stream as others may look at it."""

    @property
    def node(self) -> Node:
        """The node of the first request; the version is that of its user agent."""

    @property
    def user_agent(self) -> str:
        """The user_agent_name of the node, such as envoy or grpc-python; empty: it named none."""

    @property
    def variant(self) -> Variant:
        """The variant of the protocol."""

    @property
    def address(self) -> str:
        """The IP address of the client."""

    @property
    def opened_at(self) -> float:
        """When the stream was opened (monotonic)."""

    @property
    def records(self) -> Iterable[TypeRecord]:
        """The records of the types that were asked for."""


class StreamObserver(Protocol):
    """Hears of streams; none of its methods raises, or does more than a microsecond of work."""

    def opened(self, stream: ObservedStream) -> None:
        """Take note of a stream whose first request was read, so that its node is known."""

    def closed(self, stream: ObservedStream, now: float) -> None:
        """Take note that a stream which was opened has ended."""

    def answered(self, resource_type: ResourceType, variant: Variant) -> None:
        """Count an answer that was sent."""

    def acknowledged(
        self, stream: ObservedStream, record: TypeRecord, former: Sequence[tuple[str, int]], now: float
    ) -> None:
        """Take note of an ACK, after the record has taken it.

        Args:
            stream: the stream.
            record: the record of the type.
            former: the names of the answer, each with the version that had been acknowledged before; 0: none.
            now: the time.
        """

    def rejected(self, stream: ObservedStream, record: TypeRecord, now: float) -> None:
        """Take note of a NACK, after the record has taken it."""

    def unacknowledged(self, resource_type: ResourceType) -> None:
        """Count an answer that the client has left unanswered, so that the next one is sent all the same."""

    def coalesced(self, resource_type: ResourceType) -> None:
        """Count a change of a name that waited for its turn already: one answer brings both."""

    def oversized(self, stream: ObservedStream, name: str, size: int) -> None:
        """Take note of a resource that is not sent, because it is larger than one message may be."""


class Guard(Protocol):
    """Decides what one stream may ask for."""

    def refusal(self, resource_type: ResourceType, node: Node, name: str) -> str:
        """Return why a name may not be discovered; empty: it may.

        It is asked once for each name that a stream asks for, and once for the wildcard ("*"). A refused name is
        answered as one that is not registered, with these words where the protocol has a place for them.
        """


class NoObserver:
    """Takes note of nothing; a StreamObserver for tests and for streams that nobody lists."""

    def opened(self, stream: ObservedStream) -> None:
        """Do nothing."""

    def closed(self, stream: ObservedStream, now: float) -> None:
        """Do nothing."""

    def answered(self, resource_type: ResourceType, variant: Variant) -> None:
        """Do nothing."""

    def acknowledged(
        self, stream: ObservedStream, record: TypeRecord, former: Sequence[tuple[str, int]], now: float
    ) -> None:
        """Do nothing."""

    def rejected(self, stream: ObservedStream, record: TypeRecord, now: float) -> None:
        """Do nothing."""

    def unacknowledged(self, resource_type: ResourceType) -> None:
        """Do nothing."""

    def coalesced(self, resource_type: ResourceType) -> None:
        """Do nothing."""

    def oversized(self, stream: ObservedStream, name: str, size: int) -> None:
        """Do nothing."""


class NoGuard:
    """Refuses nothing; the Guard of streams while access is off."""

    def refusal(self, resource_type: ResourceType, node: Node, name: str) -> str:  # noqa: ARG002  # as Guard has it
        """Return nothing."""
        return ""
