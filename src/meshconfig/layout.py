"""The layout of published configuration: object keys as itacho has them, and what is written when, in which order."""

from meshconfig.resource import Kind

RESOURCES = "v3/discovery"
"""The folder of discovery responses: itacho answers Envoy's ``/v3/discovery:clusters`` with an object of it."""
MANIFEST = "manifest.json"
"""The key of the manifest, which is written last: what it names is complete."""


def resource_key(kind: Kind, node_cluster: str) -> str:
    """Return the key of the discovery response of a kind of resource."""
    return f"{RESOURCES}/{kind}/{node_cluster}"


def bootstrap_key(node_cluster: str) -> str:
    """Return the key of a bootstrap."""
    return f"bootstrap/{node_cluster}.json"
