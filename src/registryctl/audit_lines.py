"""Lines of the audit: who did what, or was refused, and why."""

from collections.abc import Iterable

from rich.text import Text

from registryctl.client import Document
from registryctl.output import Screen
from registryctl.times import clock

DECISIONS = {"allowed": "green", "refused": "red", "would_refuse": "yellow", "failed": "magenta"}
"""What may come of a request, each with its style."""
_DECISION_WIDTH = max(map(len, DECISIONS))
_MAX_WIDTH = 44
"""Characters to which the column of principals, and that of what they asked for, may widen."""


def show_audit(screen: Screen, entries: Iterable[Document]) -> None:
    """Print entries, one a line, in the order in which they are given."""
    listed = [(entry, _asked(entry)) for entry in entries]
    if not listed:
        screen.note("the audit has no entry that matches")
        return
    names = min(_MAX_WIDTH, max(len(entry["principal"]) for entry, _ in listed))
    things = min(_MAX_WIDTH, max(len(asked) for _, asked in listed))
    for entry, asked in listed:
        decision = entry["decision"]
        line = Text.assemble(
            (clock(entry["at"], utc=not screen.alive), "dim"),
            "  ",
            (f"{decision:<{_DECISION_WIDTH}}", DECISIONS.get(decision, "")),
            f"  {entry['principal']:<{names}}  {asked:<{things}}",
        )
        reason = f"{entry['reason']}  from {entry['peer']}"
        if screen.alive and line.cell_len + 2 + len(reason) > screen.console.width:
            screen.say(line)
            screen.indented(reason, "dim", 4)
        else:
            screen.say(line, "  ", (reason, "dim"))


def _asked(entry: Document) -> str:
    """Return what was asked for: the action, or of a refusal the verb; how often; and with what."""
    parts = [entry["action"] or entry["verb"] or "login", entry["service"], entry["endpoint"]]
    times = [f"({entry['count']:,} times)"] if entry["count"] > 1 else []
    return " ".join([part for part in parts if part] + times)
