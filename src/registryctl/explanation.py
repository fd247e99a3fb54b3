"""Text of an explanation: why an endpoint is, or is not, getting traffic."""

from rich.text import Text

from registryctl.client import Document
from registryctl.event_lines import EventLines
from registryctl.output import Screen


def show_explanation(screen: Screen, explanation: Document) -> None:
    """Print whether an endpoint gets traffic, the reasons, what would change it, and its events."""
    verdict = ("gets traffic", "green") if explanation["served"] else ("gets no traffic", "red")
    status = screen.status(explanation["status"]) if explanation["status"] else Text("not listed", "dim")
    screen.say((f"{explanation['service']} {explanation['endpoint']}", "bold"), "  ", status, "  ", verdict)
    _list(screen, "because", explanation["because"])
    _list(screen, "what would change it", explanation["would_change"])
    if explanation["events"]:
        screen.say(("what happened", "dim"))
        lines = EventLines(screen, indent="  ", place=False)
        for event in explanation["events"]:
            lines.line(event)


def _list(screen: Screen, title: str, lines: list[str]) -> None:
    if lines:
        screen.say((title, "dim"))
    for line in lines:
        screen.say(f"  {line}")
