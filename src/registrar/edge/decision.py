"""The answer to a poll: pure rules, time is an argument.

An edge never takes hosts from an Envoy: it gives what the registry gave, and nothing older than what an Envoy brings.
"""

import enum
from collections.abc import Sequence

from msgspec import Struct

from registrar.edge.entry import Entry
from registrar.edge.token import Relation, compare, is_own, joined

TRUST_TIMEOUT = 0.5
"""Seconds that a starting Envoy waits for the registry to confirm what came from disk; it may be of last week."""
NOTHING_TIMEOUT = 2.0
"""Seconds after which a starting Envoy is answered without resources, where nothing is held and no registry answers."""
FALLBACK_TIMEOUT = 4.5
"""Seconds that it waits instead where a fallback may still answer; Envoys give up after 5."""


class Verdict(enum.Enum):
    """The answer to a poll, as long as nothing changes."""

    CONTENT = enum.auto()
    """200 with what is held."""
    NOTHING = enum.auto()
    """200 without resources, so that an Envoy starts; it keeps hosts that it has."""
    UNCHANGED = enum.auto()
    """304."""
    UNAVAILABLE = enum.auto()
    """503: Envoy asks again at once, and goes to the registry itself where this edge is refused."""
    WAIT = enum.auto()
    """None yet."""


class Poll(Struct, frozen=True):
    """One poll.

    Attributes:
        names: what it names.
        brought: the token that it brings.
        arrived: when it came.
        ends: when it has to be answered.
        confirmations: of each name, how often the registry had confirmed it by then.
        stepped: whether its type is one of the mesh configuration.
    """

    names: tuple[str, ...]
    brought: str
    arrived: float
    ends: float
    confirmations: tuple[int, ...]
    stepped: bool = False


class Situation(Struct, frozen=True):
    """The state of the registries, as far as an answer depends on it.

    Attributes:
        away: whether the newest question failed.
        refused: whether registries answer and refuse.
        fallback: whether there is a fallback to ask.
    """

    away: bool = False
    refused: bool = False
    fallback: bool = False


def decide(poll: Poll, entries: Sequence[Entry], situation: Situation, now: float) -> tuple[Verdict, float]:
    """Return the answer to a poll, and when to decide again if that is to wait."""
    ours = joined(poll.names, [entry.token for entry in entries]) if all(entry.token for entry in entries) else ""
    relation = compare(poll.brought, ours, stepped=poll.stepped)
    if ours and relation is Relation.OLDER:
        return Verdict.CONTENT, now
    if relation is Relation.NONE:
        return _of_starting(poll, ours, entries, situation, now)
    if ours and relation is Relation.FOREIGN and not is_own(ours) and _was_confirmed(poll, entries):
        return Verdict.CONTENT, now
    return _at_end(Verdict.UNCHANGED, now if situation.refused else poll.ends, now)


def _of_starting(
    poll: Poll, ours: str, entries: Sequence[Entry], situation: Situation, now: float
) -> tuple[Verdict, float]:
    """Decide about a poll of an Envoy that has nothing of a registry."""
    if ours:
        sure = situation.away or situation.refused or all(entry.trusted or is_own(entry.token) for entry in entries)
        return (Verdict.CONTENT, now) if sure else _at_end(Verdict.CONTENT, poll.arrived + TRUST_TIMEOUT, now)
    if situation.refused and not poll.brought:
        return Verdict.UNAVAILABLE, now
    if poll.stepped:
        # An Envoy without clusters, listeners or routes opens no port or answers 404: it had better wait.
        return _at_end(Verdict.UNAVAILABLE, poll.ends, now)
    if poll.brought:
        return _at_end(Verdict.UNCHANGED, poll.ends, now)
    end = poll.arrived + (FALLBACK_TIMEOUT if situation.fallback else NOTHING_TIMEOUT)
    # A client that does not say how long it waits, like curl, is no Envoy, and waits for long.
    return _at_end(Verdict.NOTHING, min(poll.ends, end) if poll.ends > poll.arrived else end, now)


def _was_confirmed(poll: Poll, entries: Sequence[Entry]) -> bool:
    """Return whether the registry has said since the poll that this is its newest content."""
    return all(entry.confirmations > before for entry, before in zip(entries, poll.confirmations, strict=True))


def _at_end(verdict: Verdict, end: float, now: float) -> tuple[Verdict, float]:
    return (verdict, now) if now >= end else (Verdict.WAIT, end)
