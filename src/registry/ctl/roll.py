"""The Envoys that poll, as a table; those that need a look come first."""

from collections.abc import Sequence

from msgspec import Raw
from rich.text import Text

from registry.ctl.client import Document, read
from registry.ctl.moment import ago
from registry.ctl.screen import Cell, Screen

_WORST_FIRST = ("stuck", "behind", "silent", "current")


def show_subscribers(screen: Screen, found: Sequence[Raw], now: float) -> None:
    """Print who polls, the version that each holds against ours, and why one is not current."""
    told = sorted(map(read, found), key=lambda one: _WORST_FIRST.index(one["state"]))
    if not told:
        screen.note("no Envoy polls, or none that matches")
        return
    head = ("envoy", "cluster", "zone", "address", "service", "api", "holds", "ours", "state", "seen", "")
    screen.table(head, [_row(screen, one, now) for one in told], right=("holds", "ours", "seen"))


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
