"""A caller with every value that holds for it, as people read it."""

from typing import Literal

from msgspec import Struct

from meshconfig.position import Position


class EffectiveValue(Struct, frozen=True):
    """One value, as files write it, and where it is from.

    Attributes:
        field: its path in the dependency or the route, as ``retry.attempts``.
        value: as files write it; ``off`` for null.
        layer: ``route``, ``dependency``, ``callee``, ``gateway``, ``edge``, ``mesh`` or ``built in``; ``catalog`` for
            what registered endpoints announce.
        position: the place in a file; ``built in`` where no file writes it.
    """

    field: str
    value: str
    layer: str
    position: Position


class EffectiveRoute(Struct, frozen=True):
    """One route.

    Attributes:
        matches: the requests that it takes, as ``GET /api/*``.
        values: the policies of these requests.
        position: where it is written; the dependency's place for a route that no file writes.
    """

    matches: str
    values: tuple[EffectiveValue, ...]
    position: Position


class EffectiveDependency(Struct, frozen=True):
    """One use of a service or an address.

    Attributes:
        name: its name.
        leads_to: the service or the address, in words.
        position: where it is written.
        values: what holds for all of its requests.
        routes: its routes in order; none where only splits, shadows or a gateway's selection lead to it.
    """

    name: str
    leads_to: str
    position: Position
    values: tuple[EffectiveValue, ...]
    routes: tuple[EffectiveRoute, ...] = ()


CallerKind = Literal["service", "gateway", "edge"]
"""The folders of files that define Envoys."""


class EffectiveCaller(Struct, frozen=True):
    """A service, a gateway or an edge with everything that it uses.

    Attributes:
        name: its name.
        dependencies: what it uses.
        kind: which of the three it is.
    """

    name: str
    dependencies: tuple[EffectiveDependency, ...]
    kind: CallerKind = "service"
