"""The mesh configuration on disk: one node.cluster that cannot be read hinders no other."""

from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from unit.registry.mesh import served

from registry.cache.disk_file import documents_in
from registry.cache.disk_mesh import DiskMesh
from registry.cache.mesh_cache import MeshCache
from registry.errors import UnavailableError
from wire.node import Node


def _frame(document: bytes) -> bytes:
    return len(document).to_bytes(4, "big") + document


async def test_a_node_that_cannot_be_read_is_unavailable_alone(tmp_path: Path) -> None:
    """The others are served, and its own Envoys get 503, never an empty set."""
    cache = MeshCache()
    cache.set_database("db")
    cache.mark_ready()
    cache.apply([served("web", 7, clusters={"user": "a"}), served("api", 7, clusters={"user": "b"})])
    path = tmp_path / "mesh.msgpack"
    await DiskMesh(path).keep(cache)
    header, *nodes = documents_in(path.read_bytes())
    damaged = msgspec.msgpack.encode({"cluster": "api", "sets": 7})
    garbled = [damaged if b"api" in node else node for node in nodes]
    path.write_bytes(b"".join(map(_frame, (header, *garbled))))
    filled = MeshCache()
    with capture_logs() as logs:
        assert DiskMesh(path).restore(filled)
    assert [entry["event"] for entry in logs] == ["mesh_node_on_disk_unreadable", "mesh_served_from_disk"]
    assert filled.find("clusters", Node("i-1", "web")) is not None
    with pytest.raises(UnavailableError):
        filled.find("clusters", Node("i-2", "api"))
    path.write_bytes(_frame(header) + _frame(damaged))
    assert not DiskMesh(path).restore(MeshCache()), "of a file in which nothing can be read nothing is served"
