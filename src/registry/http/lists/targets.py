"""The encoded documents of service discovery for Prometheus (http_sd)."""

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

import msgspec

from registry.auth.principal import Principal
from registry.cooperative import cooperatively
from registry.core.endpoint import Endpoint
from registry.core.snapshot import Snapshot
from registry.http.lists.document import Document, joined_document
from registry.http.lists.kept import Dated, Kept, Stamp
from registry.http.lists.requests import TargetsRequest
from registry.http.views.targets import TargetGroup
from registry.usecases.catalog import Catalog, Moment, scrape_targets

_MAX_SERVICES = 8_388_608
"""Bytes of services that are kept, as parts of documents: those of about 20,000 endpoints."""
_MAX_DOCUMENTS = 8_388_608
"""Bytes of whole documents that are kept."""
_MAX_AT_ONCE = 200
"""Endpoints that are encoded in one piece, for which other requests wait about a millisecond."""
_KEPT_AS_ONE = 10
"""Services that are encoded already and take as long as one endpoint that is not."""
_ENTRY_SIZE = 400
"""Bytes that a kept value takes beside what is encoded."""
_UNNAMEABLE = re.compile(r"[^a-zA-Z0-9_]")


class _EncodedTargets(Dated):
    __slots__ = ("body",)
    body: bytes
    """The groups of a service with commas between them; empty: it has none."""


class _DatedDocument(Dated):
    __slots__ = ("document",)
    document: Document


class TargetDocuments:
    """Encodes the targets of services.

    Args:
        catalog: reads the services.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._services: Kept[_EncodedTargets] = Kept(_MAX_SERVICES)
        """By service and port. Written by _keep_service()."""
        self._documents: Kept[_DatedDocument] = Kept(_MAX_DOCUMENTS)
        """By what is asked for, and by what the principal may read. Written by _keep()."""

    def now(self, principal: Principal, request: TargetsRequest) -> Document | None:
        """Return what ``made`` returns; None when it takes too long to make it without a pause.

        Raises:
            RegistryError: as ``made``.
        """
        reach = self._catalog.reach(principal, request.reads)
        moment = self._catalog.moment()
        kept = self._documents.get((request, reach))
        if kept is not None and kept.is_current(_stamp(moment), moment.now):
            return kept.document
        snapshots = self._catalog.named(reach, request.services)
        new = sum(len(each.endpoints) for each in snapshots if not self._is_encoded(each, request.port, moment))
        if new + len(snapshots) // _KEPT_AS_ONE > _MAX_AT_ONCE:
            return None
        groups = [self._encoded(snapshot, request.port, moment) for snapshot in snapshots]
        return self._keep((request, reach), Document(b"".join(_parts(groups))), _stamp(moment))

    async def made(self, principal: Principal, request: TargetsRequest) -> Document:
        """Return the endpoints of services that a principal may read, unhealthy ones too, as groups of targets.

        Raises:
            RegistryError: the principal may not read one of those that it names, or none at all.
        """
        document = self.now(principal, request)
        if document is not None:
            return document
        reach = self._catalog.reach(principal, request.reads)
        moment = self._catalog.moment()
        groups = [
            await self._encode_in_turns(snapshot, request.port, moment)
            async for snapshot in cooperatively(self._catalog.named(reach, request.services))
        ]
        return self._keep((request, reach), await joined_document(_parts(groups)), _stamp(moment))

    def _keep(self, key: Hashable, document: Document, stamp: Stamp) -> Document:
        """Keep a document; if it is the same as before, return that one, which may be compressed already."""
        kept = self._documents.get(key)
        dated = _DatedDocument(stamp)
        dated.document = kept.document if kept is not None and kept.document.etag == document.etag else document
        self._documents.put(key, dated, dated.document.size + _ENTRY_SIZE)
        return dated.document

    def _is_encoded(self, snapshot: Snapshot, port: str | None, moment: Moment) -> bool:
        kept = self._services.get((snapshot.service, port))
        return kept is not None and kept.is_current((moment.database_id, snapshot.change), moment.now)

    def _encoded(self, snapshot: Snapshot, port: str | None, moment: Moment) -> _EncodedTargets:
        stamp = (moment.database_id, snapshot.change)
        kept = self._services.get((snapshot.service, port))
        if kept is not None and kept.is_current(stamp, moment.now):
            return kept
        encoded = _EncodedTargets(stamp)
        groups = [_group(endpoint, target) for endpoint, target in scrape_targets(snapshot, port)]
        encoded.body = msgspec.json.encode(groups)[1:-1]
        self._keep_service(snapshot.service, port, encoded)
        return encoded

    async def _encode_in_turns(self, snapshot: Snapshot, port: str | None, moment: Moment) -> _EncodedTargets:
        if len(snapshot.endpoints) <= _MAX_AT_ONCE or self._is_encoded(snapshot, port, moment):
            return self._encoded(snapshot, port, moment)
        encoded = _EncodedTargets((moment.database_id, snapshot.change))
        joined = BytesIO()
        async for endpoint, target in cooperatively(scrape_targets(snapshot, port)):
            joined.write(b"," if joined.tell() else b"")
            joined.write(msgspec.json.encode(_group(endpoint, target)))
        encoded.body = joined.getvalue()
        self._keep_service(snapshot.service, port, encoded)
        return encoded

    def _keep_service(self, service: str, port: str | None, encoded: _EncodedTargets) -> None:
        self._services.put((service, port), encoded, len(encoded.body) + _ENTRY_SIZE)


def _parts(groups: Iterable[_EncodedTargets]) -> Iterator[bytes]:
    """Yield the parts of the document of some services."""
    opening = b"["
    for group in groups:
        if group.body:
            yield opening
            yield group.body
            opening = b","
    yield b"[]" if opening == b"[" else b"]"


def _stamp(moment: Moment) -> Stamp:
    return (moment.database_id, moment.advances)


def _group(endpoint: Endpoint, target: str) -> TargetGroup:
    registration = endpoint.registration
    labels = {f"metadata_{_UNNAMEABLE.sub('_', name)}": text for name, text in _texts(registration.metadata)}
    labels |= {
        "service": endpoint.service,
        "endpoint": endpoint.name,
        "status": endpoint.status.value,
        "region": registration.region,
        "zone": registration.zone,
        "revision": registration.revision,
        "instance_id": registration.instance_id,
        "canary": str(endpoint.canary).lower(),
    }
    return TargetGroup([target], {f"__meta_headcount_{name}": value for name, value in labels.items()})


def _texts(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what can be a label's value."""
    for name, value in metadata.items():
        if isinstance(value, str):
            yield name, value
        elif isinstance(value, bool | int | float):
            yield name, msgspec.json.encode(value).decode()
