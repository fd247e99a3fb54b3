"""The mesh configuration as it is served: versions, and the resources of each node.cluster. No I/O.

A version is one integer that orders revisions and the steps of their roll-out. It is written as ``7.2``.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal

from msgspec import Struct

from meshconfig.resource import Kind

KINDS: tuple[Kind, ...] = ("clusters", "routes", "listeners")
"""The kinds of resources, in the order in which a node is read."""

MeshEventKind = Literal[
    "mesh_applied",
    "mesh_rolled_back",
    "mesh_switched",
    "mesh_rolled_out",
    "mesh_refused",
    "mesh_promoted",
    "mesh_paused",
    "mesh_resumed",
    "mesh_forgotten",
]
"""The kinds of events of a service's mesh configuration: who ordered what, and the phases of its roll-out."""

MAX_REVISIONS_AHEAD = 1_000
"""Revisions by which a subscriber may be ahead of a process. One that is further ahead holds something else."""
_STEP_BITS = 32
MAX_REVISION = (1 << 31) - 1
"""The greatest number of a revision of which PostgreSQL can store a version, in 64 bits."""
_STEP_MASK = (1 << _STEP_BITS) - 1
_SHARES = 10_000
"""Parts into which the nodes of a cluster are divided by their hash: a share is a multiple of 0.01 %."""


def version_of(revision: int, step: int) -> int:
    """Return the version of a step of a revision; versions have the order of revisions, then of steps."""
    return (revision << _STEP_BITS) | (step & _STEP_MASK)


def revision_of(version: int) -> int:
    """Return the revision of a version."""
    return version >> _STEP_BITS


def step_of(version: int) -> int:
    """Return the step of a version."""
    return version & _STEP_MASK


def show_version(version: int) -> str:
    """Return a version as people read it: ``7.2``."""
    return f"{revision_of(version)}.{step_of(version)}"


class Revision(Struct, frozen=True):
    """A revision of the mesh configuration, without its files.

    Attributes:
        number: its number.
        at: when it was applied, by PostgreSQL's clock.
        kind: ``apply`` or ``rollback``.
        content: the revision whose files and resources it has.
        author: who applied it.
        reason: why.
        commit: the commit of the repository that its author named; may be empty.
        base: the revision that its author knew.
        share: the percentage of node ids that it began with; 100: all.
        sha256: the digest of all its resources.
        compiler: the version of the program that compiled it.
        proof: how its resources were proven.
    """

    number: int
    at: float
    kind: str
    content: int
    author: str
    reason: str
    commit: str
    base: int
    share: float
    sha256: str
    compiler: str
    proof: Mapping[str, Any]


class ServedResource(Struct, frozen=True, gc=False):
    """One resource as it is served.

    Attributes:
        name: its name.
        version: that of the last change of these bytes.
        body: the resource in JSON, with its ``@type``.
        sha256: the digest of the body.
    """

    name: str
    version: int
    body: bytes
    sha256: str = ""


class ServedSet(Struct, frozen=True, gc=False):
    """The resources of one kind that the Envoys of a node.cluster are served.

    Attributes:
        version: that of the last change, addition or removal.
        resources: by name, in the order of names; none is a decision, and not a doubt.
    """

    version: int
    resources: Mapping[str, ServedResource]


ServedSets = Mapping[Kind, ServedSet]
"""The resources of a node.cluster by their kind. A kind that is missing was never defined for it."""


class ServedNode(Struct, frozen=True, gc=False):
    """Everything that the Envoys of one node.cluster are served.

    Attributes:
        cluster: the node.cluster, which is a service, a gateway or an edge.
        sets: what all of them are served, or all outside of a share.
        share: the percentage of node ids that are served ``share_sets``; 0: none.
        share_sets: what the node ids of the share are served.
    """

    cluster: str
    sets: ServedSets
    share: float = 0.0
    share_sets: ServedSets = {}

    def sets_for(self, node_id: str) -> ServedSets:
        """Return what the Envoy of a node id is served."""
        return self.share_sets if self.share and in_share(node_id, self.share) else self.sets


def in_share(node_id: str, percent: float) -> bool:
    """Return whether a node id is among a share of all; a larger share contains each smaller one."""
    number = int.from_bytes(sha256(node_id.encode("utf-8", "replace")).digest()[:8], "big")
    return number % _SHARES < percent * _SHARES / 100
