"""The label of a route: what it matches, for people and for finding the same route in another configuration."""

from msgspec import Struct

from meshconfig.definition.route import HeaderMatch, Route
from meshconfig.literal import literal, written

MATCH_FIELDS = frozenset({"path", "prefix", "regex", "query", "methods", "headers", "cookie"})
"""Fields of a route that say which requests it takes."""

TAKES_ALL = "/*"
"""The label of a route without conditions."""


class PlacedRoute(Struct, frozen=True):
    """A route and its index in its list."""

    index: int
    route: Route


def route_label(route: Route) -> str:
    """Return what a route matches, as ``GET,HEAD /api/* [x-user: jason]``."""
    path = route.path or (f"~ {route.regex}" if route.regex is not None else f"{route.prefix or '/'}*")
    query = [f"[query {name}={value}]" for name, value in route.query.items()]
    methods = [",".join(route.methods)] if route.methods else []
    cookies = [f"[cookie {name}={value}]" for name, value in route.cookie.items()]
    return " ".join((*methods, path, *query, *map(_condition, route.headers), *cookies))


def by_label(routes: tuple[Route, ...]) -> dict[str, PlacedRoute]:
    """Return routes by their labels, in their order; a label that is repeated is numbered."""
    labelled: dict[str, PlacedRoute] = {}
    for index, route in enumerate(routes):
        label = unique = route_label(route)
        count = 1
        while unique in labelled:
            count += 1
            unique = f"{label} ({count})"
        labelled[unique] = PlacedRoute(index, route)
    return labelled


def _condition(match: HeaderMatch) -> str:
    conditions = {name: literal(value) for name, value in written(match).items() if name != "name"}
    if set(conditions) == {"exact"}:
        return f"[{match.name}: {conditions['exact']}]"
    return f"[{match.name} {', '.join(f'{name}: {value}' for name, value in conditions.items())}]"
