"""Bootstrap of a service's Envoys, by the definitions of a directory or by the registry's current revision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from meshconfig.ads import over_ads
from meshconfig.bootstrap import bootstrap
from registryctl.client import read
from registryctl.errors import MissingError, UsageError
from registryctl.mesh.definitions import load_directory
from registryctl.session import Session
from wire.spelling import spelling_hint


def bootstrap_of(session: Session, service: str, directory: Path | None, mount: str, streams: Sequence[str]) -> Any:  # noqa: ANN401  # JSON
    """Return the bootstrap of a service, a gateway or an edge.

    Args:
        session: the session of the verb.
        service: its name.
        directory: the definitions; None: those of the registry's current revision.
        mount: the directory on Envoy's machine whose files it reads; empty: it asks the registry.
        streams: host:port of the registries' gRPC listeners, for an Envoy that uses ADS; empty: it polls.

    Raises:
        MissingError: nothing has this name.
        UsageError: an argument is invalid beside the others.
    """
    if mount and streams:
        raise UsageError(
            "--mount and --ads exclude each other", "an Envoy reads its configuration from files, or over ADS"
        )
    document = _bootstrap_of(session, service, directory, mount)
    try:
        return over_ads(document, streams) if streams else document
    except ValueError as error:
        raise UsageError(
            f"--ads: {error}", "name a gRPC listener as host:port, such as registry.internal:18000"
        ) from None


def _bootstrap_of(session: Session, service: str, directory: Path | None, mount: str) -> Any:  # noqa: ANN401  # JSON
    if directory is None:
        if mount:
            raise UsageError("--mount needs --dir", "the registry's bootstraps are for Envoys that ask the registry")
        return read(session.client.get(f"/v1/mesh/services/{quote(service, safe='')}/bootstrap"))
    configuration = load_directory(directory).configuration
    try:
        return bootstrap(configuration, service, directory=mount)
    except KeyError:
        names = (*configuration.callers, *configuration.gateways, *configuration.edges)
        raise MissingError(
            f"{directory} has no service, gateway or edge {service!r}", spelling_hint(service, names)
        ) from None
