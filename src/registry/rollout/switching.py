"""The beginning of a roll-out, in the transaction that stores its revision."""

from registry.store import mesh as store
from registry.store.database import Session
from registry.store.mesh import Contents, MeshState


async def begin(connection: Session, state: MeshState, before: Contents, wanted: Contents) -> list[str]:
    """Serve what is wanted, in one step, and return the node.clusters whose resources change.

    Args:
        connection: the connection, in the transaction that has locked the mesh configuration and stores the revision.
        state: its numbers, which the caller stores: the revision is the new one, and the step 0.
        before: the resources of the revision before.
        wanted: the resources of the new revision.
    """
    touched = {
        node: wanted.get(node, {}) for node in before.keys() | wanted.keys() if before.get(node) != wanted.get(node)
    }
    return sorted({node for node, _ in await store.serve(connection, state, touched)})
