"""One difference in meaning between two configurations, as plans and histories show it."""

from typing import Literal

from msgspec import Struct

from meshconfig.position import Position

What = Literal["added", "removed", "changed"]


class Change(Struct, frozen=True, omit_defaults=True):
    """One difference in meaning, and everything that it concerns.

    Attributes:
        what: whether the subjects or their values were added, removed or changed.
        subjects: what it concerns, as ``web → user /ping``, ``gateway staging`` or ``mesh``.
        nodes: the services (node.cluster), gateways and edges whose Envoys it concerns; empty for the mesh.
        field: the value that changes, as ``retry.attempts``; empty for the subject as a whole.
        before: the value until now, as files write it.
        after: the value from now on.
        position: where the new value is written; the old one where no file writes a new one.
        layer: ``route``, ``dependency``, ``callee``, ``mesh`` or ``built in``: the origin of the new value.
        bootstrap: whether Envoys take it only from a new bootstrap, when they start.
    """

    what: What
    subjects: tuple[str, ...]
    nodes: tuple[str, ...]
    field: str
    before: str
    after: str
    position: Position
    layer: str = ""
    bootstrap: bool = False
