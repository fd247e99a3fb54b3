"""Text of an explanation: why an endpoint is, or is not, getting traffic."""

from rich.text import Text

from registryctl.client import Document
from registryctl.event_lines import EventLines
from registryctl.output import Screen
from registryctl.silence import silence_of


def show_explanation(screen: Screen, explanation: Document) -> None:
    """Print whether an endpoint gets traffic, the reasons, what would change it, and its events."""
    silent = explanation["now"] is not None and silence_of(explanation["now"]) is not None
    verdict = ("gets traffic", "green") if explanation["served"] else ("gets no traffic", "red")
    if silent and explanation["served"]:
        verdict = ("gets traffic, which fails if it is dead", "bold magenta")
    word = "SILENT" if silent else explanation["status"]
    status = screen.status(word) if word else Text("not listed", "dim")
    if explanation.get("from_memory"):
        missing = " and ".join(explanation["missing"])
        screen.say((f"from memory, without {missing}: {explanation['away']}", "yellow"))
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
