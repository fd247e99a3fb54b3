"""Table of the Envoys that poll; those in the worst state come first."""

from collections.abc import Sequence

from msgspec import Raw
from rich.text import Text

from registryctl.client import Document, read
from registryctl.output import Cell, Screen
from wire.duration import ago

_WORST_FIRST = ("rejected", "stuck", "behind", "silent", "current")


def reason_incomplete(complete: bool, refused_ago: float | None) -> str:
    """Return why subscribers may be missing from a list; empty when none are.

    Args:
        complete: whether the list is that of all processes, as the API reports it.
        refused_ago: seconds since a process did not remember a subscriber, for want of room; None: not lately.
    """
    if complete:
        return ""
    if refused_ago is None:
        return "of one process only: PostgreSQL is away"
    return f"some are not remembered, the last one {ago(refused_ago)} ago"


def show_subscribers(screen: Screen, documents: Sequence[Raw], now: float, incomplete: str) -> None:
    """Print each Envoy that polls, the version that it holds against ours, and why it is not current.

    Args:
        screen: where to print.
        documents: the subscribers that match.
        now: the registry's time.
        incomplete: why others may be missing; empty when none are.
    """
    subscribers = sorted(map(read, documents), key=lambda subscriber: _WORST_FIRST.index(subscriber["state"]))
    if not subscribers:
        unknown = f"it is not known whether an Envoy polls: {incomplete}"
        screen.note(unknown if incomplete else "no Envoy polls, or none that matches")
        return
    head = ("envoy", "cluster", "zone", "address", "service", "api", "edge", "holds", "ours", "state", "seen", "")
    rows = [_row(screen, subscriber, now) for subscriber in subscribers]
    screen.table(head, rows, right=("holds", "ours", "seen"))
    if incomplete:
        screen.note(f"some may be missing: {incomplete}")


def _row(screen: Screen, subscriber: Document, now: float) -> Sequence[Cell]:
    version = subscriber["version"]
    return (
        subscriber["node_id"] or "-",
        subscriber["cluster"] or "-",
        subscriber["zone"] or "-",
        subscriber["address"],
        subscriber["service"],
        subscriber["api"],
        # A registry before edges does not say it.
        subscriber.get("edge") or "-",
        "-" if version is None else str(version),
        str(subscriber["current_version"]),
        screen.status(subscriber["state"]),
        "now" if subscriber["held"] else ago(now - subscriber["last_seen"]),
        Text("" if subscriber["state"] == "current" else subscriber["reason"], "dim"),
    )
