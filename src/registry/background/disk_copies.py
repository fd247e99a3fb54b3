"""Copies on disk of what a process serves, for a start without PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from registry.auth.access_table import AccessTable
from registry.cache.disk_access import DiskAccess
from registry.cache.disk_mesh import DiskMesh
from registry.cache.disk_snapshot import DiskSnapshot
from registry.cache.mesh_cache import MeshCache
from registry.cache.snapshot_cache import SnapshotCache

Write = Callable[[], Awaitable[None]]

WRITE_INTERVAL = 5.0
"""Seconds between two times that a copy is brought up to date."""
_MAX_WRITE_SHARE = 0.03
"""Share of the time in which a copy is written: many endpoints under steady change do not keep the disk busy."""
_RESTORE_DELAY = 2.0
"""Seconds to wait for PostgreSQL at the start before the copies are served."""


class DiskCopies:
    """Copies of what a process serves, each in a file that is written whole.

    Args:
        directory: that has the files.
        cache: the endpoints.
        access: the credentials.
        mesh: the mesh configuration.
    """

    def __init__(self, directory: Path, cache: SnapshotCache, access: AccessTable, mesh: MeshCache) -> None:
        self.snapshot = DiskSnapshot(directory / "snapshot.msgpack")
        """The copy of the endpoints, whose age is in the status."""
        self._access_file = DiskAccess(directory / "access.msgpack")
        self._mesh_file = DiskMesh(directory / "mesh.msgpack")
        self._cache = cache
        self._access = access
        self._mesh = mesh

    def writes(self) -> dict[str, Write]:
        """Return what writes each copy if anything has changed, by a name for the log."""
        return {
            "snapshot_on_disk": partial(self.snapshot.keep, self._cache),
            "access_on_disk": self._write_access,
            "mesh_on_disk": partial(self._mesh_file.keep, self._mesh),
        }

    async def restore(self) -> None:
        """Serve the copies, to the clients that they knew, when PostgreSQL is not read in time."""
        await asyncio.sleep(_RESTORE_DELAY)
        # The credentials first: where access is on, nothing is answered without them.
        if not self._access.ready:
            self._access_file.restore(self._access)
        if not self._mesh.ready:
            self._mesh_file.restore(self._mesh)
        if not self._cache.ready:
            self.snapshot.restore(self._cache)

    async def _write_access(self) -> None:
        await self._access_file.keep(self._access, self._cache.clock.now())


class PacedWrite:
    """Writes one copy, and no more often than for its share of the time.

    Args:
        write: what writes it.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._due = 0.0
        """When it may be written next, on the loop's clock."""

    async def __call__(self) -> None:
        """Write it if that is due."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if begun >= self._due:
            await self._write()
            self._due = begun + (loop.time() - begun) / _MAX_WRITE_SHARE
