"""Plans in words: the changes with their lines, the Envoys that are woken, and the steps of the roll-out."""

from collections.abc import Sequence

from rich.text import Text

from meshconfig.change import Change
from meshconfig.plan import NodePlan, Plan, ResourceNames, Step
from registryctl.mesh.words import listed, plural
from registryctl.output import Cell, Screen

MAX_SUBJECTS = 3
"""Subjects of a change that a line names before it counts the others."""
MAX_NODES = 20
"""Services whose Envoys are listed before the others are counted."""

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def show_plan(screen: Screen, plan: Plan, against: str) -> None:
    """Print a plan; ``against`` names what the new definitions are compared with."""
    if not plan.base and not plan.empty and against == revision_name(0):
        screen.say("nothing was applied yet: all of this is new")
    if plan.empty:
        screen.say(f"no changes against {against}")
    else:
        show_changes(screen, plan.changes)
        _show_nodes(screen, plan.nodes)
        screen.say(_summary(plan, against))
    for fault in plan.warnings:
        screen.say((str(fault), "yellow"))
    for version in plan.unproven_versions:
        number = plural(version.envoys, "Envoy")
        screen.say((f"no proof covers Envoy {version.version}, which {number} of the last day run", "yellow"))


def show_changes(screen: Screen, changes: Sequence[Change]) -> None:
    """Print the differences in meaning, each with its line."""
    width = max((len(str(change.position)) for change in changes), default=0)
    for change in changes:
        sign, style = _SIGNS[change.what]
        place = (f"{change.position!s:<{width}}", "dim")
        screen.say(place, "  ", (f"{sign} ", style), listed(change.subjects, MAX_SUBJECTS), *_values(change))


def revision_name(number: int) -> str:
    """Return how people call a revision; 0 stands for none."""
    return f"revision {number}" if number else "nothing, since there is no revision yet"


def _values(change: Change) -> Sequence[Cell]:
    if not change.field:
        return (f" ({change.before or change.after})",)
    notes = ["built in again"] if change.layer == "built in" else []
    notes += ["from an Envoy's next start on"] if change.bootstrap else []
    noted = f" ({', '.join(notes)})" if notes else ""
    return (f": {change.field} {change.before} → {change.after}", Text(noted, "dim"))


def _show_nodes(screen: Screen, nodes: Sequence[NodePlan]) -> None:
    if not nodes:
        return
    screen.say("")
    counted = any(node.envoys is not None for node in nodes)
    rows = [
        (
            node.node,
            *(["-" if node.envoys is None else str(node.envoys)] if counted else []),
            *(_names(node.resources.get(kind)) for kind in ("clusters", "routes", "listeners")),
            "at once" if len(node.steps) == 1 else f"{len(node.steps)} steps",
        )
        for node in nodes[:MAX_NODES]
    ]
    head = ("node.cluster", *(["envoys"] if counted else []), "clusters", "routes", "listeners", "")
    screen.table(head, rows, right=("envoys",))
    if len(nodes) > MAX_NODES:
        screen.say(f"and {len(nodes) - MAX_NODES} more; -o json has all")
    for node in nodes[:MAX_NODES]:
        if len(node.steps) > 1:
            screen.say(f"{node.node}:")
            for number, step in enumerate(node.steps, start=1):
                screen.say(f"  {number}. {step.action}", (_wait(step, last=number == len(node.steps)), "dim"))


def _names(names: ResourceNames | None) -> str:
    if names is None:
        return ""
    parts = (("+", names.added), ("~", names.changed), ("-", names.removed))
    return " ".join(f"{sign}{len(each)}" for sign, each in parts if each)


def _wait(step: Step, *, last: bool) -> str:
    if last:
        return ""
    return f", then wait for {'its Envoys' if step.awaited is None else plural(step.awaited, 'Envoy')}"


def _summary(plan: Plan, against: str) -> str:
    counts = [node.envoys for node in plan.nodes if node.envoys is not None]
    get = "gets" if sum(counts) == 1 else "get"
    woken = f"; {plural(sum(counts), 'Envoy')} {get} new resources" if len(counts) == len(plan.nodes) else ""
    services = f" for {plural(len(plan.nodes), 'service')}" if plan.nodes else " that no Envoy is served"
    return f"{plural(len(plan.changes), 'change')}{services} against {against}{woken}"
