"""The last state on disk, which a process serves that starts while PostgreSQL is away."""

import asyncio
import io
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.snapshot import Snapshot

log = structlog.get_logger()

_FORMAT = 1
"""The format of the file; another one is not read."""
_SERVICES_PER_TURN = 20
"""Services that are encoded in one turn of the event loop."""
_PRIVATE = 0o600
"""Mode of the file: metadata of endpoints may be confidential."""


class _Header(Struct, frozen=True):
    """The first document: the format, and the database of the services that follow."""

    format: int
    database_id: str


class _Service(Struct, frozen=True):
    """The snapshot of one service."""

    service: str
    version: int
    change: int
    endpoints: list[Endpoint]


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
            await self._write(cache.database_id, list(cache.services().values()))
        except OSError as error:
            if not self._failing:
                log.warning("snapshot_not_kept", path=str(self._path), reason=str(error))
            self._failing = True
            return
        self._written, self._failing = state, False
        self.written_at = time.monotonic()

    def restore(self, cache: SnapshotCache) -> bool:
        """Fill the cache from the file, and mark it as stale; return False if there is none of its database."""
        try:
            age = max(0.0, time.time() - self._path.stat().st_mtime)
            # Earlier versions made the file readable by everybody. The file of another owner is served all the same.
            with suppress(PermissionError):
                self._path.chmod(_PRIVATE)
            cache.restore(*_read(self._path.read_bytes()))
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError, ValueError) as error:
            log.warning("snapshot_unreadable", path=str(self._path), reason=str(error))
            return False
        self.written_at = time.monotonic() - age
        log.warning("snapshot_served_from_disk", services=cache.service_count())
        return True

    async def _write(self, database_id: str, snapshots: Sequence[Snapshot]) -> None:
        # Each process has a name of its own: several may share the directory.
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            await self._write_to(aside, database_id, snapshots)
            await asyncio.to_thread(aside.replace, self._path)
        except OSError:
            # On a full disk an unfinished file would take room that others need.
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise

    async def _write_to(self, path: Path, database_id: str, snapshots: Sequence[Snapshot]) -> None:
        out = await asyncio.to_thread(_begin, path)
        try:
            _write_all(out, _encode(_Header(_FORMAT, database_id)))
            for begin in range(0, len(snapshots), _SERVICES_PER_TURN):
                # Polls are answered between two turns, and only one turn is in memory.
                turn = b"".join(map(_encode_service, snapshots[begin : begin + _SERVICES_PER_TURN]))
                await asyncio.to_thread(_write_all, out, turn)
            await asyncio.to_thread(os.fsync, out.fileno())
        finally:
            await asyncio.to_thread(out.close)


def _begin(path: Path) -> io.FileIO:
    # An existing directory is left as it is: it may be shared on purpose.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
    # A file that a process left behind keeps its mode at open(). Not every file system has modes.
    with suppress(OSError):
        os.fchmod(out, _PRIVATE)
    return io.FileIO(out, "wb")


def _write_all(out: io.FileIO, content: bytes) -> None:
    """Write all of the content: when the disk fills up, the kernel writes what fits and reports no error."""
    written = 0
    while written < len(content):
        written += out.write(memoryview(content)[written:]) or 0


_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(_Header)
_service = msgspec.msgpack.Decoder(_Service)


def _encode(document: Struct) -> bytes:
    body = _encoder.encode(document)
    return len(body).to_bytes(4, "big") + body


def _encode_service(snapshot: Snapshot) -> bytes:
    # The encoded responses are left out: they are made again in no time.
    return _encode(_Service(snapshot.service, snapshot.version, snapshot.change, snapshot.ordered()))


def _read(content: bytes) -> tuple[str, Mapping[str, Snapshot]]:
    blocks = list(_blocks(content))
    header = _header.decode(blocks[0]) if blocks else _Header(0, "")
    if header.format != _FORMAT:
        raise ValueError(f"format {header.format} is not one that this version reads")
    snapshots = {}
    for block in blocks[1:]:
        kept = _service.decode(block)
        endpoints = {(endpoint.address, endpoint.port): endpoint for endpoint in kept.endpoints}
        snapshots[kept.service] = Snapshot(kept.service, kept.version, kept.change, endpoints)
    return header.database_id, snapshots


def _blocks(content: bytes) -> list[bytes]:
    blocks = []
    start = 0
    while start < len(content):
        size = int.from_bytes(content[start : start + 4], "big")
        block = content[start + 4 : start + 4 + size]
        if len(block) != size:
            raise ValueError("it ends in the middle of a service")
        blocks.append(block)
        start += 4 + size
    return blocks
