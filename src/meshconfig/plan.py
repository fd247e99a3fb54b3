"""The plan of an apply: changes in meaning, the Envoys that they wake, and the steps of the roll-out."""

from collections.abc import Mapping

from msgspec import Struct

from meshconfig.change import Change
from meshconfig.position import Fault
from meshconfig.resource import Kind


class ResourceNames(Struct, frozen=True, omit_defaults=True):
    """The names of the resources of one kind that an apply adds, changes and removes."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class Step(Struct, frozen=True):
    """One step of a roll-out to the Envoys of one node.cluster.

    Attributes:
        kinds: the kinds of resources that are switched together.
        action: what the step does, in words.
        awaited: subscribers that have to show it before the next step begins; 0 for the last step, which nothing
            follows; None where nobody counted them.
    """

    kinds: tuple[Kind, ...]
    action: str
    awaited: int | None


class NodePlan(Struct, frozen=True):
    """The changes that the Envoys of one node.cluster get.

    Attributes:
        node: the service, gateway or edge.
        envoys: how many of its Envoys poll; None where nobody counted them.
        resources: what changes, by kind; kinds without a change are left out.
        steps: the roll-out, in order.
    """

    node: str
    envoys: int | None
    resources: Mapping[Kind, ResourceNames]
    steps: tuple[Step, ...]


class EnvoyVersion(Struct, frozen=True):
    """A version of Envoy that polled within the last day, with the number of its Envoys."""

    version: str
    envoys: int


class Plan(Struct, frozen=True):
    """Everything that an apply would do.

    Attributes:
        base: the revision that the files are compared with; 0: none was applied.
        changes: the differences in meaning.
        nodes: the Envoys whose resources change, by node.cluster.
        unproven_versions: versions in the fleet that no proof covers.
        warnings: faults that do not keep the files from being applied.
    """

    base: int = 0
    changes: tuple[Change, ...] = ()
    nodes: tuple[NodePlan, ...] = ()
    unproven_versions: tuple[EnvoyVersion, ...] = ()
    warnings: tuple[Fault, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether an apply would change nothing, neither in meaning nor in bytes."""
        return not (self.changes or self.nodes)


class Fleet(Struct, frozen=True):
    """The Envoys that poll.

    Attributes:
        subscribers: their number, by node.cluster.
        versions: their number, by the version of Envoy.
    """

    subscribers: Mapping[str, int] = {}
    versions: Mapping[str, int] = {}
