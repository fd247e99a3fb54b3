"""Tables of effective values: a caller's dependencies in short, and one of them with every value and its origin."""

from collections.abc import Iterable

from rich.text import Text

from meshconfig.effective_caller import EffectiveCaller, EffectiveDependency, EffectiveValue
from meshconfig.position import BUILT_IN, Position
from registryctl.output import Cell, Screen


def show_caller(screen: Screen, caller: EffectiveCaller) -> None:
    """Print the dependencies of a caller, a route a row."""
    if not caller.dependencies:
        screen.note(f"{caller.name} calls nothing")
        return
    rows: list[tuple[Cell, ...]] = []
    for dependency in caller.dependencies:
        name: str = dependency.name
        for matches, values, position in _rows(dependency):
            shown = {value.field: value.value for value in values}
            retry = shown.get("retry", "") or shown.get("retry.attempts", "-")
            rows.append(
                (name, dependency.leads_to if name else "", matches, shown.get("timeout", "-"), retry, str(position))
            )
            name = ""
    screen.table(
        ("dependency", "leads to", "route", "timeout", "tries", "written at"), rows, right=("timeout", "tries")
    )


def show_dependency(screen: Screen, caller: EffectiveCaller, dependency: EffectiveDependency) -> None:
    """Print every effective value of one dependency with its origin."""
    screen.say(f"{caller.name} → {dependency.name}", (f"  {dependency.leads_to}  {_place(dependency.position)}", "dim"))
    rows: list[tuple[Cell, ...]] = [*_values(dependency.values)]
    for route in dependency.routes:
        rows += [(Text(f"route {route.matches}", "bold"), "", _place(route.position), ""), *_values(route.values)]
    screen.table(("field", "from", "written at", "value"), rows)


def _rows(dependency: EffectiveDependency) -> Iterable[tuple[str, tuple[EffectiveValue, ...], Position]]:
    if dependency.routes:
        return [(route.matches, route.values, route.position) for route in dependency.routes]
    return [("", dependency.values, dependency.position)]


def _values(values: Iterable[EffectiveValue]) -> Iterable[tuple[Cell, ...]]:
    for value in values:
        style = "dim" if value.position == BUILT_IN else ""
        cells = (f"  {value.field}", value.layer, _place(value.position), value.value)
        yield tuple(Text(cell, style) for cell in cells)


def _place(position: Position) -> str:
    return "" if position == BUILT_IN else str(position)
