"""An endpoint's override: the request that changes it, and the text that shows it."""

from collections.abc import Iterable, Sequence

from msgspec import Raw
from rich.text import Text

from registryctl.client import Document, read
from registryctl.output import Cell, Screen
from registryctl.session import Session
from wire.duration import ago


def change_override(session: Session, path: str, change: Document) -> None:
    """Change the parts of an endpoint's override that ``change`` names, and show the endpoint.

    Raises:
        MissingError: there is no such endpoint, or no override that could be taken back.
    """
    _show(session, Raw(session.client.ask("PATCH", f"{path}/override", document=change).content))


def _show(session: Session, endpoint: Raw) -> None:
    screen = session.screen
    if session.json:
        screen.document(endpoint)
        return
    view = read(endpoint)
    screen.say(
        f"{view['service']} {view['endpoint']}  ", screen.status(view["status"]), f"  weight {view['weight'] or 1}"
    )
    screen.say("  ", override_text(view["override"], session.client.now) or "no override")


def override_text(override: Document | None, now: float) -> str:
    """Return an override in words: what, by whom, why, for how much longer; empty for none."""
    if override is None:
        return ""
    reason = f": {override['reason']}" if override["reason"] else ""
    ends = override["expires_at"]
    until = "" if ends is None else f" (for another {ago(ends - now)})"
    return f"{', '.join(_parts(override))} by {override['actor']}{reason}{until}"


def _parts(override: Document) -> list[str]:
    parts = ["drained"] if override["drain"] else []
    if override["weight"] is not None:
        parts.append(f"weight {override['weight']}")
    if override.get("canary") is not None:
        parts.append("canary" if override["canary"] else "no canary")
    return parts


def show_overrides(screen: Screen, overrides: Iterable[Raw], now: float) -> None:
    """Print overrides, those that may have been forgotten with a note."""
    rows = [_row(screen, read(override), now) for override in overrides]
    if not rows:
        screen.note("no override is in force")
        return
    screen.table(("service", "endpoint", "status", "override", "by", "since", "until", "reason"), rows)


def _row(screen: Screen, override: Document, now: float) -> Sequence[Cell]:
    ends = override["expires_at"]
    until: Cell = "removed" if ends is None else f"in {ago(ends - now)}"
    if override["open_ended"]:
        until = Text("removed, no end", "yellow")
    return (
        override["service"],
        override["endpoint"],
        "not listed" if override["status"] is None else screen.status(override["status"]),
        ", ".join(_parts(override)),
        override["actor"],
        f"{ago(now - override['set_at'])} ago",
        until,
        override["reason"] or "no reason given",
    )
