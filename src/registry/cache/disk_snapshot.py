"""The last known state on disk: what a process serves that starts while PostgreSQL is away."""

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
_SERVICES_A_TURN = 20
_PRIVATE = 0o600
"""Mode of the file: metadata of endpoints may be nobody else's business."""


class _Header(Struct, frozen=True):
    """What the services behind it belong to."""

    format: int
    database_id: str


class _Service(Struct, frozen=True):
    """One snapshot."""

    service: str
    version: int
    change: int
    endpoints: list[Endpoint]


class DiskSnapshot:
    """A file of length-prefixed msgpack documents: a header, then a service each.

    Args:
        path: the file; written aside and renamed, so that it is always whole.

    Attributes:
        written_at: monotonic seconds at which the file was written; None where that is not known. Of a file of an
            earlier process it is what its time of modification says, which the wall clock may have outrun.
    """

    def __init__(self, path: Path) -> None:
        self.written_at: float | None = None
        self._path = path
        self._written: tuple[str, int] | None = None
        self._complained = False

    def holds(self, cache: SnapshotCache) -> bool:
        """Tell whether what is on disk is what ``directory`` knows."""
        return self._written == (cache.database_id, cache.advances)

    async def keep(self, cache: SnapshotCache) -> None:
        """Write what ``directory`` knows, if anything changed since the last time."""
        state = (cache.database_id, cache.advances)
        if not cache.ready or cache.stale or state == self._written:
            return
        try:
            await self._write(cache.database_id, list(cache.services().values()))
        except OSError as error:
            if not self._complained:
                log.warning("snapshot_not_kept", path=str(self._path), reason=str(error))
            self._complained = True
            return
        self._written, self._complained = state, False
        self.written_at = time.monotonic()

    def restore(self, cache: SnapshotCache) -> bool:
        """Fill ``directory`` with what was kept last, marked as stale; return False if there is nothing of use."""
        try:
            age = max(0.0, time.time() - self._path.stat().st_mtime)
            # A version before this one made it readable by everybody. That of another owner is served all the same.
            with suppress(PermissionError):
                self._path.chmod(_PRIVATE)
            database_id, snapshots = _read(self._path.read_bytes())
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError, ValueError) as error:
            log.warning("snapshot_unreadable", path=str(self._path), reason=str(error))
            return False
        cache.restore(database_id, snapshots)
        self.written_at = time.monotonic() - age
        log.warning("snapshot_served_from_disk", services=len(snapshots))
        return True

    async def _write(self, database_id: str, snapshots: Sequence[Snapshot]) -> None:
        # A name of its own for each process: several may share the directory.
        aside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            await self._write_to(aside, database_id, snapshots)
            await asyncio.to_thread(aside.replace, self._path)
        except OSError:
            # On a full disk what was written so far would take room that others need.
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise

    async def _write_to(self, path: Path, database_id: str, snapshots: Sequence[Snapshot]) -> None:
        out = await asyncio.to_thread(_begin, path)
        try:
            _write_all(out, _encode(_Header(_FORMAT, database_id)))
            for begin in range(0, len(snapshots), _SERVICES_A_TURN):
                # Polls go on between two turns, and no more than one is in memory.
                turn = b"".join(map(_told, snapshots[begin : begin + _SERVICES_A_TURN]))
                await asyncio.to_thread(_write_all, out, turn)
            await asyncio.to_thread(os.fsync, out.fileno())
        finally:
            await asyncio.to_thread(out.close)


def _begin(path: Path) -> io.FileIO:
    # A directory that is there already is left as it is: it may be shared, and only its owner knows with whom.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, _PRIVATE)
    # One that a process left behind has the mode that it was made with. Not every file system has modes.
    with suppress(OSError):
        os.fchmod(out, _PRIVATE)
    return io.FileIO(out, "wb")


def _write_all(out: io.FileIO, content: bytes) -> None:
    """Write all of it: when the disk fills up in the middle, the kernel writes what fits and reports no error."""
    written = 0
    while written < len(content):
        written += out.write(memoryview(content)[written:]) or 0


_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(_Header)
_service = msgspec.msgpack.Decoder(_Service)


def _encode(document: Struct) -> bytes:
    body = _encoder.encode(document)
    return len(body).to_bytes(4, "big") + body


def _told(snapshot: Snapshot) -> bytes:
    # Without the encoded forms, which are made again in no time.
    return _encode(_Service(snapshot.service, snapshot.version, snapshot.change, snapshot.ordered()))


def _read(content: bytes) -> tuple[str, Mapping[str, Snapshot]]:
    blocks = list(_blocks(content))
    header = _header.decode(blocks[0]) if blocks else _Header(0, "")
    if header.format != _FORMAT:
        raise ValueError(f"format {header.format} is not one that this version reads")
    snapshots = {}
    for block in blocks[1:]:
        kept = _service.decode(block)
        address_ports = {(one.address, one.port): one for one in kept.endpoints}
        snapshots[kept.service] = Snapshot(kept.service, kept.version, kept.change, address_ports)
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
