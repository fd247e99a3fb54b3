"""The mesh configuration on disk, which a process serves that starts while PostgreSQL is away."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from registry.cache.disk_file import PRIVATE, documents_in, encode, write_file
from registry.cache.mesh_cache import MeshCache
from registry.core.mesh import ServedNode

log = structlog.get_logger()

_FORMAT = 1
"""The format of the file; another one is not read."""
_NODES_PER_TURN = 5
"""node.clusters that are encoded in one turn of the event loop."""


class _Header(Struct, frozen=True):
    """The first document: the format, the database and the newest revision of the nodes that follow."""

    format: int
    database_id: str
    revision: int


class DiskMesh:
    """A file of length-prefixed msgpack documents: a header, then a node.cluster each.

    Args:
        path: the file; written aside and renamed, so that it is always whole.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: tuple[str, int] | None = None
        """The database and the number of changes of the cache that is in the file. Written by keep()."""
        self._failing = False
        """Whether the last attempt to write failed, which is logged once. Written by keep()."""

    async def keep(self, cache: MeshCache) -> None:
        """Write what the cache has, if anything has changed since the last time.

        While a node.cluster cannot be read, the copy that has it is better than one without it.
        """
        state = (cache.database_id, cache.advances)
        if not cache.ready or cache.stale or cache.unreadable or state == self._written:
            return
        try:
            await write_file(self._path, _pieces(cache.database_id, cache.revision, list(cache)))
        except OSError as error:
            if not self._failing:
                log.warning("mesh_not_kept", path=str(self._path), reason=str(error))
            self._failing = True
            return
        self._written, self._failing = state, False

    def restore(self, cache: MeshCache) -> bool:
        """Fill the cache from the file, and mark it as stale; return False if there is none of its database.

        A node.cluster that cannot be read gets 503 until PostgreSQL is read, as one that the file does not have.
        """
        unreadable: list[str] = []
        try:
            with suppress(PermissionError):
                self._path.chmod(PRIVATE)
            header, nodes = _read(self._path.read_bytes(), unreadable)
            cache.restore(header.database_id, header.revision, nodes)
        except FileNotFoundError:
            return False
        except (OSError, msgspec.DecodeError, ValueError) as error:
            log.warning("mesh_unreadable", path=str(self._path), reason=str(error))
            return False
        for reason in unreadable:
            log.error("mesh_node_on_disk_unreadable", reason=reason)
        log.warning("mesh_served_from_disk", revision=header.revision, nodes=len(nodes), unreadable=len(unreadable))
        return True


_header = msgspec.msgpack.Decoder(_Header)
_node = msgspec.msgpack.Decoder(ServedNode)


def _pieces(database_id: str, revision: int, nodes: Sequence[ServedNode]) -> Iterator[bytes]:
    yield encode(_Header(_FORMAT, database_id, revision))
    for begin in range(0, len(nodes), _NODES_PER_TURN):
        yield b"".join(map(encode, nodes[begin : begin + _NODES_PER_TURN]))


def _read(content: bytes, unreadable: list[str]) -> tuple[_Header, list[ServedNode]]:
    """Return the header and the nodes of a file, without those that cannot be read; ``unreadable`` gets the reasons."""
    documents = documents_in(content)
    header = _header.decode(documents[0]) if documents else _Header(0, "", 0)
    if header.format != _FORMAT:
        raise ValueError(f"format {header.format} is not one that this version reads")
    nodes = []
    for number, document in enumerate(documents[1:], start=1):
        try:
            nodes.append(_node.decode(document))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            unreadable.append(f"node {number} of {len(documents) - 1}: {error}")
    if unreadable and not nodes:
        raise ValueError(f"nothing in it can be read; {unreadable[0]}")
    return header, nodes
