"""Texts of pauses and suspects: both keep leases from lapsing."""

from rich.text import Text

from registryctl.client import Document
from registryctl.output import Screen
from wire.duration import ago


def show_expiry(screen: Screen, expiry: Document, now: float) -> None:
    """Print the pauses in force, and the endpoints that are served although their lease is over."""
    for pause in expiry["pauses"]:
        screen.say(Text(pause_text(pause, now), "yellow"))
    if not expiry["pauses"]:
        screen.say("expiry is not paused")
    suspects = expiry["suspects"]
    if not suspects:
        screen.say("the mass-expiry guard holds no endpoint")
        return
    rows = [
        (
            suspect["service"],
            suspect["endpoint"],
            suspect.get("last_reported", "-"),
            ago(now - suspect["since"]),
            ago(suspect["until"] - now),
            suspect["reason"],
        )
        for suspect in suspects
    ]
    screen.table(("service", "silent", "reported", "for", "lapses in", "why"), rows, right=("for", "lapses in"))


def pause_text(pause: Document, now: float) -> str:
    """Return a pause in words: where, by whom, why, until when."""
    where = f"in {pause['service']}" if pause["service"] else "everywhere"
    left = f"for another {ago(pause['until'] - now)}"
    return f"expiry is paused {where} {left}, by {pause['actor']}: {pause['reason']}"
