"""The registered services, as the registry compiles gateways with them."""

from meshconfig.catalog import CatalogBuilder
from meshconfig.resource import Catalog
from registryctl.client import ApiClient, read
from registryctl.paths import path_of


def registered_catalog(client: ApiClient) -> Catalog:
    """Return the metadata of all registered services; it takes a request for each of them."""
    catalog = CatalogBuilder()
    for service in map(read, client.pages("/v1/services", "services")):
        name = service["name"]
        catalog.add(name, {})
        for endpoint in map(read, client.pages(path_of(name, rest="/endpoints"), "endpoints")):
            catalog.add(name, endpoint["metadata"])
    return catalog.build()
