"""Who polls, what it holds, and whether it keeps up: rules without I/O; time is an argument.

An Envoy that rejects an answer does not say so over REST. The one sign is that it goes on bringing the
``version_info`` it had, although it was answered a newer one.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

State = Literal["current", "behind", "stuck", "silent"]

SUBSCRIBER_TIMEOUT = 900.0
"""Seconds after which nobody asks any more who polled last then."""

REPORT_INTERVAL = 15.0
"""Seconds after which other processes are told again of who polls on unchanged that it does."""

REPORT_LAG = REPORT_INTERVAL + 5.0
"""Seconds by which what another process told may be older than what this one knows."""

MAX_REPORTS_PUBLISHED = 5_000
"""Sightings that a process tells the others in one turn."""

PUBLISH_INTERVAL = 3.0
"""Seconds between two turns of telling."""

MAX_NAMES = 16
"""Names of one poll that are remembered; an Envoy asks for one."""

_MAX_TEXT = 128
"""Characters of a version_info that are kept for each name."""

_MAX_NAME = 255
"""Characters of a name, on average of one poll: a service cannot be called by a longer one."""

_PASSING_AFTER = 60.0
"""Seconds after which a client of v1 is forgotten that asked once: a person with curl."""
_BEHIND_AFTER = 10.0
_STUCK_AFTER = 5.0
_SILENT_AFTER = 10.0
_UNKNOWN_PAUSE = 20.0
_USUAL_PAUSES = 3.0
_REFUSALS = 2
"""One is what two clusters of an Envoy that share a service look like, and a restart."""
_SMOOTHING = 0.2


class Node(Struct, frozen=True, gc=False):
    """What an Envoy says of itself."""

    id: str = ""
    cluster: str = ""
    zone: str = ""
    version: str = ""


ANONYMOUS = Node()

Key = tuple[str, str, tuple[str, ...], str]
"""Node id, address, names and API: a node id alone is often shared by copies of one configuration."""


class Subscription:
    """What one Envoy polls for in one request, again and again. Times are those of the process's monotonic clock.

    ``brought`` is the version_info of its last poll, ``offered`` that of the 200 it was answered, empty after a 304;
    ``pause`` is the smoothed time between an answer and the next poll. ``remembered`` is false for one that lives as
    long as the request only, so that nothing can be concluded from what it did before.
    """

    __slots__ = (
        "address",
        "answered_at",
        "api",
        "brought",
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
        "refused_since",
        "remembered",
        "status",
    )

    def __init__(self, key: Key, node: Node, now: float) -> None:
        self.key = key
        _, self.address, self.names, self.api = key
        self.node = node
        self.first_seen = self.polled_at = now
        self.answered_at = 0.0
        self.brought = self.offered = ""
        self.status = self.held = self.refusals = 0
        self.pause: float | None = None
        self.refused_since = 0.0
        self.remembered = False
        # The state that was published last to the other processes, and the monotonic time; written by SubscriberSync.
        self.published: object = None
        self.published_at = 0.0

    def poll(self, version_info: str, now: float) -> None:
        """Take note of a poll that arrived."""
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

    def answer(self, status: int, version_info: str, now: float) -> None:
        """Take note of what its poll was answered."""
        self.status = status
        self.offered = version_info[: _MAX_TEXT * len(self.names)]
        self.answered_at = now

    @property
    def seen_at(self) -> float:
        """When it was last in touch, but for a poll that is held right now."""
        return max(self.polled_at, self.answered_at)

    @property
    def substance(self) -> object:
        """What other processes have to hear of soon; the rest is only that it polls on."""
        return (self.brought, self.offered or self.brought, min(self.refusals, _REFUSALS), bool(self.status))

    def is_news(self, now: float) -> bool:
        """Tell whether other processes should be told of it."""
        touched = self.held > 0 or self.seen_at > self.published_at
        return self.published != self.substance or (touched and now - self.published_at > REPORT_INTERVAL)

    def forgotten(self, now: float) -> bool:
        """Tell whether it has been silent for so long that it is no subscriber any more."""
        passing = not self.node.id and self.pause is None
        return not self.held and now - self.seen_at > (_PASSING_AFTER if passing else SUBSCRIBER_TIMEOUT)


class Subscribers:
    """The subscriptions that this process has seen, a bounded number of them.

    A made-up node id costs a client nothing. So a full table takes nobody new, instead of dropping an Envoy that still
    polls; and while it lacks any, nobody may conclude from an absence (``refused_ago``).

    Args:
        most: sightings, pairs of a node and a name, that are remembered.
    """

    def __init__(self, most: int = 50_000) -> None:
        self.most = most
        self.sightings = 0
        """Pairs of a node and a name that are remembered now."""
        self._known: dict[Key, Subscription] = {}
        self._of: dict[str, dict[Key, Subscription]] = {}
        self._refused = 0
        self._refused_at: float | None = None

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._known.values()))

    def of(self, service: str) -> list[Subscription]:
        """Return those that ask for a service, alone or with others."""
        return list(self._of.get(service, {}).values())

    def find(self, node: Node, address: str, names: tuple[str, ...], api: str, now: float) -> Subscription:
        """Return the subscription of a poll; a new one if it was never seen."""
        remembered = names if len(names) <= MAX_NAMES else names[:MAX_NAMES]
        key = (node.id, address, remembered, api)
        found = self._known.get(key)
        if found is None:
            found = Subscription(key, node, now)
            # An Envoy always has a node id, and v1 has no place for one. Without it a poll is a person's or a script's.
            if (node.id or api == "v1") and not self._enter(key, found):
                self._refuse(len(names), now)
        elif found.node is not node:
            # Started again with another version, zone or cluster, or read anew.
            found.node = node
        if found.remembered and remembered is not names:
            self._refuse(len(names) - MAX_NAMES, now)
        return found

    def record_v1(self, address: str, service: str, now: float) -> None:
        """Take note of a request of v1 SDS, which says neither who asks nor what it holds."""
        found = self.find(ANONYMOUS, address, (service,), "v1", now)
        found.poll("", now)
        found.answer(200, "", now)

    def forget(self, one: Subscription, now: float) -> None:
        """Drop a subscription that has been silent for so long that it is none any more."""
        if one.forgotten(now):
            self._leave(one.key)

    def refused_ago(self, now: float) -> float | None:
        """Return the seconds since a sighting was refused; None when that is too long ago to matter."""
        ago = None if self._refused_at is None else now - self._refused_at
        return ago if ago is not None and ago <= SUBSCRIBER_TIMEOUT else None

    def take_refused(self) -> int:
        """Return how many sightings were refused since this was asked last."""
        refused, self._refused = self._refused, 0
        return refused

    def _enter(self, key: Key, new: Subscription) -> bool:
        """Remember a subscription; return False when there is no room for it."""
        names = len(new.names)
        if not names:
            # It asks for nothing, so nobody will ever look for it.
            return True
        if self.sightings + names > self.most or sum(map(len, new.names)) > _MAX_NAME * names:
            return False
        new.remembered = True
        self.sightings += names
        self._known[key] = new
        for name in new.names:
            self._of.setdefault(printable(name), {})[key] = new
        return True

    def _refuse(self, sightings: int, now: float) -> None:
        self._refused += sightings
        self._refused_at = now

    def _leave(self, key: Key) -> None:
        left = self._known.pop(key, None)
        if left is None:
            return
        self.sightings -= len(left.names)
        for name in map(printable, left.names):
            others = self._of.get(name, {})
            others.pop(key, None)
            if not others:
                self._of.pop(name, None)


class SubscriberReport(Struct, frozen=True, gc=False):
    """What one process knows of one subscriber of one service. Times are seconds of the database's clock.

    ``version`` is the number that the subscriber brought, ``offered`` the one it was answered last with a 200; None
    where there was none, or one that is not ours.
    """

    process: str
    node_id: str
    cluster: str
    zone: str
    envoy: str
    address: str
    service: str
    api: str
    version_info: str
    version: int | None
    offered: int | None
    status: int | None
    answered_at: float | None
    polled_at: float
    first_seen: float
    held: bool
    pause: float | None
    refusals: int
    refused_since: float | None

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Service, node id, address and API: in this order they are listed."""
        return (self.service, self.node_id, self.address, self.api)

    @property
    def seen_at(self) -> float:
        """When it was last in touch, but for a poll that is held."""
        return max(self.polled_at, self.answered_at or 0.0)


class ServiceVersion(Struct, frozen=True):
    """What a service is at: its version, and since when this process knows it, on the database's clock."""

    version: int
    since: float


class Evaluation(Struct, frozen=True):
    """How a subscriber keeps up, and why that is thought."""

    state: State
    reason: str


class SubscriberFilter(Struct, frozen=True):
    """The subscribers that are asked for; None stands for any."""

    service: str | None = None
    node_id: str | None = None
    cluster: str | None = None
    zone: str | None = None

    def fits(self, node: Node) -> bool:
        """Tell whether a node is one of them, whatever it asks for."""
        return (
            self.node_id in (None, node.id) and self.cluster in (None, node.cluster) and self.zone in (None, node.zone)
        )


class SubscriberStatus(Struct, frozen=True):
    """A subscriber of a service, the version that the service is at, and how the subscriber keeps up."""

    seen: SubscriberReport
    ours: ServiceVersion
    verdict: Evaluation


class ClusterSubscribers(Struct, frozen=True):
    """The subscribers of all processes that were asked for.

    Attributes:
        counted: those that are known.
        others: whether the other processes could be asked.
        refused_ago: seconds since any process did not remember a subscriber, for want of room; None: not lately.
    """

    counted: list[SubscriberStatus]
    others: bool
    refused_ago: float | None

    @property
    def complete(self) -> bool:
        """Whether a subscriber that is not in it does not poll."""
        return self.others and self.refused_ago is None


def merge_reports(sightings: Iterable[SubscriberReport]) -> list[SubscriberReport]:
    """Return one sighting for each subscriber of a service, in their order.

    An Envoy polls now this process and now that one: who saw it last knows best. But its refusals count wherever they
    were seen, as long as it brings what it brought there.
    """
    newest: dict[tuple[str, str, str, str], SubscriberReport] = {}
    refusing: dict[tuple[str, str, str, str], SubscriberReport] = {}
    for one in sightings:
        known = newest.get(one.identity)
        if known is None or (one.seen_at, one.held, one.process) > (known.seen_at, known.held, known.process):
            newest[one.identity] = one
        worst = refusing.get(one.identity)
        if one.refusals and (worst is None or one.refusals > worst.refusals):
            refusing[one.identity] = one
    return [_joined(newest[identity], refusing.get(identity)) for identity in sorted(newest)]


def _joined(newest: SubscriberReport, refusing: SubscriberReport | None) -> SubscriberReport:
    if refusing is None or newest.refusals or refusing.version_info != newest.version_info:
        return newest
    offered = refusing.offered if newest.offered is None else newest.offered
    return replace(newest, refusals=refusing.refusals, refused_since=refusing.refused_since, offered=offered)


def evaluate(seen: SubscriberReport, ours: ServiceVersion, now: float, lag: float = 0.0) -> Evaluation:
    """Say how a subscriber keeps up.

    Args:
        seen: what is known of it.
        ours: what its service is at.
        now: the database's time.
        lag: seconds by which what is known may be old, because another process told it.
    """
    quiet = now - seen.seen_at
    if not seen.held and quiet > _patience(seen.pause) + lag:
        return Evaluation("silent", f"has not polled for {quiet:.0f} s{_usually(seen.pause)}")
    if seen.refusals >= _REFUSALS and seen.refused_since is not None and now - seen.refused_since > _STUCK_AFTER:
        return Evaluation("stuck", _refusal(seen))
    abreast = _abreast(seen, ours, quiet)
    if abreast:
        return Evaluation("current", abreast)
    late = now - ours.since - lag
    if late > _grace(seen.pause):
        return Evaluation("behind", f"{_brings(seen)}, and version {ours.version} is {late:.0f} s old")
    return Evaluation("current", f"{_brings(seen)}; version {ours.version} is new")


def _patience(pause: float | None) -> float:
    """Return the seconds of silence that are usual, and a margin."""
    return max(_SILENT_AFTER, _USUAL_PAUSES * (_UNKNOWN_PAUSE if pause is None else pause))


def _grace(pause: float | None) -> float:
    """Return the seconds in which a subscriber that polls at its pace cannot be expected to know a version."""
    return _BEHIND_AFTER + 2 * (pause or 0.0)


def _usually(pause: float | None) -> str:
    return "" if pause is None else f"; it usually does within {max(pause, 0.1):.1f} s of an answer"


def _refusal(seen: SubscriberReport) -> str:
    if not seen.version_info:
        return f"asks again without a version after version {seen.offered}, {seen.refusals} times: refuses or restarts"
    return f"was answered version {seen.offered} and {_brings(seen)} all the same, {seen.refusals} times in a row"


def _brings(seen: SubscriberReport) -> str:
    if seen.version is not None:
        return f"brings version {seen.version}"
    return "brings a version that is not ours" if seen.version_info else "brings no version"


def _abreast(seen: SubscriberReport, ours: ServiceVersion, quiet: float) -> str | None:
    """Say why a subscriber is thought to have our version; None when it is not."""
    if seen.api == "v1":
        return "polls v1, which has no versions"
    if seen.version is not None and seen.version >= ours.version:
        later = seen.version > ours.version
        return f"holds version {seen.version}{', which this process has yet to read' if later else ''}"
    if seen.offered is not None and seen.offered >= ours.version and not seen.refusals:
        # Its next poll will tell whether it took it.
        return f"was answered version {seen.offered} {max(0.0, quiet):.1f} s ago"
    return None


def report_lag(sightings: int) -> float:
    """Return by how much what a process tells may be older than what it knows, when it remembers so much."""
    return max(REPORT_INTERVAL, PUBLISH_INTERVAL * sightings / MAX_REPORTS_PUBLISHED) + REPORT_LAG - REPORT_INTERVAL


def printable(text: str) -> str:
    """Return a subscriber's text without what PostgreSQL and terminals do not take."""
    return text if text.isprintable() else "".join(letter for letter in text if letter.isprintable())
