"""Routes that no request reaches, as an earlier one takes all of theirs."""

from collections.abc import Hashable, Iterator

from meshconfig.block import Block
from meshconfig.position import Fault

_PATHS = ("path", "prefix", "regex")
_CONDITIONS = ("methods", "headers", "cookie", "query")


def unreachable_routes(routes: tuple[Block, ...], *, separated: bool = False) -> Iterator[Fault]:
    """Yield a fault for each route behind one that takes all of its requests.

    Behind a route without conditions, these are all routes whose path begins with its prefix; behind any other one,
    those that match the same. It takes the time of reading the routes, not of comparing each with each.

    Args:
        routes: the routes in their order.
        separated: whether a prefix ends at a segment of the path, as edges have it.
    """
    taken = _Taken(separated=separated)
    matches: dict[Hashable, Block] = {}
    for route in routes:
        if not _is_whole(route):
            continue
        match = _match(route)
        earlier = matches.get(match) or taken.route_of(route)
        if earlier is not None:
            message = f"No request reaches this route: the one in line {earlier.line} takes all of its requests."
            yield Fault(route.position(), message, "Move it above that one, or remove it.")
            continue
        matches[match] = route
        if not any(route.values.get(field) for field in _CONDITIONS):
            taken.add(route)


class _Taken:
    """Paths and prefixes of which routes without conditions take all requests.

    Attributes:
        separated: whether a prefix ends at a segment of the path.
    """

    def __init__(self, *, separated: bool) -> None:
        self.separated = separated
        self._paths: dict[str, Block] = {}
        self._prefixes: dict[str, Block] = {}
        self._lengths: set[int] = set()  # of the prefixes

    def add(self, route: Block) -> None:
        """Take what a route without conditions takes; one by an expression takes nothing that can be compared."""
        path, prefix = route.values.get("path"), route.values.get("prefix")
        if path is not None:
            self._paths[path] = route
        elif prefix is not None:
            self._prefixes[prefix] = route
            self._lengths.add(len(prefix))

    def route_of(self, route: Block) -> Block | None:
        """Return the earlier route that takes all requests of this one."""
        path = route.values.get("path")
        if path in self._paths:
            return self._paths[path]
        begin = path or route.values.get("prefix") or ""
        for length in self._lengths:
            earlier = self._prefixes.get(begin[:length]) if length <= len(begin) else None
            if earlier is not None and (not self.separated or _ends_segment(begin, length)):
                return earlier
        return None


def _ends_segment(path: str, length: int) -> bool:
    return length == len(path) or path[length] == "/" or path[length - 1] == "/"


def _is_whole(route: Block) -> bool:
    """Tell whether a route's match is known: a broken one might match less than what is left of it."""
    values = route.values
    if all(values.get(field) is None for field in _PATHS):
        return False
    if any(field in route.places and field not in values for field in (*_PATHS, *_CONDITIONS)):
        return False
    return f"headers[{len(values.get('headers') or ())}]" not in route.places


def _match(route: Block) -> Hashable:
    """Return what a route matches, comparable with others."""
    values = route.values
    headers = (
        tuple(sorted((field, repr(value)) for field, value in header.values.items()))
        for header in route.blocks("headers")
    )
    return (
        *(values.get(field) for field in _PATHS),
        tuple(sorted(values.get("methods") or ())),
        tuple(sorted(headers)),
        *(tuple(sorted((values.get(field) or {}).items())) for field in ("cookie", "query")),
    )
