"""Makes the plan of an apply from what is served and what is wanted."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from meshconfig.difference import differences
from meshconfig.effective import Configuration
from meshconfig.phases import Phase, phases_between
from meshconfig.plan import EnvoyVersion, Fleet, NodePlan, Plan, ResourceNames, Step
from meshconfig.position import Fault
from meshconfig.resource import Kind, NodeResources, Snapshot

KINDS: tuple[Kind, ...] = ("clusters", "routes", "listeners")


def make_plan(
    before: tuple[Configuration, Snapshot],
    after: tuple[Configuration, Snapshot],
    *,
    base: int = 0,
    fleet: Fleet | None = None,
    proven: Iterable[str] | None = None,
    warnings: Iterable[Fault] = (),
) -> Plan:
    """Return the plan that leads from what is served to what is wanted.

    Args:
        before: the configuration of the current revision, and what it compiled to; empty ones for none.
        after: the configuration to apply, and what it compiles to.
        base: the number of the current revision.
        fleet: the Envoys that poll; None where nobody counted them.
        proven: versions of Envoy that a proof of the new snapshot covers.
        warnings: faults of the files that are no errors.
    """
    covered = set(proven or ())
    versions = fleet.versions if fleet is not None else {}
    return Plan(
        base=base,
        changes=tuple(differences(before[0], after[0], _served(before[1], after[1]))),
        nodes=tuple(_node_plans(before[1], after[1], fleet)),
        unproven_versions=tuple(
            EnvoyVersion(version, versions[version]) for version in sorted(versions) if version not in covered
        ),
        warnings=tuple(sorted(warnings)),
    )


def _served(*snapshots: Snapshot) -> Mapping[str, frozenset[str]]:
    """Return the clusters of each node.cluster, which gateways and edges call by their services' names."""
    return {
        node: frozenset[str]().union(*(each.nodes.get(node, {}).get("clusters", {}) for each in snapshots))
        for node in sorted({node for each in snapshots for node in each.nodes})
    }


def _node_plans(before: Snapshot, after: Snapshot, fleet: Fleet | None) -> Iterable[NodePlan]:
    for node in sorted({*before.nodes, *after.nodes}):
        old, new = before.nodes.get(node, {}), after.nodes.get(node, {})
        names = {kind: names for kind in KINDS if (names := _names(old, new, kind))}
        if names:
            envoys = None if fleet is None else fleet.subscribers.get(node, 0)
            yield NodePlan(node, envoys, names, _steps(old, new, names, envoys))


def _names(before: NodeResources, after: NodeResources, kind: Kind) -> ResourceNames:
    old, new = before.get(kind, {}), after.get(kind, {})
    return ResourceNames(
        added=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name].sha256 != old[name].sha256)),
        removed=tuple(sorted(old.keys() - new.keys())),
    )


def _steps(
    before: NodeResources, after: NodeResources, names: Mapping[Kind, ResourceNames], envoys: int | None
) -> tuple[Step, ...]:
    """Return what each phase of the roll-out switches, and whom it waits for before the next one begins."""
    phases = phases_between(before, after)
    clusters = names.get("clusters", ResourceNames())
    others: Mapping[Kind, ResourceNames] = {kind: each for kind, each in names.items() if kind != "clusters"}
    removed = ResourceNames(removed=clusters.removed)
    present = ResourceNames(added=clusters.added, changed=clusters.changed)
    switched: dict[Phase, Mapping[Kind, ResourceNames]] = {
        Phase.ADD: {"clusters": present},
        Phase.SWITCH: others if Phase.ADD in phases else {"clusters": present, **others},
        Phase.DONE: names if len(phases) == 1 else {"clusters": removed} if Phase.SWITCH in phases else others,
    }
    actions = [{kind: each for kind, each in switched[phase].items() if each} for phase in phases]
    steps = [
        Step(tuple(action), "; ".join(_action(kind, action[kind]) for kind in action), envoys)
        for action in actions
        if action
    ]
    return (*steps[:-1], replace(steps[-1], awaited=0))


def _action(kind: Kind, names: ResourceNames) -> str:
    """Return in words what happens to the resources of a kind, as ``clusters: add orders``."""
    parts = (("add", names.added), ("change", names.changed), ("remove", names.removed))
    return f"{kind}: {', '.join(f'{word} {_listed(each)}' for word, each in parts if each)}"


MAX_LISTED = 4
"""Names that a sentence lists before it counts the others."""


def _listed(names: Iterable[str]) -> str:
    every = tuple(names)
    if len(every) <= MAX_LISTED:
        return ", ".join(every)
    return f"{', '.join(every[: MAX_LISTED - 1])} and {len(every) - MAX_LISTED + 1} more"
