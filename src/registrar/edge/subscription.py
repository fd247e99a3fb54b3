"""The polls of one Envoy for one name, which the registry shows as if they had come to it."""

from wire.edge_assignments import MAX_TOKEN, TakenVersion
from wire.node import Node

_SMOOTHING = 0.2
"""Share of the newest pause in the smoothed one, as in the registry."""
_MIN_REFUSALS = 2
"""Polls in a row without what was offered, after which an answer counts as refused by an Envoy that has nothing yet."""
OFFERED_AGAIN_AFTER = 300.0
"""Seconds after which an answer that was refused is given again: one that was lost on its way looks the same."""


class Subscription:
    """The polls of one node for one name. Times are those of the loop.

    Attributes:
        node: the Envoy's node.
        address: the address that it gives itself; empty: none.
        brought: the token of its last poll.
        offered: the token of the last answer with content; empty after one without.
        refusals: polls in a row without what was offered.
        refused_offer: the token that it refused last; empty if it did not.
    """

    __slots__ = (
        "_answered_at",
        "_pause",
        "_refused_at",
        "_refused_since",
        "_started_at",
        "address",
        "brought",
        "node",
        "offered",
        "polled_at",
        "refusals",
        "refused_offer",
    )

    def __init__(self, node: Node, address: str = "") -> None:
        self.node = node
        self.address = address
        self.brought = self.offered = self.refused_offer = ""
        self.refusals = 0
        self.polled_at = 0.0
        self._refused_at = 0.0
        self._refused_since: float | None = None
        self._started_at: float | None = None
        self._pause: float | None = None
        self._answered_at: float | None = None

    def poll(self, brought: str, now: float) -> None:
        """Record a poll that arrived."""
        if self._answered_at is not None:
            pause = now - self._answered_at
            self._pause = pause if self._pause is None else self._pause + _SMOOTHING * (pause - self._pause)
        if self.offered and self.offered != brought == self.brought:
            self._refused_since = now if not self.refusals else self._refused_since
            self.refusals += 1
        else:
            self.refusals, self._refused_since = 0, None
        if self.refusals >= (1 if brought else _MIN_REFUSALS):
            self.refused_offer, self._refused_at = self.offered, now
        elif self.refused_offer == brought:
            self.refused_offer = ""
        if not brought:
            self._started_at = now
        self.brought, self.polled_at = brought, now

    def answer(self, offered: str, now: float) -> None:
        """Record an answer; ``offered`` is empty for one without content."""
        self.offered, self._answered_at = offered, now

    def has_refused(self, token: str, now: float) -> bool:
        """Return whether it has refused this token so lately that it is not offered again."""
        return bool(token) and self.refused_offer == token and now - self._refused_at < OFFERED_AGAIN_AFTER

    @property
    def state(self) -> object:
        """The part of it that the registry has to know soon; all else only says that it polls on."""
        return self.brought, min(self.refusals, _MIN_REFUSALS), self._started_at

    def report(self, service: str, type_url: str, asking: Node, now: float) -> TakenVersion:
        """Return what the registry is told of it, in a question for the node ``asking``."""
        node = self.node
        return TakenVersion(
            node=node.id,
            service=service,
            version=self.brought[:MAX_TOKEN],
            type=type_url,
            cluster=None if node.cluster == asking.cluster else node.cluster,
            zone=None if node.zone == asking.zone else node.zone,
            envoy=node.version,
            address=self.address,
            offered=self.offered,
            refusals=self.refusals,
            refused_ago=_ago(self._refused_since, now),
            started_ago=_ago(self._started_at, now),
            pause=None if self._pause is None else round(self._pause, 2),
        )


def _ago(moment: float | None, now: float) -> float | None:
    return None if moment is None else round(max(0.0, now - moment), 1)
