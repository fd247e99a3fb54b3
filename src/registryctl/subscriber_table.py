"""Table of the Envoys that poll; those in the worst state come first."""

from collections.abc import Sequence

from msgspec import Raw
from rich.text import Text

from registryctl.client import Document, read
from registryctl.output import Cell, Screen
from registryctl.times import ago

_LACKING = (
    "some may be missing: PostgreSQL is away, or more Envoys poll than a process remembers; see registryctl check"
)
_NOT_SURE = f"it is not known whether an Envoy polls; {_LACKING}"
_WORST_FIRST = ("stuck", "behind", "silent", "current")


def show_subscribers(screen: Screen, documents: Sequence[Raw], now: float, *, complete: bool) -> None:
    """Print each Envoy that polls, the version that it holds against ours, and why it is not current.

    Args:
        screen: where to print.
        documents: the subscribers that match.
        now: the registry's time.
        complete: whether an Envoy that is not among them does not poll.
    """
    subscribers = sorted(map(read, documents), key=lambda subscriber: _WORST_FIRST.index(subscriber["state"]))
    if not subscribers:
        screen.note("no Envoy polls, or none that matches" if complete else _NOT_SURE)
        return
    head = ("envoy", "cluster", "zone", "address", "service", "api", "holds", "ours", "state", "seen", "")
    rows = [_row(screen, subscriber, now) for subscriber in subscribers]
    screen.table(head, rows, right=("holds", "ours", "seen"))
    if not complete:
        screen.note(_LACKING)


def _row(screen: Screen, subscriber: Document, now: float) -> Sequence[Cell]:
    version = subscriber["version"]
    return (
        subscriber["node_id"] or "-",
        subscriber["cluster"] or "-",
        subscriber["zone"] or "-",
        subscriber["address"],
        subscriber["service"],
        subscriber["api"],
        "-" if version is None else str(version),
        str(subscriber["current_version"]),
        screen.status(subscriber["state"]),
        "now" if subscriber["held"] else ago(now - subscriber["last_seen"]),
        Text("" if subscriber["state"] == "current" else subscriber["reason"], "dim"),
    )
