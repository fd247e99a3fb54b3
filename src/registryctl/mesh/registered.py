"""The registered services, as the registry compiles gateways with them, and the removal of one of them."""

import msgspec
from msgspec import Raw, Struct

from meshconfig.catalog import Metadata, catalog_of
from meshconfig.resource import Catalog
from registryctl.client import ApiClient
from registryctl.errors import UnreachableError
from registryctl.mesh.api import MeshApi
from registryctl.mesh.words import plural
from registryctl.session import Session

_MAX_NAMED = 5
"""Services that an error names."""


class _Registered(Struct):
    service: str
    metadata: Metadata


class _Listed(Struct):
    services: list[_Registered]
    unavailable: list[str] = []


def registered_catalog(client: ApiClient) -> Catalog:
    """Return the metadata of all registered services; of those without endpoints, the last that is known.

    Raises:
        UnreachableError: the registry cannot read some of them; gateways that are compiled without them lose them.
    """
    listed = msgspec.json.decode(MeshApi(client).catalog(), type=_Listed)
    if listed.unavailable:
        names = ", ".join(listed.unavailable[:_MAX_NAMED]) + ", …" * (len(listed.unavailable) > _MAX_NAMED)
        services = plural(len(listed.unavailable), "service")
        raise UnreachableError(
            f"{client.shown} cannot read {services}, which gateways may select: {names}",
            "`registryctl check` says why; nothing was compiled without them",
        )
    return catalog_of({each.service: each.metadata for each in listed.services})


def forget_service(session: Session, service: str, reason: str) -> None:
    """Remove a service without endpoints from the gateways that select it, and print that."""
    MeshApi(session.client).forget(service, reason)
    if session.json:
        session.screen.document(Raw(b"{}"))
    else:
        session.screen.say(f"{service}: gateways that select it by metadata serve it no longer")
