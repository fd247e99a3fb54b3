"""The lists of the catalogue, for every front."""

from registry.auth.principal import Principal
from registry.errors import RegistryError
from registry.http.lists.document import Document
from registry.http.lists.endpoints import EndpointDocuments
from registry.http.lists.requests import EndpointsRequest, ListRequest, ServiceRequest, ServicesRequest, TargetsRequest
from registry.http.lists.services import ServiceDocuments
from registry.http.lists.targets import TargetDocuments
from registry.usecases.catalog import Catalog


class Lists:
    """Answers requests for services, endpoints and targets.

    Args:
        catalog: reads them, and asks the policy.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._services = ServiceDocuments(catalog)
        self._endpoints = EndpointDocuments(catalog)
        self._targets = TargetDocuments(catalog)

    async def answer(self, principal: Principal, request: ListRequest) -> Document:
        """Return what a request asks for.

        Raises:
            RegistryError: the principal may not read it, or it is not known.
        """
        if isinstance(request, TargetsRequest):
            return await self._targets.made(principal, request)
        return self._made(principal, request)

    def known(self, principal: Principal, request: ListRequest) -> Document | None:
        """Return what a request asks for; None when a route has to say what is wrong, or takes its time."""
        if not self._catalog.ready or self._catalog.is_refused(principal, request.reads):
            return None
        try:
            if isinstance(request, TargetsRequest):
                return self._targets.now(principal, request)
            return self._made(principal, request)
        except RegistryError:
            return None

    def _made(self, principal: Principal, request: ServicesRequest | ServiceRequest | EndpointsRequest) -> Document:
        if isinstance(request, EndpointsRequest):
            return self._endpoints.page(principal, request)
        if isinstance(request, ServicesRequest):
            return self._services.page(principal, request)
        return self._services.service(principal, request.service)
