"""The registered services as gateways select them: by the metadata of their endpoints, or the last that they had.

A service that loses its last endpoint stays in the gateways, whose requests get 503 until it has one again; without its
route they would get 404, which says that there is no such service. The leading process stores what is known.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import msgspec
import structlog
from msgspec import Struct

from meshconfig.catalog import Metadata, announced, joined
from meshconfig.resource import Catalog
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.store import mesh_catalog as store
from registry.store.database import Database

log = structlog.get_logger()


_encode = msgspec.json.Encoder(order="sorted").encode
_NOTHING = sha256(_encode({})).hexdigest()
"""The digest of a service without metadata, which needs no row."""


class RegisteredService(Struct, frozen=True):
    """A service as gateways select it.

    Attributes:
        service: its name.
        endpoints: the number of its endpoints; 0: the metadata is the last that it had.
        metadata: its metadata.
    """

    service: str
    endpoints: int
    metadata: Metadata


class RegisteredServices:
    """Reads what gateways select from, and keeps what is known of services without endpoints.

    Args:
        database: where the last known metadata is.
        cache: the services and their endpoints.
    """

    def __init__(self, database: Database, cache: SnapshotCache) -> None:
        self._database = database
        self._cache = cache
        self._stored: dict[str, str] | None = None
        """The digests of the stored metadata, by service; empty for a service without endpoints, whose row an operator
        may delete. None: they have to be read, since another process may have led. Written by keep()."""
        self._spoilt: frozenset[str] = frozenset()
        """Services whose stored row could not be read at the last time; each is logged once."""

    async def catalog(self) -> Catalog:
        """Return all registered services.

        Raises:
            UnavailableError: what is known of those without endpoints cannot be read.
        """
        return await _catalog(await self.read(self._names()))

    async def read(self, names: Sequence[str]) -> list[RegisteredService]:
        """Return these services, as far as they are known, in this order.

        Raises:
            UnavailableError: what is known of those without endpoints cannot be read.
        """
        present = await self._present(names)
        last = await self._last(sorted(name for name, service in present.items() if not service.endpoints))
        return [
            service if service.endpoints else RegisteredService(name, 0, last.get(name, {}))
            for name, service in present.items()
        ]

    async def keep(self) -> Catalog:
        """Store what has changed of services with endpoints, and return all registered services.

        Raises:
            UnavailableError: it could not be stored or read.
        """
        if self._stored is None:
            async with self._database.session() as connection:
                self._stored = await store.read_digests(connection)
        services = await self.read(self._names())
        changed: dict[str, bytes] = {}
        digests: dict[str, str] = {}
        async for each in cooperatively(services):
            row = _encode(each.metadata)
            digests[each.service] = digest = sha256(row).hexdigest() if each.endpoints else ""
            if digest and digest != self._stored.get(each.service, _NOTHING):
                changed[each.service] = row
        if changed:
            await store.write(self._database, changed)
        self._stored = digests
        return await _catalog(services)

    def forget_stored(self) -> None:
        """Take note that another process may store what is known."""
        self._stored = None

    def _names(self) -> Sequence[str]:
        """Return the names of all services.

        Those that this process cannot read are among them, and have what they had last: without its route a gateway
        would say that there is no such service.
        """
        return (*self._cache.services(), *self._cache.unsure)

    async def _present(self, names: Sequence[str]) -> dict[str, RegisteredService]:
        present: dict[str, RegisteredService] = {}
        async for name in cooperatively(names):
            snapshot = self._cache.get(name)
            if snapshot.version or name in self._cache.unsure:
                metadata = joined(each.registration.metadata for each in snapshot.endpoints.values())
                present[name] = RegisteredService(name, len(snapshot.endpoints), metadata)
        return present

    async def _last(self, names: Sequence[str]) -> Mapping[str, Metadata]:
        if not names:
            return {}
        async with self._database.session() as connection:
            readable, spoilt = await store.read(connection, names)
        for name in spoilt:
            if name not in self._spoilt:
                log.warning("mesh_catalog_row_unreadable", service=name)
        self._spoilt = frozenset(spoilt)
        return readable


async def _catalog(services: Sequence[RegisteredService]) -> Catalog:
    metadata: dict[str, Metadata] = {}
    grpc_services: dict[str, tuple[str, ...]] = {}
    endpoints: dict[str, int] = {}
    async for each in cooperatively(services):
        metadata[each.service] = each.metadata
        endpoints[each.service] = each.endpoints
        grpc_services[each.service] = announced(each.metadata)
    return Catalog(metadata, grpc_services, endpoints)
