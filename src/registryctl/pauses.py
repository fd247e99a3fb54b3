"""What keeps leases from lapsing, in words."""

from rich.text import Text

from registryctl.client import Document
from registryctl.output import Screen
from registryctl.times import ago


def show_expiry(screen: Screen, told: Document, now: float) -> None:
    """Print the pauses in force, and the endpoints that are served although their lease is over."""
    for pause in told["pauses"]:
        screen.say(Text(pause_text(pause, now), "yellow"))
    if not told["pauses"]:
        screen.say("expiry is not paused")
    suspects = told["suspects"]
    if not suspects:
        screen.say("the guard keeps nobody served whose lease is over")
        return
    rows = [
        (one["service"], one["endpoint"], ago(now - one["since"]), ago(one["until"] - now), one["reason"])
        for one in suspects
    ]
    screen.table(("service", "suspect", "for", "lapses in", "why"), rows, right=("for", "lapses in"))


def pause_text(pause: Document, now: float) -> str:
    """Return a pause in words: where, by whom, why, until when."""
    where = f"in {pause['service']}" if pause["service"] else "everywhere"
    left = f"for another {ago(pause['until'] - now)}"
    return f"expiry is paused {where} {left}, by {pause['actor']}: {pause['reason']}"
