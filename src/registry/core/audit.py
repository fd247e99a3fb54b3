"""The audit: entries that wait to be stored, and what is counted instead of repeated.

An allowed write is an entry of its own. A write that was refused or failed is repeated by clients for ever: the same
is one entry a minute, with a count. All of it is bounded, so that neither a flood of refusals nor an outage of
PostgreSQL takes memory, and nothing here ever waits. Times are seconds of the process's monotonic clock, but those of
entries, which are seconds since 1970 by PostgreSQL's clock.
"""

from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from wire.token_masking import without_tokens

Decision = Literal["allowed", "refused", "would_refuse", "failed"]
"""What came of a request: it was done, refused, done although ``on`` would refuse it, or allowed and not possible."""

REPEAT_INTERVAL = 60.0
"""Seconds in which the same refusal is one entry."""
COUNT_INTERVAL = 5.0
"""Seconds between two times that the count of a stored entry is stored again."""
MAX_WAITING = 10_000
"""Entries that wait to be stored."""
MAX_BULK_WAITING = 8_000
"""Entries that wait and are such that many clients can make many of, so that the others always have room."""
BULK_VERBS = ("", "register", "discover")
"""The verbs of entries that many clients make many of; logins have none."""
MAX_REPEATED = 300
"""Different refusals of one interval; the others of all peers are counted together."""
MAX_REPEATED_OF_PEER = 30
"""Different refusals of one interval and peer; its others are counted together."""

_MAX_TEXT = 255
"""Characters of each text of an entry but its reason."""
_MAX_REASON = 500
"""Characters of the reason of an entry."""
_SEVERAL = "several"

_Key = tuple[str, ...]
"""What the same refusal has in common; the endpoint and its reason are not part of it."""


class AuditEntry(Struct, frozen=True):
    """Something that a principal did, or was not allowed to do.

    Attributes:
        at: when, or when it was first within its minute.
        principal: who, for instance ``token:ci-deploy as ann``, where only the part before ``as`` is proven.
        credential: the id of the credential; empty: there was none.
        peer: the address that the request came from.
        verb: what was asked for; empty for logins, which need none.
        service: the service; empty when no single one is concerned.
        endpoint: the endpoint, as ``address:port``; empty when no single one is concerned.
        action: what was done or tried, for instance ``token_created``; empty for a refusal, which names its verb.
        decision: what came of it.
        reason: why it was refused or failed, or what was changed.
        request_id: the id of the request in the logs.
        count: how often within its minute.
    """

    at: float
    principal: str
    credential: str
    peer: str
    verb: str
    service: str
    endpoint: str
    action: str
    decision: Decision
    reason: str
    request_id: str
    count: int = 1

    @property
    def bulk(self) -> bool:
        """Whether many clients make many entries of the kind: refusals, registrations and logins."""
        return self.decision != "allowed" or self.verb in BULK_VERBS


AuditPosition = tuple[int, int]
"""A position in the audit: the time of an entry in microseconds since 1970, and the number of its row."""


class StoredEntry(Struct, frozen=True):
    """An entry as it is stored, and its position."""

    position: AuditPosition
    entry: AuditEntry


class AuditFilter(Struct, frozen=True):
    """The entries that are asked for; None stands for any.

    Attributes:
        principal: whose principal contains this text.
        verb: of this verb.
        service: of this service.
        decision: with this decision.
        since: seconds since 1970, from which on.
        until: seconds since 1970, before which.
        after: the position behind which the page begins; entries are listed the newest first.
        limit: how many at most.
    """

    principal: str | None = None
    verb: str | None = None
    service: str | None = None
    decision: Decision | None = None
    since: float | None = None
    until: float | None = None
    after: AuditPosition | None = None
    limit: int = 100


class Pending:
    """An entry of the queue, and how far it is stored."""

    __slots__ = ("count", "counted_at", "entry", "id", "key", "opened_at", "stored_count")

    def __init__(self, entry: AuditEntry, key: _Key, now: float) -> None:
        self.entry = cleaned(entry)
        self.key = key
        self.opened_at = now
        self.count = 1
        """How often it happened; grows until the entry's interval is over."""
        self.id: int | None = None
        """The row that it is stored as; None: it is not stored."""
        self.stored_count = 0
        """The count that the row has."""
        self.counted_at = now
        """When the count was last stored."""


class AuditQueue:
    """The entries that wait to be stored. Nothing in it does I/O, and adding to it never fails."""

    def __init__(self) -> None:
        self.lost = 0
        """Entries that there was no room for, or that PostgreSQL does not take, since the start."""
        self.lost_at: float | None = None
        """When an entry was last lost; None: never."""
        self._waiting: deque[Pending] = deque()
        """Entries that are not stored, the oldest first. Written by add() and settle()."""
        self._bulk_waiting = 0
        """How many of those are of a kind that many clients can make many of."""
        self._repeated: dict[tuple[str, ...], Pending] = {}
        """The refusals of the last interval, the oldest first. Written by add() and _close()."""
        self._of_peer: Counter[str] = Counter()
        """How many of those each peer has."""
        self._closed: list[Pending] = []
        """Refusals whose interval is over, and whose count may have to be stored once more."""

    def __len__(self) -> int:
        """Return how many entries wait."""
        return len(self._waiting)

    def add(self, entry: AuditEntry, now: float, cause: str = "") -> bool:
        """Add an entry, or count it as a repetition; return whether it is new.

        Args:
            entry: what happened; its texts may be anything.
            now: monotonic time.
            cause: tells refusals apart that have everything else in common.
        """
        key = _key(entry, cause)
        if entry.decision == "allowed":
            self._wait(Pending(entry, key, now), now)
            return True
        self._close(now)
        if key not in self._repeated:
            entry, key = self._folded(entry, key)
        before = self._repeated.get(key)
        if before is not None:
            before.count += 1
            return False
        pending = Pending(entry, key, now)
        # One that there is no room for is lost once an interval, and not each time.
        self._wait(pending, now)
        self._repeated[key] = pending
        self._of_peer[entry.peer] += 1
        return True

    def batch(self, most: int) -> list[tuple[Pending, AuditEntry]]:
        """Return the entries to store next, each with its count of now; they wait until they are settled."""
        first = islice(self._waiting, most)
        return [(pending, replace(pending.entry, count=pending.count)) for pending in first]

    def settle(self, stored: Sequence[tuple[Pending, AuditEntry]], ids: Sequence[int | None], now: float) -> None:
        """Take a batch out of the queue.

        Args:
            stored: the batch, or its first part.
            ids: the row of each of its entries; None: PostgreSQL does not take it, and it is lost.
            now: monotonic time.
        """
        for (pending, entry), row in zip(stored, ids, strict=True):
            self._waiting.popleft()
            self._bulk_waiting -= pending.entry.bulk
            if row is None:
                self._lose(now)
                continue
            pending.id, pending.stored_count, pending.counted_at = row, entry.count, now
            if pending.count > entry.count and self._repeated.get(pending.key) is not pending:
                # Its interval ended while it was being stored.
                self._closed.append(pending)

    def counts(self, now: float, most: int) -> list[tuple[Pending, int]]:
        """Return entries whose row has less than their count, each with the count that it is to have."""
        self._close(now)
        open_entries = (each for each in self._repeated.values() if now - each.counted_at >= COUNT_INTERVAL)
        due = (
            each for each in (*self._closed, *open_entries) if each.id is not None and each.count > each.stored_count
        )
        return [(pending, pending.count) for pending in islice(due, most)]

    def settle_counts(self, counts: Sequence[tuple[Pending, int]], now: float) -> None:
        """Note that rows have their counts."""
        for pending, count in counts:
            pending.stored_count, pending.counted_at = count, now
        self._closed = [pending for pending in self._closed if pending.count > pending.stored_count]

    def _wait(self, pending: Pending, now: float) -> None:
        bulk = pending.entry.bulk
        if len(self._waiting) >= MAX_WAITING or (bulk and self._bulk_waiting >= MAX_BULK_WAITING):
            self._lose(now)
            return
        self._waiting.append(pending)
        self._bulk_waiting += bulk

    def _lose(self, now: float) -> None:
        self.lost += 1
        self.lost_at = now

    def _folded(self, entry: AuditEntry, key: _Key) -> tuple[AuditEntry, _Key]:
        """Return what a new refusal is counted as, which is itself unless there are too many different ones."""
        if len(self._repeated) >= MAX_REPEATED:
            reason = f"more than {MAX_REPEATED} different refusals within a minute; the others are counted here"
            entry = replace(entry, principal=_SEVERAL, credential="", peer="", service="", endpoint="", reason=reason)
        elif self._of_peer[entry.peer] >= MAX_REPEATED_OF_PEER:
            reason = (
                f"more than {MAX_REPEATED_OF_PEER} different refusals of {entry.peer} within a minute; its others are "
                "counted here"
            )
            entry = replace(entry, principal=_SEVERAL, credential="", service="", endpoint="", reason=reason)
        else:
            return entry, key
        return entry, _key(entry, "")

    def _close(self, now: float) -> None:
        """End the interval of refusals that began long enough ago."""
        while self._repeated:
            key, pending = next(iter(self._repeated.items()))
            if now - pending.opened_at < REPEAT_INTERVAL:
                return
            del self._repeated[key]
            peer = key[1]
            self._of_peer[peer] -= 1
            if not self._of_peer[peer]:
                del self._of_peer[peer]
            if pending.id is not None and pending.count > pending.stored_count:
                self._closed.append(pending)


def _key(entry: AuditEntry, cause: str) -> _Key:
    return (entry.principal, entry.peer, entry.verb, entry.service, entry.action, entry.decision, cause)


def cleaned(entry: AuditEntry) -> AuditEntry:
    """Return an entry whose texts are printable, short, and have no token in them."""
    return replace(
        entry,
        principal=_clean(entry.principal, _MAX_TEXT),
        credential=_clean(entry.credential, _MAX_TEXT),
        peer=_clean(entry.peer, _MAX_TEXT),
        service=_clean(entry.service, _MAX_TEXT),
        endpoint=_clean(entry.endpoint, _MAX_TEXT),
        action=_clean(entry.action, _MAX_TEXT),
        reason=_clean(entry.reason, _MAX_REASON),
        request_id=_clean(entry.request_id, _MAX_TEXT),
    )


def _clean(text: str, most: int) -> str:
    text = text[: 4 * most]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    # Before it is cut, since the cut could be in the middle of a token.
    text = without_tokens(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
