"""Why an endpoint is, or is not, getting traffic: the API's words, laid out."""

from rich.text import Text

from registryctl.client import Document
from registryctl.history import EventLines
from registryctl.output import Screen


def show_explanation(screen: Screen, told: Document) -> None:
    """Print the verdict, its reasons, what would change it, and what happened."""
    verdict = ("gets traffic", "green") if told["served"] else ("gets no traffic", "red")
    status = screen.status(told["status"]) if told["status"] else Text("not listed", "dim")
    screen.say((f"{told['service']} {told['endpoint']}", "bold"), "  ", status, "  ", verdict)
    _list(screen, "because", told["because"])
    _list(screen, "what would change it", told["would_change"])
    if told["events"]:
        screen.say(("what happened", "dim"))
        lines = EventLines(screen, indent="  ", place=False)
        for event in told["events"]:
            lines.line(event)


def _list(screen: Screen, title: str, lines: list[str]) -> None:
    if lines:
        screen.say((title, "dim"))
    for line in lines:
        screen.say(f"  {line}")
