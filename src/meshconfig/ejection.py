"""Outlier detection that ejects nobody of a service with as few endpoints as it has now."""

from collections.abc import Iterable, Iterator, Mapping

from meshconfig.definition.dependency import Dependency
from meshconfig.edge import compile_edge
from meshconfig.effective import Configuration, Origin
from meshconfig.front import use_of
from meshconfig.gateway import selected
from meshconfig.position import BUILT_IN, Fault, Position, Severity
from meshconfig.resource import Catalog

MAX_NAMED = 4
"""Services that a warning names before it counts the others."""

_MESH = Position("mesh.yaml")
_FIELD = "outlier_detection.max_percent"


def ejects_none(endpoints: int, max_percent: int) -> bool:
    """Tell whether Envoy ejects none of these endpoints: one of them is a larger share than may be ejected.

    A service with a single endpoint does not count: without it there is nobody who could answer.
    """
    return endpoints > 1 and 100 / endpoints > max_percent


def ejection_findings(configuration: Configuration, catalog: Catalog) -> list[Fault]:
    """Return warnings of services of which no endpoint can be ejected, one for each place that limits it."""
    services: dict[tuple[Position, int], set[str]] = {}
    for use, origins, path in _uses(configuration, catalog):
        rules, service = use.outlier_detection, use.service or ""
        if rules is not None and ejects_none(catalog.endpoints.get(service, 0), rules.max_percent):
            origin = origins.get(path + _FIELD)
            position = BUILT_IN if origin is None else origin.position
            services.setdefault((position, rules.max_percent), set()).add(service)
    return [
        _finding(position, percent, sorted(names), catalog) for (position, percent), names in sorted(services.items())
    ]


def _uses(configuration: Configuration, catalog: Catalog) -> Iterator[tuple[Dependency, Mapping[str, Origin], str]]:
    """Yield each use of a service, with the origins of its values and what their paths begin with."""
    for caller in configuration.callers.values():
        for dependency in (*caller.dependencies, *caller.targets):
            yield dependency, caller.origins, f"{dependency.name}."
    for name, gateway in configuration.gateways.items():
        described = configuration.targets.get(name, {})
        uses = [use_of(service, gateway.defaults, described) for service in selected(gateway, catalog)]
        yield from _of_front(configuration, name, uses)
    for name, edge in configuration.edges.items():
        front = compile_edge(edge, configuration.mesh, configuration.targets.get(name, {}), 0.0)
        yield from _of_front(configuration, name, front.reached)


def _of_front(
    configuration: Configuration, name: str, uses: Iterable[Dependency]
) -> Iterator[tuple[Dependency, Mapping[str, Origin], str]]:
    origins = configuration.target_origins.get(name, {})
    for use in uses:
        yield use, origins.get(use.service or "", origins.get("", {})), ""


def _finding(position: Position, percent: int, services: list[str], catalog: Catalog) -> Fault:
    named = [f"{service} ({catalog.endpoints[service]} endpoints)" for service in services[:MAX_NAMED]]
    more = f" and {len(services) - MAX_NAMED} more" if len(services) > MAX_NAMED else ""
    # The fewest endpoints of them: one of these is the largest share, rounded up to a whole number.
    largest = -(-100 // min(catalog.endpoints[service] for service in services))
    written = "built-in max_percent" if position == BUILT_IN else "max_percent"
    message = (
        f"Outlier detection cannot eject at today's size: of {', '.join(named)}{more} one endpoint is more than the "
        f"{written} {percent}."
    )
    fix = f"Write max_percent: {largest}, or have more endpoints."
    return Fault(_MESH if position == BUILT_IN else position, message, fix, Severity.WARNING, inherent=True)
