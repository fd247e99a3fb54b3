"""The encoded pages of the endpoints of services.

Leases are read every few seconds, and with them nearly every endpoint has another lease. So an endpoint is encoded in
two parts, around its lease and before its silence, which are kept for as long as the endpoint is the same.
"""

from collections.abc import Sequence
from math import inf

import msgspec
from msgspec import Struct

from registry.auth.principal import Principal
from registry.core.endpoint import Endpoint
from registry.core.lease import Lease
from registry.core.silence import pause_of, settled_at
from registry.http.lists.document import Document
from registry.http.lists.kept import Dated, Kept
from registry.http.lists.requests import EndpointsRequest
from registry.http.parameters import read_endpoint_cursor, write_cursor
from registry.http.views.endpoints import endpoint_view, silence_view
from registry.usecases.catalog import Catalog, ListedEndpoint

_MAX_PAGES = 12_582_912
"""Bytes of pages that are kept: the pages of about 4,000 endpoints."""
_ENDPOINT_SIZE = 1_000
"""Bytes that an endpoint takes which a kept page still has, and its service has not any more."""
_ENTRY_SIZE = 500
"""Bytes that a kept page takes beside its endpoints."""
_NO_LEASE = b'"lease_renewed_at":null,"lease_expires_at":null'
_NO_SILENCE = b'"silence":null}'


class _LeaseFields(Struct, frozen=True):
    """The fields of an endpoint's document that come from its lease."""

    lease_renewed_at: float
    lease_expires_at: float


class _EncodedEndpoint(Struct, frozen=True):
    """An endpoint, and its document but for lease and silence.

    Attributes:
        endpoint: the endpoint.
        head: what stands before the lease.
        middle: what stands between lease and silence.
    """

    endpoint: Endpoint
    head: bytes
    middle: bytes

    @property
    def size(self) -> int:
        """The bytes of memory that it takes."""
        return len(self.head) + len(self.middle) + _ENDPOINT_SIZE


class _Page(Dated):
    __slots__ = ("document", "endpoints", "following")
    document: Document
    endpoints: Sequence[_EncodedEndpoint]
    following: bytes
    """The cursor of the next page, as JSON."""


class EndpointDocuments:
    """Encodes pages of endpoints.

    Args:
        catalog: reads the endpoints.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._pages: Kept[_Page] = Kept(_MAX_PAGES)
        """By request: what a principal may read has no part in it. Written by page()."""

    def page(self, principal: Principal, request: EndpointsRequest) -> Document:
        """Return a page of the endpoints of a service, with their leases as of the last reading.

        Raises:
            RegistryError: the principal may not read the service, it is not known, or no page gave the cursor.
        """
        snapshot = self._catalog.service(principal, request.service)
        moment = self._catalog.moment()
        pause = pause_of(request.service, moment.pauses)
        stamp = (moment.database_id, snapshot.change, moment.lease_reading, pause)
        kept = self._pages.get(request)
        if kept is not None and kept.is_current(stamp, moment.now):
            return kept.document
        page = _Page(stamp)
        if kept is not None and kept.stamp[:2] == stamp[:2]:
            page.endpoints, page.following = kept.endpoints, kept.following
        else:
            after = read_endpoint_cursor(request.cursor)
            endpoints, more = self._catalog.page_of_endpoints(
                snapshot, request.wanted, after=after, limit=request.limit
            )
            page.endpoints = _encoded(endpoints, () if kept is None else kept.endpoints)
            page.following = msgspec.json.encode(write_cursor(str(endpoints[-1].id)) if more else None)
        listed = self._catalog.with_leases([encoded.endpoint for encoded in page.endpoints])
        body = b'{"service":%b,"version":%d,"endpoints":[%b],"next":%b}' % (
            msgspec.json.encode(request.service),
            snapshot.version,
            b",".join(map(_with_lease, page.endpoints, listed)),
            page.following,
        )
        page.document = kept.document if kept is not None and kept.document.body == body else Document(body)
        settled = max((settled_at(each.endpoint, each.lease) for each in listed), default=-inf)
        # A part that depends on the time is of this moment alone.
        page.begin = settled if settled <= moment.now else inf
        size = sum(encoded.size for encoded in page.endpoints)
        self._pages.put(request, page, page.document.size + size + _ENTRY_SIZE)
        return page.document


def _encoded(endpoints: Sequence[Endpoint], former: Sequence[_EncodedEndpoint]) -> Sequence[_EncodedEndpoint]:
    """Return endpoints encoded, of which some may have been encoded before."""
    before = {encoded.endpoint.id: encoded for encoded in former}
    return [_encode(endpoint, before.get(endpoint.id)) for endpoint in endpoints]


def _encode(endpoint: Endpoint, former: _EncodedEndpoint | None) -> _EncodedEndpoint:
    if former is not None and former.endpoint is endpoint:
        return former
    body = msgspec.json.encode(endpoint_view(endpoint, None, None))
    # The last one: metadata stand before it, and may have keys of the same names.
    head, _, middle = body.rpartition(_NO_LEASE)
    return _EncodedEndpoint(endpoint, head, middle.removesuffix(_NO_SILENCE))


def _with_lease(encoded: _EncodedEndpoint, listed: ListedEndpoint) -> bytes:
    silence = b"null" if listed.silence is None else msgspec.json.encode(silence_view(listed.silence))
    return b'%b%b%b"silence":%b}' % (encoded.head, _lease(listed.lease), encoded.middle, silence)


def _lease(lease: Lease | None) -> bytes:
    if lease is None:
        return _NO_LEASE
    return msgspec.json.encode(_LeaseFields(lease.renewed_at, lease.expires_at))[1:-1]
