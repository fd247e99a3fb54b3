"""The connections of each peer address, of which a closed registry takes so many.

A stranger needs no credential to connect, and each connection costs memory and a file descriptor of everybody's.
"""

import time
from collections.abc import Callable

import structlog

from registry.core.peer_limit import PeerSlots, ReachedLimits
from registry.metrics import PEER_LIMITS_REACHED

log = structlog.get_logger()

CONNECTIONS = "connections"
"""The limit's name, as the metrics and the state of the process have it."""
NOTED = "connections_noted"
"""Its name where a connection beyond it is taken all the same."""
_LOG_INTERVAL = 60.0
"""Seconds between two lines of the log about connections beyond the limit."""


class PeerConnections:
    """Counts the connections of each peer, on all listeners of a process.

    Args:
        slots: the connections that each peer has.
        most: the connections that one peer may have.
        reached: where it is noted when a connection was refused.
        enforced: False to note connections beyond the limit and to take them.
    """

    def __init__(self, slots: PeerSlots, most: int, reached: ReachedLimits, *, enforced: bool = True) -> None:
        self._slots = slots
        self._most = most
        self._reached = reached
        self._enforced = enforced
        self._log_due = 0.0
        """When the next line may be logged (monotonic). Written by _note()."""

    def take(self, address: str) -> Callable[[], None] | None:
        """Count a connection of a peer, and return what ends its count; None if it has to be refused."""
        if not self._slots.has_room(address, 1, self._most):
            self._note(address)
            if self._enforced:
                return None
        self._slots.take(address, 1)
        return _Slot(self._slots, address).give

    def _note(self, address: str) -> None:
        now = time.monotonic()
        limit = CONNECTIONS if self._enforced else NOTED
        PEER_LIMITS_REACHED.labels(limit).inc()
        self._reached.note(limit, now)
        if now >= self._log_due:
            self._log_due = now + _LOG_INTERVAL
            log.warning("peer_connections_exceeded", peer=address, limit=self._most, refused=self._enforced)


class _Slot:
    """One connection, whose count ends once, however often its end is told."""

    __slots__ = ("_address", "_slots")

    def __init__(self, slots: PeerSlots, address: str) -> None:
        self._slots: PeerSlots | None = slots
        self._address = address

    def give(self) -> None:
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give(self._address, 1)
