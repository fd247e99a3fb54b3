"""Changing one part of an override: the API replaces it whole, so what else it says is said again."""

from typing import Any

from msgspec import Raw

from registry.ctl.client import Document, read
from registry.ctl.errors import MissingError
from registry.ctl.moment import ago
from registry.ctl.session import Session

# What an override says that says nothing; canary is one of three words, and False is not this one.
_NOTHING: Document = {"weight": None, "canary": None, "drain": False}


def set_override(session: Session, path: str, wanted: Document, reason: str, seconds: float | None) -> None:
    """Set a part of an endpoint's override and keep its other parts.

    An override has one reason and one end for all of its parts: those given now, or without ``seconds`` the end that
    it had.
    """
    before = _override_of(session, path)
    left = None if before is None or before["expires_at"] is None else before["expires_at"] - session.client.now
    ends = left if seconds is None else seconds
    told = _parts(before) | wanted | {"reason": reason, "expires_in": None if ends is None else max(1.0, ends)}
    _put(session, path, told)


def clear_override(session: Session, path: str, what: str) -> None:
    """Take a part of an endpoint's override back and keep its other parts.

    Raises:
        MissingError: no override sets that part.
    """
    before = _override_of(session, path)
    if before is None or before.get(what) == _NOTHING[what]:
        raise MissingError(f"no operator's override sets its {what}; there is nothing to take back")
    left = _parts(before) | {what: _NOTHING[what]}
    if left != _NOTHING:
        ends = before["expires_at"]
        rest = None if ends is None else max(1.0, ends - session.client.now)
        _put(session, path, left | {"reason": before["reason"], "expires_in": rest})
        return
    session.client.ask("DELETE", f"{path}/override")
    _show(session, session.client.get(path))


def _override_of(session: Session, path: str) -> Document | None:
    override: Document | None = read(session.client.get(path))["override"]
    return override


def _parts(override: Document | None) -> Document:
    return {name: (override or {}).get(name, nothing) for name, nothing in _NOTHING.items()}


def _put(session: Session, path: str, told: Document) -> None:
    # A registry that knows no canary override refuses the word, so it is not said for nothing.
    if told["canary"] is None:
        told = {name: value for name, value in told.items() if name != "canary"}
    _show(session, Raw(session.client.ask("PUT", f"{path}/override", document=told).content))


def _show(session: Session, endpoint: Raw) -> None:
    screen = session.screen
    if session.json:
        screen.document(endpoint)
        return
    told = read(endpoint)
    screen.say(
        f"{told['service']} {told['endpoint']}  ", screen.status(told["status"]), f"  weight {told['weight'] or 1}"
    )
    screen.say("  ", override_text(told["override"], session.client.now) or "no override")


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
