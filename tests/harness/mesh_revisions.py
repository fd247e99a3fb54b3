"""Revisions of a mesh configuration that tests store by hand, without definitions and compiler."""

from collections.abc import Mapping
from typing import Any

from meshconfig.resource import Kind, NodeResources, Resource, make_resource
from registry.core.mesh import Revision
from registry.rollout.switching import begin
from registry.store import mesh as store
from registry.store.database import Database, read_clock
from registry.store.mesh import WHOLE

Nodes = Mapping[str, Mapping[Kind, Mapping[str, Mapping[str, Any]]]]
"""The documents of resources by node.cluster, kind and name."""


def user_cluster(service: str, **fields: Any) -> dict[str, Any]:
    """Return the document of a cluster whose endpoints the registry knows."""
    return {"name": service, "type": "EDS", "connect_timeout": "1s", **fields}


async def store_revision(database: Database, nodes: Nodes) -> int:
    """Store a revision with these resources and serve all of it at once; return its number."""
    resources: dict[str, dict[Kind, dict[str, Resource]]] = {
        node: {
            kind: {name: make_resource(kind, {"name": name, **document}) for name, document in documents.items()}
            for kind, documents in kinds.items()
        }
        for node, kinds in nodes.items()
    }
    return await store_resources(database, resources, at_once=True)


async def store_resources(
    database: Database, nodes: Mapping[str, NodeResources], share: float = WHOLE, *, at_once: bool = False
) -> int:
    """Store a revision with these resources and begin its roll-out, or serve all at once; return its number."""
    wanted: dict[str, dict[Kind, dict[str, str]]] = {
        node: {kind: {name: each.sha256 for name, each in named.items()} for kind, named in kinds.items()}
        for node, kinds in nodes.items()
    }
    async with database.transaction() as connection:
        state = await store.lock(connection)
        before = await store.read_newest_contents(connection)
        base, state.revision, state.step = state.revision, state.next_revision, 0
        number = state.revision
        now = await read_clock(connection)
        revision = Revision(number, now, "apply", number, "ann", "test", "", base, share or 100.0, "", "", {})
        await store.add_revision(connection, revision, None)
        await store.add_bodies(
            connection, [each for kinds in nodes.values() for named in kinds.values() for each in named.values()]
        )
        await store.write_contents(connection, number, before, wanted)
        if at_once:
            changed = {node for node in before.keys() | wanted.keys() if before.get(node) != wanted.get(node)}
            await store.serve(connection, state, {node: wanted.get(node, {}) for node in changed})
        else:
            await begin(connection, state, before, wanted, share=share)
        await store.save(connection, state)
    return number
