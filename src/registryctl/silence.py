"""Texts of silence: an endpoint whose lease is over, and that the guard or a pause keeps in the answers."""

from registryctl.client import Document
from registryctl.times import clock
from wire.duration import ago


def silence_of(endpoint: Document) -> Document | None:
    """Return the silence of an endpoint; a registry of an earlier version has none to tell."""
    silence: Document | None = endpoint.get("silence")
    return silence


def shown_status(endpoint: Document) -> str:
    """Return the status of an endpoint as people see it."""
    return "SILENT" if silence_of(endpoint) is not None else str(endpoint["status"])


def silence_text(silence: Document, now: float) -> str:
    """Return a silence in words: what was heard last and when, and until when it is kept at most."""
    heard = silence["last_heard"]
    when = f"{ago(now - heard)} ago" if heard is not None else f"over {ago(now - silence['since'])} ago"
    until = clock(silence["held_until"], utc=False)
    return f"last reported {silence['last_reported']} {when}, kept until {until} at most: {silence['reason']}"
