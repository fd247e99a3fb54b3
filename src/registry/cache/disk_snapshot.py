"""The last state on disk, which a process serves that starts while PostgreSQL is away."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import UNSET, Struct, UnsetType

from registry.cache.disk_file import PRIVATE, documents_in, encode, write_file
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.endpoint_table import EndpointTable
from registry.core.shares import Shares
from registry.core.snapshot import Snapshot

log = structlog.get_logger()

_FORMAT = 1
"""The format of the file; another one is not read."""
_SERVICES_PER_TURN = 20
"""Services that are encoded in one turn of the event loop."""


class _Header(Struct, frozen=True):
    """The first document: the format, and the database of the services that follow."""

    format: int
    database_id: str


class _Name(Struct, frozen=True):
    """The name of a service, which is all that a file has of one that nobody could read."""

    service: str


class _Service(_Name, frozen=True):
    """The snapshot of one service."""

    version: int
    change: int
    endpoints: list[Endpoint]
    lost: list[Endpoint] = []
    expected: int | None = None
    expected_by: str = ""
    shares: Shares | UnsetType | None = UNSET


class DiskSnapshot:
    """A file of length-prefixed msgpack documents: a header, then a service each.

    Args:
        path: the file; written aside and renamed, so that it is always whole.

    Attributes:
        written_at: when the file was written (monotonic); None where that is not known. Written by keep() and
            restore(). For a file of an earlier process it follows from the time of modification, which is wrong if the
            wall clock was set since.
    """

    def __init__(self, path: Path) -> None:
        self.written_at: float | None = None
        self._path = path
        self._written: tuple[str, int] | None = None
        """The database and the number of changes of the cache that is in the file. Written by keep()."""
        self._failing = False
        """Whether the last attempt to write failed, which is logged once. Written by keep()."""

    def holds(self, cache: SnapshotCache) -> bool:
        """Return whether the file has everything that the cache has."""
        return self._written == (cache.database_id, cache.advances)

    async def keep(self, cache: SnapshotCache) -> None:
        """Write the snapshots of the cache, if any has changed since the last time."""
        state = (cache.database_id, cache.advances)
        if not cache.ready or cache.stale or state == self._written:
            return
        try:
            pieces = _pieces(cache.database_id, list(cache.services().values()), sorted(cache.unsure))
            await write_file(self._path, pieces)
        except OSError as error:
            if not self._failing:
                log.warning("snapshot_not_kept", path=str(self._path), reason=str(error))
            self._failing = True
            return
        self._written, self._failing = state, False
        self.written_at = time.monotonic()

    def restore(self, cache: SnapshotCache) -> bool:
        """Fill the cache from the file, and mark it as stale; return False if there is none of its database.

        A service that cannot be read is unsure, and hinders no other one.
        """
        unreadable: dict[str, str] = {}
        try:
            age = max(0.0, time.time() - self._path.stat().st_mtime)
            # Earlier versions made the file readable by everybody. The file of another owner is served all the same.
            with suppress(PermissionError):
                self._path.chmod(PRIVATE)
            database_id, snapshots = _read(self._path.read_bytes(), unreadable)
            cache.restore(database_id, snapshots, unreadable)
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError, ValueError) as error:
            log.warning("snapshot_unreadable", path=str(self._path), reason=str(error))
            return False
        self.written_at = time.monotonic() - age
        for service, reason in unreadable.items():
            log.error("snapshot_service_unreadable", service=service, reason=reason)
        log.warning("snapshot_served_from_disk", services=cache.service_count(), unreadable=len(unreadable))
        return True


_header = msgspec.msgpack.Decoder(_Header)
_service = msgspec.msgpack.Decoder(_Service)
_name = msgspec.msgpack.Decoder(_Name)


def _pieces(database_id: str, snapshots: Sequence[Snapshot], unsure: Sequence[str]) -> Iterator[bytes]:
    yield encode(_Header(_FORMAT, database_id))
    # Their names alone: a process that begins with this file does not take them for services that never were.
    yield b"".join(encode(_Name(service)) for service in unsure)
    for begin in range(0, len(snapshots), _SERVICES_PER_TURN):
        yield b"".join(map(_encode_service, snapshots[begin : begin + _SERVICES_PER_TURN]))


def _encode_service(snapshot: Snapshot) -> bytes:
    # The encoded responses are left out: they are made again in no time.
    numbers = (snapshot.service, snapshot.version, snapshot.change)
    lost = list(snapshot.lost.values())
    return encode(
        _Service(*numbers, snapshot.ordered(), lost, snapshot.expected, snapshot.expected_by, snapshot.shares)
    )


def _read(content: bytes, unreadable: dict[str, str]) -> tuple[str, Mapping[str, Snapshot]]:
    """Return the database and the services of a file.

    Args:
        content: the file.
        unreadable: gets the services that cannot be read, and why.

    Raises:
        ValueError: nothing in it can be read, or the name of a service cannot: nobody could tell what is missing.
        msgspec.DecodeError: as ValueError.
    """
    documents = documents_in(content)
    header = _header.decode(documents[0]) if documents else _Header(0, "")
    if header.format != _FORMAT:
        raise ValueError(f"format {header.format} is not one that this version reads")
    snapshots = {}
    for document in documents[1:]:
        try:
            snapshot = _snapshot(_service.decode(document))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            unreadable[_name.decode(document).service] = str(error)
        else:
            snapshots[snapshot.service] = snapshot
    if unreadable and not snapshots:
        raise ValueError(f"no service in it can be read; the first one: {next(iter(unreadable.values()))}")
    return header.database_id, snapshots


def _snapshot(kept: _Service) -> Snapshot:
    # Written by a version that knows no shares: the weights may be others than those that this version number was
    # served with, so it counts as the one before, and the service is read again.
    behind = int(kept.shares is UNSET and kept.version > 1)
    endpoints = EndpointTable(kept.endpoints)
    snapshot = Snapshot(kept.service, kept.version - behind, kept.change - behind, endpoints)
    snapshot.lost = {endpoint.id: endpoint for endpoint in kept.lost}
    snapshot.expected, snapshot.expected_by = kept.expected, kept.expected_by
    snapshot.shares = None if kept.shares is UNSET else kept.shares
    return snapshot
