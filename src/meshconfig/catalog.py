"""The catalog that gateways select from, made of the metadata of registered endpoints."""

from collections.abc import Iterable, Mapping

from meshconfig.resource import Catalog

GRPC_SERVICES = "grpc_services"
"""The key of metadata that has the gRPC services which an endpoint announces: a list, or a text with commas."""

Metadata = Mapping[str, tuple[str, ...]]
"""The metadata of a service: the values of each key that its endpoints have, in order."""


def joined(documents: Iterable[Mapping[str, object]]) -> Metadata:
    """Return the metadata of a service, of the metadata of its endpoints in any order."""
    values: dict[str, set[str]] = {}
    for document in documents:
        for key, value in document.items():
            values.setdefault(key, set()).update(_texts(value))
    return {key: tuple(sorted(values[key])) for key in sorted(values)}


def announced(metadata: Metadata) -> tuple[str, ...]:
    """Return the full names of the gRPC services that the endpoints of a service announce, in order."""
    names = (name for text in metadata.get(GRPC_SERVICES, ()) for name in text.replace(",", " ").split())
    return tuple(sorted(set(names)))


def catalog_of(services: Mapping[str, Metadata]) -> Catalog:
    """Return the catalog of services by their metadata."""
    return Catalog(services, {service: announced(metadata) for service, metadata in services.items()})


def _texts(value: object) -> Iterable[str]:
    """Return a value of metadata as texts; those of lists are values of their own."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, list | tuple):
        return tuple(text for item in value for text in _texts(item))
    return (str(value),) if isinstance(value, int | float) else ()
