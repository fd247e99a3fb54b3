"""The number of names that one peer may have polls held for, while access is closed."""

from registry.auth.principal import Principal
from registry.core.peer_limit import PeerSlots, ReachedLimits
from registry.metrics import PEER_LIMITS_REACHED

MAX_UNPROVEN = 64
"""Names that a peer without a credential may have polls held for; a network proves no credential."""
HELD_POLLS = "held_polls"
"""The name of the limit, as the metric has it."""

_NETWORK = "network:"


class PeerPolls:
    """Counts the names of the held polls of each peer.

    Args:
        slots: what each peer holds.
        most: names of a peer with a credential.
        reached: where it is noted when a poll was not held.
    """

    def __init__(self, slots: PeerSlots, most: int, reached: ReachedLimits) -> None:
        self._slots = slots
        self._most = most
        self._reached = reached

    def has_room(self, principal: Principal, names: int, now: float) -> bool:
        """Return whether a poll may be held; one that may not is answered at once, and never refused."""
        subject = principal.subject
        proven = subject.credential or (subject.name and not subject.name.startswith(_NETWORK))
        most = self._most if proven else min(MAX_UNPROVEN, self._most)
        if self._slots.has_room(principal.address, names, most):
            return True
        PEER_LIMITS_REACHED.labels(HELD_POLLS).inc()
        self._reached.note(HELD_POLLS, now)
        return False

    def take(self, principal: Principal, names: int) -> None:
        """Note that a poll is held."""
        self._slots.take(principal.address, names)

    def give(self, principal: Principal, names: int) -> None:
        """Note that a poll is held no longer."""
        self._slots.give(principal.address, names)
