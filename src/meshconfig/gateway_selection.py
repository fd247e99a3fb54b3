"""The selection of a gateway: what it takes from the catalog, and what of a service it depends on."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from meshconfig.catalog import Metadata

PROTOCOL_KEY = "protocol"
"""The key of metadata that says which protocol an endpoint speaks."""


class GatewaySelection(Struct, frozen=True):
    """The part of a gateway's definition that decides what it takes from the catalog.

    Attributes:
        metadata: metadata that at least one endpoint of a service has.
        services: services that it serves whatever their metadata is.
        paths: whether it finds gRPC services by path.
    """

    metadata: Mapping[str, str]
    services: frozenset[str] = frozenset()
    paths: bool = False

    def matches(self, service: str, metadata: Metadata) -> bool:
        """Tell whether the gateway selects a service that has this metadata."""
        wanted = self.metadata
        by_metadata = wanted and all(value in metadata.get(key, ()) for key, value in wanted.items())
        return service in self.services or bool(by_metadata)


def used_of(
    service: str, metadata: Metadata, grpc_services: Sequence[str], selections: Sequence[GatewaySelection]
) -> tuple[Metadata, tuple[str, ...]] | None:
    """Return the part of a service's metadata, and of its gRPC services, that gateways use; None: none selects it.

    Gateways compile to the same with this part alone, so that a change of the rest is none of theirs.
    """
    selecting = [selection for selection in selections if selection.matches(service, metadata)]
    if not selecting:
        return None
    wanted = {
        (key, value)
        for selection in selecting
        for key, value in selection.metadata.items()
        if value in metadata.get(key, ())
    }
    used = {key: tuple(sorted(value for of, value in wanted if of == key)) for key, _ in sorted(wanted)}
    if PROTOCOL_KEY in metadata:
        used[PROTOCOL_KEY] = metadata[PROTOCOL_KEY]
    # Without paths it matters only whether there are any: they tell the protocol where no metadata does.
    by_path = any(selection.paths for selection in selecting)
    return used, tuple(grpc_services if by_path else grpc_services[:1])
