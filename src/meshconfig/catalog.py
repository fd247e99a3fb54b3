"""The catalog that gateways select from, made of the metadata of registered endpoints."""

from collections.abc import Iterable, Mapping

from meshconfig.resource import Catalog

GRPC_SERVICES = "grpc_services"
"""The key of metadata that has the gRPC services which an endpoint announces: a list, or a text with commas."""


class CatalogBuilder:
    """A catalog while its endpoints are read, in any order."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, set[str]]] = {}

    def add(self, service: str, metadata: Mapping[str, object]) -> None:
        """Take note of an endpoint of a service."""
        values = self._values.setdefault(service, {})
        for key, value in metadata.items():
            values.setdefault(key, set()).update(_texts(value))

    def build(self) -> Catalog:
        """Return the catalog of the endpoints so far."""
        return Catalog(
            {
                service: {key: tuple(sorted(texts)) for key, texts in values.items()}
                for service, values in self._values.items()
            },
            {
                service: tuple(sorted(_announced(values.get(GRPC_SERVICES, ()))))
                for service, values in self._values.items()
            },
        )


def _announced(texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in text.replace(",", " ").split()}


def _texts(value: object) -> Iterable[str]:
    """Return a value of metadata as texts; those of lists are values of their own."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, list | tuple):
        return tuple(text for item in value for text in _texts(item))
    return (str(value),) if isinstance(value, int | float) else ()
