"""Events of endpoints as PostgreSQL keeps them, and the filters by which they are asked for."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.grants import Reach
from registry.core.endpoint_table import AddressPort

Position = tuple[int, int]
"""A position in the history: the number of an event's transaction, and the id of the event."""


class RecordedEvent(Struct, frozen=True):
    """An event as it was stored; ``address`` and ``port`` are None for an event of a service or of all."""

    transaction: int
    id: int
    at: float
    service: str
    address: str | None
    port: int | None
    instance_id: str
    kind: str
    reason: str
    actor: str
    status: str
    version: int

    @property
    def position(self) -> Position:
        """Its place in the history; pages and streams go on from it."""
        return (self.transaction, self.id)


TAKEN_FOR = " registered the address for "
"""The words in the reason of a ``taken_over`` event behind which another service is named."""


def without_hidden(event: RecordedEvent, reach: Reach) -> RecordedEvent:
    """Return an event without the name of another service that its reader may not read."""
    before, words, service = event.reason.rpartition(TAKEN_FOR)
    if event.kind != "taken_over" or not words or reach.covers(service):
        return event
    return replace(event, reason=f"{before}{words}another service")


class EventFilter(Struct, frozen=True):
    """The events that are asked for; None stands for any.

    Attributes:
        service: of this service.
        address_port: of the endpoint with this address and port.
        kind: of this kind, as the event's ``kind`` has it.
        actor: whose actor contains this text.
        since: seconds since 1970, from which on.
        until: seconds since 1970, up to which.
        after: the position behind which the page begins, in the order that is asked for.
        newest_first: the order; False for a reader that follows.
        settled: only events that no transaction under way can precede, so that a reader that follows misses none.
        limit: how many at most.
        reach: of the services that the reader may read, or of all services at once; None: of any.
        services: those of them, where they are so few that each can be searched by itself.
    """

    service: str | None = None
    address_port: AddressPort | None = None
    kind: str | None = None
    actor: str | None = None
    since: float | None = None
    until: float | None = None
    after: Position | None = None
    newest_first: bool = True
    settled: bool = False
    limit: int = 100
    reach: Reach | None = None
    services: Sequence[str] = ()
