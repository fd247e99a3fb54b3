"""Effective values of a caller, by the definitions of a directory or by the registry's current revision."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec import structs

from meshconfig.effective_caller import EffectiveCaller, EffectiveDependency, EffectiveRoute, EffectiveValue
from meshconfig.effective_values import effective_values
from registryctl.client import read
from registryctl.errors import MissingError
from registryctl.mesh.api import MeshApi
from registryctl.mesh.definitions import load_directory
from registryctl.mesh.jsonnet import Evaluated, place_in_source
from registryctl.mesh.rollout_view import gateway_lines
from registryctl.session import Session
from wire.spelling import spelling_hint

_Placed = TypeVar("_Placed", EffectiveValue, EffectiveRoute, EffectiveDependency)


def effective_caller(session: Session, name: str, directory: Path | None) -> EffectiveCaller:
    """Return the effective values of a service, a gateway or an edge.

    Raises:
        MissingError: nothing has this name.
    """
    if directory is None:
        document = session.client.get(f"/v1/mesh/services/{quote(name, safe='')}")
        return msgspec.json.decode(document, type=EffectiveCaller)
    definitions = load_directory(directory)
    configuration = definitions.configuration
    caller = effective_values(configuration, name)
    if caller is None:
        names = (*configuration.callers, *configuration.gateways, *configuration.edges)
        raise MissingError(f"{directory} has no service, gateway or edge {name!r}", spelling_hint(name, names))
    if name in configuration.gateways and configuration.gateways[name].select.metadata:
        session.screen.note(
            "services that the gateway selects by metadata are not shown: without --dir the registry tells"
        )
    return _in_sources(caller, definitions.evaluated) if definitions.evaluated else caller


def show_gateway(session: Session, caller: EffectiveCaller) -> None:
    """Print what people have to know of a gateway: that it is unproven, or does not follow the registered services."""
    if caller.kind == "gateway":
        for line in gateway_lines(read(MeshApi(session.client).rollout()), caller.name):
            session.screen.say((line, "yellow"))


def dependency_of(caller: EffectiveCaller, name: str) -> EffectiveDependency:
    """Return the dependency of a caller that has this name.

    Raises:
        MissingError: it has none.
    """
    by_name = {dependency.name: dependency for dependency in caller.dependencies}
    if name not in by_name:
        raise MissingError(f"{caller.name} has no dependency {name!r}", spelling_hint(name, by_name))
    return by_name[name]


def _in_sources(caller: EffectiveCaller, evaluated: Mapping[str, Evaluated]) -> EffectiveCaller:
    """Return effective values whose places in evaluated Jsonnet are those in the Jsonnet files."""

    def moved(placed: _Placed) -> _Placed:
        source = evaluated.get(placed.position.file)
        return placed if source is None else structs.replace(placed, position=place_in_source(placed.position, source))

    def values(values: Iterable[EffectiveValue]) -> tuple[EffectiveValue, ...]:
        return tuple(moved(value) for value in values)

    def dependency(each: EffectiveDependency) -> EffectiveDependency:
        routes = tuple(structs.replace(moved(route), values=values(route.values)) for route in each.routes)
        return structs.replace(moved(each), values=values(each.values), routes=routes)

    return structs.replace(caller, dependencies=tuple(map(dependency, caller.dependencies)))
