"""The Envoys that poll, as a table; those that need a look come first."""

from collections.abc import Sequence

from msgspec import Raw
from rich.text import Text

from registryctl.client import Document, read
from registryctl.output import Cell, Screen
from registryctl.times import ago

_LACKING = (
    "some may be missing: PostgreSQL is away, or more Envoys poll than a process remembers; see registryctl check"
)
_UNKNOWN = f"it is not known whether an Envoy polls; {_LACKING}"
_WORST_FIRST = ("stuck", "behind", "silent", "current")


def show_subscribers(screen: Screen, found: Sequence[Raw], now: float, *, complete: bool) -> None:
    """Print who polls, the version that each holds against ours, and why one is not current.

    Args:
        screen: where.
        found: the subscribers that are known.
        now: the registry's time.
        complete: whether who is not among them does not poll.
    """
    told = sorted(map(read, found), key=lambda one: _WORST_FIRST.index(one["state"]))
    if not told:
        screen.note("no Envoy polls, or none that matches" if complete else _UNKNOWN)
        return
    head = ("envoy", "cluster", "zone", "address", "service", "api", "holds", "ours", "state", "seen", "")
    screen.table(head, [_row(screen, one, now) for one in told], right=("holds", "ours", "seen"))
    if not complete:
        screen.note(_LACKING)


def _row(screen: Screen, told: Document, now: float) -> Sequence[Cell]:
    held = told["version"]
    return (
        told["node_id"] or "-",
        told["cluster"] or "-",
        told["zone"] or "-",
        told["address"],
        told["service"],
        told["api"],
        "-" if held is None else str(held),
        str(told["current_version"]),
        screen.status(told["state"]),
        "now" if told["held"] else ago(now - told["last_seen"]),
        Text("" if told["state"] == "current" else told["reason"], "dim"),
    )
