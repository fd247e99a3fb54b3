"""Lines of events, in columns that do not jump from one line to the next."""

from collections.abc import Iterable

from rich.text import Text

from registryctl.client import Document
from registryctl.output import Screen
from registryctl.times import clock
from wire.address import parse_ip

_KINDS = {
    "registered": "green",
    "returned": "green",
    "lapsed": "magenta",
    "update_rejected": "red",
    "suspected": "bold magenta",
    "removed": "dim",
    "drained": "cyan",
    "expelled": "cyan",
    "overridden": "cyan",
    "paused": "yellow",
    "shift_aborted": "red",
    "shift_held": "yellow",
}
_OF_REGISTRARS = ("registered", "health", "changed", "drained", "returned", "deregistered")
"""Kinds of events whose actor is a registrar."""
_KIND_WIDTH = 16
"""Characters of the longest kind of event."""
MAX_PLACE_WIDTH = 44
"""Characters of service and endpoint to which the column of places may widen."""


class EventLines:
    """Printer of events, one a line.

    Args:
        screen: where to print.
        indent: stands before each line.
        place: whether to name service and endpoint.
    """

    def __init__(self, screen: Screen, indent: str = "", *, place: bool = True) -> None:
        self._screen = screen
        self._indent = indent
        self._place = place
        # Width of the column of places; it only widens.
        self._width = 0

    def all(self, events: Iterable[Document]) -> None:
        """Print events that are all there already, in columns as narrow as they can be."""
        listed = list(events)
        self._width = max((len(_where(event)) for event in listed), default=0)
        for event in listed:
            self.line(event)

    def line(self, event: Document) -> None:
        """Print one event."""
        style = _KINDS.get(event["kind"], "")
        if event["kind"] == "health":
            style = {"HEALTHY": "green", "DEGRADED": "yellow"}.get(event["status"], "red")
        parts: list[Text | tuple[str, str] | str] = [
            self._indent,
            (clock(event["at"], utc=not self._screen.alive), "dim"),
            "  ",
            (f"{event['kind']:<{_KIND_WIDTH}}", style),
            "  ",
        ]
        if self._place:
            self._width = min(MAX_PLACE_WIDTH, max(self._width, len(_where(event))))
            parts.append(f"{_where(event):<{self._width}}  ")
        self._screen.say(*parts, event["reason"], (f"  by {_actor(event)}", "dim"))


def _actor(event: Document) -> str:
    """Return the actor of an event; a registrar without credentials is a bare address, and gets its instance's name."""
    if event["kind"] not in _OF_REGISTRARS:
        return str(event["actor"])
    try:
        parse_ip(event["actor"])
    except ValueError:
        return str(event["actor"])
    return f"{event['instance_id']} at {event['actor']}"


def _where(event: Document) -> str:
    if event["endpoint"] is None:
        return "everywhere" if event["service"] == "*" else str(event["service"])
    return f"{event['service']} {event['endpoint']}"
