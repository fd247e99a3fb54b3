"""The marks on the chart of a service: drains, deploys, lost endpoints, and what the expiry guard keeps."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from msgspec import Struct

from registry.core.endpoint import Endpoint
from registry.core.history import RecordedEvent
from wire.address import format_endpoint

MarkKind = Literal["drain", "deploy", "lost", "guard"]

_GROUPS = 60
"""Parts of the time that a chart shows; marks of one kind in the same part are one mark."""
_KINDS: dict[str, MarkKind] = {"drained": "drain", "lapsed": "lost", "suspected": "guard", "paused": "guard"}
_WORDS: dict[MarkKind, str] = {
    "drain": "drained",
    "deploy": "new revision",
    "lost": "lost (lease expired)",
    "guard": "kept by the expiry guard",
}


class Mark(Struct, frozen=True):
    """A mark at the first of several moments of its kind, in seconds since 1970, and its words."""

    at: float
    kind: MarkKind
    words: str


def chart_marks(
    events: Sequence[RecordedEvent], endpoints: Iterable[Endpoint], since: float, until: float
) -> list[Mark]:
    """Return the marks between two times, the oldest first.

    Args:
        events: what happened, the oldest first.
        endpoints: those that are listed now: a revision is new when the first of them with it registered. Events do
            not have revisions.
        since: where the chart begins.
        until: where it ends.
    """
    moments = [*_happened(events), *_deploys(endpoints)]
    groups: dict[tuple[int, MarkKind], list[tuple[float, str]]] = {}
    width = max(1.0, (until - since) / _GROUPS)
    for at, kind, name in sorted(moments):
        if since <= at <= until:
            groups.setdefault((int((at - since) / width), kind), []).append((at, name))
    return [Mark(group[0][0], kind, _words(kind, [name for _, name in group])) for (_, kind), group in groups.items()]


def _happened(events: Iterable[RecordedEvent]) -> Iterator[tuple[float, MarkKind, str]]:
    for event in events:
        kind = _KINDS.get(event.kind)
        if event.kind == "overridden" and event.status == "DRAINING":
            kind = "drain"
        if kind is not None:
            yield event.at, kind, _name(event)


def _name(event: RecordedEvent) -> str:
    if event.address is None or event.port is None:
        return "expiry paused"
    return format_endpoint(event.address, event.port)


def _deploys(endpoints: Iterable[Endpoint]) -> Iterator[tuple[float, MarkKind, str]]:
    first: dict[str, float] = {}
    for endpoint in endpoints:
        revision = endpoint.registration.revision
        first[revision] = min(endpoint.registered_at, first.get(revision, endpoint.registered_at))
    first.pop("", None)
    oldest = min(first, key=lambda revision: first[revision], default=None)
    for revision, at in first.items():
        # The service began with the oldest one, which replaced none.
        if revision != oldest:
            yield at, "deploy", revision


def _words(kind: MarkKind, names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    if distinct == ["expiry paused"]:
        return distinct[0]
    more = f" and {len(distinct) - 2} more" if len(distinct) > 2 else ""
    named = ", ".join(distinct[:2]) + more
    return f"{_WORDS[kind]} {named}" if kind == "deploy" else f"{named} {_WORDS[kind]}"
