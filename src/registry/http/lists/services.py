"""The encoded documents of services: pages of all of them, and each with its lost endpoints."""

from math import inf

import msgspec

from registry.auth.principal import Principal
from registry.core.presence import unchanged_between
from registry.core.snapshot import Snapshot
from registry.http.lists.document import Document, document_of
from registry.http.lists.kept import Dated, Kept, Stamp
from registry.http.lists.requests import ServicesRequest
from registry.http.parameters import read_cursor, write_cursor
from registry.http.views.services import service_detail_view, service_view
from registry.usecases.catalog import Catalog, Moment

_MAX_SERVICES = 4_194_304
"""Bytes of services that are kept, as parts of pages: about 5,000."""
_MAX_DOCUMENTS = 4_194_304
"""Bytes of pages, and of single services, that are kept."""
_ENTRY_SIZE = 400
"""Bytes that a kept value takes beside what is encoded."""


class _EncodedService(Dated):
    __slots__ = ("body",)
    body: bytes


class _DatedDocument(Dated):
    __slots__ = ("document",)
    document: Document


class ServiceDocuments:
    """Encodes services.

    A service is the same until it changes, ECS wants another number of tasks, or one of its lost endpoints grows too
    old to be listed. A page is made of its services again when any service has changed.

    Args:
        catalog: reads the services.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._services: Kept[_EncodedService] = Kept(_MAX_SERVICES)
        """By name. Written by _encoded()."""
        self._documents: Kept[_DatedDocument] = Kept(_MAX_DOCUMENTS)
        """By what is asked for and, in lists, by what the principal may read. Written by page() and service()."""

    def page(self, principal: Principal, request: ServicesRequest) -> Document:
        """Return a page of the services that a principal may read.

        Raises:
            RegistryError: the principal may not read services, or no page gave the cursor.
        """
        reach = self._catalog.reach(principal)
        moment = self._catalog.moment()
        key = (request, reach)
        stamp = (moment.database_id, moment.advances, moment.desired_changes)
        kept = self._documents.get(key)
        if kept is not None and kept.is_current(stamp, moment.now):
            return kept.document
        after = read_cursor(request.cursor) if request.cursor else ""
        page = self._catalog.page_of_services(reach, request.prefix, after, request.limit)
        services = [self._encoded(snapshot, moment) for snapshot in page.services]
        following = None if page.following is None else write_cursor(page.following)
        body = b'{"services":[%b],"next":%b,"unavailable":%b}' % (
            b",".join(service.body for service in services),
            msgspec.json.encode(following),
            msgspec.json.encode(page.unavailable),
        )
        document = kept.document if kept is not None and kept.document.body == body else Document(body)
        begin = max((service.begin for service in services), default=-inf)
        end = min((service.end for service in services), default=inf)
        self._keep(key, document, stamp, (begin, end))
        return document

    def service(self, principal: Principal, service: str) -> Document:
        """Return a service with its lost endpoints.

        Raises:
            RegistryError: the principal may not read it, or it is not known.
        """
        snapshot = self._catalog.service(principal, service)
        moment = self._catalog.moment()
        stamp = moment.stamp_of(snapshot)
        kept = self._documents.get(service)
        if kept is not None and kept.is_current(stamp, moment.now):
            return kept.document
        presence = snapshot.presence(moment.now, moment.desired_counts)
        document = document_of(service_detail_view(snapshot, presence))
        self._keep(service, document, stamp, unchanged_between(snapshot.lost.values(), moment.now))
        return document

    def _keep(self, key: object, document: Document, stamp: Stamp, between: tuple[float, float]) -> None:
        dated = _DatedDocument(stamp, *between)
        dated.document = document
        self._documents.put(key, dated, document.size + _ENTRY_SIZE)

    def _encoded(self, snapshot: Snapshot, moment: Moment) -> _EncodedService:
        stamp = moment.stamp_of(snapshot)
        kept = self._services.get(snapshot.service)
        if kept is not None and kept.is_current(stamp, moment.now):
            return kept
        encoded = _EncodedService(stamp, *unchanged_between(snapshot.lost.values(), moment.now))
        view = service_view(snapshot, snapshot.presence(moment.now, moment.desired_counts))
        encoded.body = msgspec.json.encode(view)
        self._services.put(snapshot.service, encoded, len(encoded.body) + _ENTRY_SIZE)
        return encoded
