"""The encoded documents of service discovery for Prometheus (http_sd)."""

import asyncio
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from registry.auth.principal import Principal
from registry.core.endpoint import Endpoint
from registry.core.snapshot import Snapshot
from registry.http.lists.document import Document
from registry.http.lists.kept import Dated, Kept, Stamp
from registry.http.lists.requests import TargetsRequest
from registry.http.views.targets import TargetGroup
from registry.usecases.catalog import Catalog, Moment, scrape_targets

_MAX_SERVICES = 8_388_608
"""Bytes of services that are kept, as parts of documents: those of about 20,000 endpoints."""
_MAX_DOCUMENTS = 8_388_608
"""Bytes of whole documents that are kept."""
_MAX_AT_ONCE = 1_000
"""Endpoints that are encoded in one go, for which other requests wait about 5 ms."""
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
        """By service and port. Written by _encoded()."""
        self._documents: Kept[_DatedDocument] = Kept(_MAX_DOCUMENTS)
        """By what is asked for, and by what the principal may read. Written by _document()."""

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
        return self._document((request, reach), groups, _stamp(moment))

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
        groups = []
        encoded = 0
        for snapshot in self._catalog.named(reach, request.services):
            encoded += len(snapshot.endpoints)
            groups.append(self._encoded(snapshot, request.port, moment))
            if encoded > _MAX_AT_ONCE:
                encoded = 0
                await asyncio.sleep(0)
        return self._document((request, reach), groups, _stamp(moment))

    def _document(self, key: Hashable, groups: Sequence[_EncodedTargets], stamp: Stamp) -> Document:
        body = b"[%b]" % b",".join(group.body for group in groups if group.body)
        kept = self._documents.get(key)
        dated = _DatedDocument(stamp)
        dated.document = kept.document if kept is not None and kept.document.body == body else Document(body)
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
        self._services.put((snapshot.service, port), encoded, len(encoded.body) + _ENTRY_SIZE)
        return encoded


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
