"""Parts that gateways and edges have in common: Envoys that take the requests of others."""

from collections.abc import Iterable, Mapping

from msgspec import Struct, structs

from meshconfig.authentication import Guards, guards
from meshconfig.cluster import cluster_names
from meshconfig.definition.authentication import Authentication
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.policies import Defaults, Policies
from meshconfig.definition.route import Route
from meshconfig.resource import Resource
from meshconfig.route import Way, named_services

_POLICIES = tuple(field.name for field in structs.fields(Policies))


class Front(Struct, frozen=True):
    """A compiled gateway or edge.

    Attributes:
        listeners: its listeners.
        routes: its RouteConfigurations.
        reached: every use of a service, with the routes that lead there.
    """

    listeners: tuple[Resource, ...]
    routes: tuple[Resource, ...]
    reached: tuple[Dependency, ...]


def use_of(service: str, defaults: Defaults, described: Mapping[str, Dependency]) -> Dependency:
    """Return the use of a service: as a file describes it, else by the defaults of the gateway or edge."""
    if service in described:
        return described[service]
    policies = {name: getattr(defaults, name) for name in _POLICIES}
    return Dependency(name=service, service=service, protocol=defaults.protocol, **policies)


def asked_services(authentications: Iterable[Authentication | None]) -> set[str]:
    """Return the services that are asked about requests."""
    wanted = (item.external for item in authentications if item is not None)
    return {external.service for external in wanted if external is not None}


def other_services(routes: Iterable[Route]) -> set[str]:
    """Return the services that routes lead to besides their own: of splits, shadows and authentication."""
    listed = list(routes)
    return {*named_services(listed), *asked_services(route.auth for route in listed)}


def guards_of(routes: Iterable[Route], uses: Iterable[Dependency]) -> Guards:
    """Return the authentication that the listener of these routes needs."""
    by_service = {use.service: use for use in uses if use.service is not None}
    return guards((route.auth for route in routes), by_service)


def way_to(use: Dependency, uses: Iterable[Dependency], guarding: Guards, *, separated: bool = False) -> Way:
    """Return the targets of routes to a service, among all uses of services."""
    return Way(use, cluster_names(uses), guarding, separated=separated)
