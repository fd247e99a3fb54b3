"""An endpoint's override: the request that changes it, and the text that shows it."""

from typing import Any

from msgspec import Raw

from registryctl.client import Document, read
from registryctl.session import Session
from registryctl.times import ago


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
    parts: list[Any] = ["drained"] if override["drain"] else []
    if override["weight"] is not None:
        parts.append(f"weight {override['weight']}")
    if override.get("canary") is not None:
        parts.append("canary" if override["canary"] else "no canary")
    reason = f": {override['reason']}" if override["reason"] else ""
    ends = override["expires_at"]
    until = "" if ends is None else f" (for another {ago(ends - now)})"
    return f"{', '.join(parts)} by {override['actor']}{reason}{until}"
