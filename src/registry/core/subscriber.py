"""Subscribers of this process: which Envoys poll it, and which versions they hold. No I/O; time is an argument.

An Envoy that rejects a response does not say so over REST. The only sign is that its next polls carry the
``version_info`` that it had before, although a newer one was sent. Whether a subscriber keeps up is in
``registry.core.subscriber_status``.
"""

from collections.abc import Iterator

from wire.edge_assignments import TakenVersion
from wire.node import ANONYMOUS, Node, printable

SUBSCRIBER_TIMEOUT = 900.0
"""Seconds after which a subscriber that was not seen is dropped."""

REPORT_INTERVAL = 15.0
"""Seconds after which a subscriber that polls on unchanged is reported again to the other processes."""

MAX_NAMES = 16
"""Names of one poll that are remembered; an Envoy asks for one."""

_MAX_TEXT = 128
"""Characters of a version_info that are kept for each name."""

MAX_NAME = 255
"""Characters of a name: a service cannot be called by a longer one, and PostgreSQL has no index of it."""

_PASSING_AFTER = 60.0
"""Seconds after which a v1 client that asked once is dropped: a person with curl."""

MIN_REFUSALS = 2
"""Polls in a row without the version that was sent. One also occurs at a restart, and where two clusters of an Envoy
share a service."""

_OFFERED_AGAIN_AFTER = 300.0
"""Seconds after which an answer that was refused is given again: one that was lost on its way looks the same."""
_MIN_REFUSALS_OF_NEW = 3
"""Refusals in a row by a subscriber that has accepted nothing yet: one that is started again looks the same."""

REFUSED = {
    401: "its polls are refused (401): it brings no valid token; it keeps the endpoints that it has",
    403: "its polls are refused (403): its token may not discover this service; it keeps the endpoints that it has",
}
"""The reason for each status of a poll that access control refuses."""

_SAME_START = 2.0
"""Seconds by which two reports of an edge about the beginning of a subscription may differ."""
_SMOOTHING = 0.2
"""Share of the newest pause in the smoothed one."""


SubscriptionKey = tuple[str, str, tuple[str, ...], str]
"""Node id, address, names and API. A node id alone is not enough: copies of one configuration often share it."""


class Subscription:
    """The polls of one node for the same names. Times are those of the process's monotonic clock.

    ``brought`` is the version_info of its last poll, ``offered`` that of the 200 it was answered, empty after a 304;
    ``pause`` is the smoothed time between an answer and the next poll. ``remembered`` is false for one that lives as
    long as the request only, so that nothing can be concluded from what it did before. ``refused_offer`` is the
    version_info that it refused last, of the types that offer an answer once, and ``refused_offer_at`` the time.
    ``started_at`` is the time of its last poll without a version, with which each subscription of an Envoy begins; None
    for one that this process has not seen begin. ``edge`` is the registrar whose edge answers its polls; empty: it
    polls a registry itself.
    """

    __slots__ = (
        "address",
        "answered_at",
        "api",
        "brought",
        "edge",
        "first_seen",
        "held",
        "key",
        "names",
        "node",
        "offered",
        "pause",
        "polled_at",
        "published",
        "published_at",
        "refusals",
        "refused_offer",
        "refused_offer_at",
        "refused_since",
        "remembered",
        "started_at",
        "status",
    )

    def __init__(self, key: SubscriptionKey, node: Node, now: float) -> None:
        self.key = key
        _, self.address, self.names, self.api = key
        self.node = node
        self.first_seen = self.polled_at = now
        self.answered_at = 0.0
        self.brought = self.offered = ""
        self.status = self.held = self.refusals = 0
        self.pause: float | None = None
        self.refused_since = 0.0
        self.refused_offer = ""
        self.refused_offer_at = 0.0
        self.remembered = False
        self.started_at: float | None = None
        self.edge = ""
        # The state that was published last to the other processes, and the monotonic time; written by SubscriberSync.
        self.published: object = None
        self.published_at = 0.0

    def poll(self, version_info: str, now: float) -> None:
        """Record a poll that arrived."""
        if len(version_info) > _MAX_TEXT:
            version_info = version_info[: _MAX_TEXT * len(self.names)]
        if self.status:
            pause = now - self.answered_at
            self.pause = pause if self.pause is None else self.pause + _SMOOTHING * (pause - self.pause)
        if self.offered and self.offered != version_info == self.brought:
            if not self.refusals:
                self.refused_since = now
            self.refusals += 1
        else:
            self.refusals = 0
        self.brought = version_info
        self.polled_at = now
        self.edge = ""
        if not version_info:
            self.started_at = now

    def relay(self, edge: str, taken: TakenVersion, status: int, now: float) -> None:
        """Record the last poll that an edge has answered.

        Args:
            edge: the registrar that says so.
            taken: the poll; its times are durations.
            status: the status of a poll for this name: 200 or 304, or that of a refusal.
            now: the time.
        """
        self.edge = edge
        self.brought, self.offered = taken.version[:_MAX_TEXT], taken.offered[:_MAX_TEXT]
        self.status = status
        self.refusals = taken.refusals
        self.refused_since = now - (taken.refused_ago or 0.0)
        if taken.started_ago is not None:
            started_at = now - taken.started_ago
            if self.started_at is None or abs(started_at - self.started_at) > _SAME_START:
                self.started_at = started_at
        self.pause = taken.pause
        self.polled_at = self.answered_at = now

    def answer(self, status: int, version_info: str, now: float) -> None:
        """Record the response to its poll."""
        self.status = status
        if len(version_info) > _MAX_TEXT:
            version_info = version_info[: _MAX_TEXT * len(self.names)]
        self.offered = version_info
        self.answered_at = now

    def note_refused_offer(self, now: float) -> None:
        """Note the answer that the poll which was just recorded has refused, or that it has accepted it after all."""
        if self.refusals >= (1 if self.brought else _MIN_REFUSALS_OF_NEW):
            self.refused_offer, self.refused_offer_at = self.offered, now
        elif self.refused_offer == self.brought:
            self.refused_offer = ""

    def has_refused(self, version_info: str, now: float) -> bool:
        """Return whether it has refused this version so lately that it is not offered again."""
        return self.refused_offer == version_info and now - self.refused_offer_at < _OFFERED_AGAIN_AFTER

    @property
    def seen_at(self) -> float:
        """The time of its last poll or response; a poll that is held now is newer."""
        return max(self.polled_at, self.answered_at)

    @property
    def substance(self) -> object:
        """The state that other processes have to know soon; all else only says that it polls on."""
        answered = self.status if self.status in REFUSED else bool(self.status)
        return (
            self.brought,
            self.offered or self.brought,
            min(self.refusals, MIN_REFUSALS),
            answered,
            self.refused_offer,
            self.edge,
            self.started_at,
        )

    def is_news(self, now: float) -> bool:
        """Return whether a report of it should be published."""
        touched = self.held > 0 or self.seen_at > self.published_at
        return self.published != self.substance or (touched and now - self.published_at > REPORT_INTERVAL)

    def forgotten(self, now: float) -> bool:
        """Return whether it has been silent for so long that it is dropped."""
        passing = not self.node.id and self.pause is None
        return not self.held and now - self.seen_at > (_PASSING_AFTER if passing else SUBSCRIBER_TIMEOUT)


class Subscribers:
    """The subscriptions that this process has seen, a bounded number of them.

    A made-up node id costs a client nothing. So a full table takes no new subscription, instead of dropping an Envoy
    that still polls; and while any is missing, its absence proves nothing (``refused_ago``).

    Args:
        max_sightings: pairs of a node and a name that are remembered.
    """

    def __init__(self, max_sightings: int = 50_000) -> None:
        self.max_sightings = max_sightings
        self.sightings = 0
        """Pairs of a node and a name that are remembered now. Written by _enter() and _leave()."""
        self._subscriptions: dict[SubscriptionKey, Subscription] = {}
        """All that are remembered. Written by _enter() and _leave()."""
        self._by_name: dict[str, dict[SubscriptionKey, Subscription]] = {}
        """The same by each of their names."""
        self._refused = 0
        """Sightings that were refused for want of room. Raised by _refuse(), emptied by take_refused()."""
        self._refused_at: float | None = None
        """When the last one was refused (monotonic). Written by _refuse()."""

    def __len__(self) -> int:
        return len(self._subscriptions)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._subscriptions.values()))

    def of(self, service: str) -> list[Subscription]:
        """Return the subscriptions that ask for a name, alone or with others."""
        return list(self._by_name.get(service, {}).values())

    def find(self, node: Node, address: str, names: tuple[str, ...], api: str, now: float) -> Subscription:
        """Return the subscription of a poll; a new one if there is none."""
        remembered = names if len(names) <= MAX_NAMES else names[:MAX_NAMES]
        key = (node.id, address, remembered, api)
        subscription = self._subscriptions.get(key)
        if subscription is None:
            subscription = Subscription(key, node, now)
            # An Envoy always has a node id, and v1 has no place for one. Without it a poll is a person's or a script's.
            if (node.id or api == "v1") and not self._enter(key, subscription):
                self._refuse(len(names), now)
        elif subscription.node is not node:
            # Started again with another version, zone or cluster, or read anew.
            subscription.node = node
        if subscription.remembered and remembered is not names:
            self._refuse(len(names) - MAX_NAMES, now)
        return subscription

    def get(self, node: Node, address: str, names: tuple[str, ...], api: str) -> Subscription | None:
        """Return the subscription of a poll; None if it is not remembered."""
        return self._subscriptions.get((node.id, address, names[:MAX_NAMES], api))

    def record_v1(self, address: str, service: str, now: float) -> None:
        """Record a request of v1 SDS, which names neither a node nor a version."""
        subscription = self.find(ANONYMOUS, address, (service,), "v1", now)
        subscription.poll("", now)
        subscription.answer(200, "", now)

    def forget(self, subscription: Subscription, now: float) -> None:
        """Drop a subscription that has been silent for too long."""
        if subscription.forgotten(now):
            self._leave(subscription.key)

    def refused_ago(self, now: float) -> float | None:
        """Return the seconds since a sighting was refused; None when that is too long ago to matter."""
        ago = None if self._refused_at is None else now - self._refused_at
        return ago if ago is not None and ago <= SUBSCRIBER_TIMEOUT else None

    def take_refused(self) -> int:
        """Return how many sightings were refused since the last call."""
        refused, self._refused = self._refused, 0
        return refused

    def _enter(self, key: SubscriptionKey, new: Subscription) -> bool:
        """Remember a subscription; return False when there is no room for it."""
        names = len(new.names)
        if not names:
            # It asks for nothing, so it is listed nowhere.
            return True
        if self.sightings + names > self.max_sightings or max(map(len, new.names)) > MAX_NAME:
            return False
        new.remembered = True
        self.sightings += names
        self._subscriptions[key] = new
        for name in new.names:
            self._by_name.setdefault(printable(name), {})[key] = new
        return True

    def _refuse(self, sightings: int, now: float) -> None:
        self._refused += sightings
        self._refused_at = now

    def _leave(self, key: SubscriptionKey) -> None:
        left = self._subscriptions.pop(key, None)
        if left is None:
            return
        left.remembered = False
        self.sightings -= len(left.names)
        for name in map(printable, left.names):
            others = self._by_name.get(name, {})
            others.pop(key, None)
            if not others:
                self._by_name.pop(name, None)
