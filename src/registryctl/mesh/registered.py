"""The registered services, as the registry compiles gateways with them, and the removal of one of them."""

import msgspec
from msgspec import Raw, Struct

from meshconfig.catalog import Metadata, catalog_of
from meshconfig.resource import Catalog
from registryctl.client import ApiClient
from registryctl.mesh.api import MeshApi
from registryctl.session import Session


class _Registered(Struct):
    service: str
    metadata: Metadata


def registered_catalog(client: ApiClient) -> Catalog:
    """Return the metadata of all registered services; of those without endpoints, the last that is known."""
    listed = (msgspec.json.decode(each, type=_Registered) for each in MeshApi(client).catalog())
    return catalog_of({each.service: each.metadata for each in listed})


def forget_service(session: Session, service: str, reason: str) -> None:
    """Remove a service without endpoints from the gateways that select it, and print that."""
    MeshApi(session.client).forget(service, reason)
    if session.json:
        session.screen.document(Raw(b"{}"))
    else:
        session.screen.say(f"{service}: gateways that select it by metadata serve it no longer")
