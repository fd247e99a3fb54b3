"""Shares of traffic: read from the command line, and shown as a table."""

from collections.abc import Mapping
from typing import Any

from msgspec import Raw

from registryctl.client import read
from registryctl.errors import UsageError
from registryctl.output import Cell, Screen
from registryctl.session import Session
from wire.duration import ago
from wire.share import split_share


def read_group(group: str) -> dict[str, object]:
    """Return a share as the API takes it.

    Raises:
        UsageError: it has no selector or no percentage.
    """
    try:
        selector, percent = split_share(group)
    except ValueError as error:
        raise UsageError(f"share: {error}") from None
    return {"selector": selector, "percent": percent}


def show_shares(session: Session, content: bytes) -> None:
    """Print the shares of a service: what each group was given, and what it gets."""
    if session.json:
        session.screen.document(Raw(content))
        return
    shares = read(Raw(content))
    screen = session.screen
    if not shares["groups"]:
        screen.say(f"{shares['service']}: no shares; each endpoint has its own weight")
        _note_warnings(screen, shares)
        return
    rows: list[tuple[Cell, ...]] = [
        (
            group["selector"] or "the rest",
            f"{group['percent']:g} %",
            f"{group['effective_percent']:g} %",
            f"{group['routable']} of {group['endpoints']}",
        )
        for group in shares["groups"]
    ]
    screen.table(("group", "share", "gets", "routable"), rows, right=("share", "gets", "routable"))
    set_ago = ago(session.client.now - shares["set_at"])
    screen.say(
        f"set {set_ago} ago by {shares['actor']}: {shares['reason'] or 'no reason given'}; version {shares['version']}"
    )
    _note_warnings(screen, shares)


def _note_warnings(screen: Screen, shares: Mapping[str, Any]) -> None:
    for warning in shares["warnings"]:
        screen.note(warning)
