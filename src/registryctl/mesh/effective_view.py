"""Effective values of a caller, by the definitions of a directory or by the registry's current revision."""

from pathlib import Path
from urllib.parse import quote

import msgspec

from meshconfig.effective_values import EffectiveCaller, EffectiveDependency, effective_values
from registryctl.errors import MissingError
from registryctl.mesh.definitions import load_directory
from registryctl.session import Session
from wire.spelling import spelling_hint


def effective_caller(session: Session, name: str, directory: Path | None) -> EffectiveCaller:
    """Return the effective values of a service, a gateway or an edge.

    Raises:
        MissingError: nothing has this name.
    """
    if directory is None:
        document = session.client.get(f"/v1/mesh/services/{quote(name, safe='')}")
        return msgspec.json.decode(document, type=EffectiveCaller)
    configuration = load_directory(directory).configuration
    caller = effective_values(configuration, name)
    if caller is None:
        names = (*configuration.callers, *configuration.gateways, *configuration.edges)
        raise MissingError(f"{directory} has no service, gateway or edge {name!r}", spelling_hint(name, names))
    return caller


def dependency_of(caller: EffectiveCaller, name: str) -> EffectiveDependency:
    """Return the dependency of a caller that has this name.

    Raises:
        MissingError: it has none.
    """
    by_name = {dependency.name: dependency for dependency in caller.dependencies}
    if name not in by_name:
        raise MissingError(f"{caller.name} has no dependency {name!r}", spelling_hint(name, by_name))
    return by_name[name]
