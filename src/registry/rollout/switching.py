"""The changes of what is served: the beginning of roll-outs and their phases, each in a transaction.

The rules are in ``meshconfig.phases``. Every function here runs in the transaction of a writer that has locked the mesh
configuration, so that what is served, the roll-outs' states and the numbers of versions are stored together.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from meshconfig import phases
from meshconfig.phases import Phase, Rollout
from meshconfig.resource import Kind, NodeResources, Resource
from registry.cooperative import cooperatively
from registry.core.mesh import KINDS, in_share
from registry.core.rollout import NodeRollout, Pause, RolloutKey, RolloutState
from registry.errors import InvalidError, UnavailableError
from registry.store import mesh as store
from registry.store import rollouts
from registry.store.database import Session, read_clock
from registry.store.mesh import ALL, WHOLE, Contents, MeshState, NodeNames, ServedRow
from registry.store.rollouts import RolloutRow

log = structlog.get_logger()

_KINDS: Mapping[str, Kind] = {kind: kind for kind in KINDS}
"""The kinds that this version reads, by their names in PostgreSQL."""


class NodeServed(Struct, frozen=True):
    """The resources that a node.cluster, or the share of its Envoys, is served now.

    Attributes:
        names: their digests.
        resources: the resources without their bodies.
        versions: the versions at which they are served.
    """

    names: NodeNames
    resources: NodeResources
    versions: phases.Versions


class Change(Struct, frozen=True):
    """One node.cluster, or the share of its Envoys, that is to be served something else.

    Attributes:
        revision: the revision that is wanted.
        resources: what is served from now on.
        state: the state of its roll-out from now on, without its serial number.
    """

    node_cluster: str
    share: float
    revision: int
    resources: NodeResources
    state: RolloutState

    @property
    def key(self) -> RolloutKey:
        """Its node.cluster and share."""
        return (self.node_cluster, self.share)


async def begin(
    connection: Session, state: MeshState, before: Contents, wanted: Contents, *, share: float = WHOLE
) -> list[str]:
    """Begin the roll-out of a revision, and return the node.clusters that it changes.

    Args:
        connection: the connection, in the transaction that has locked the mesh configuration and stores the revision.
        state: its numbers, which the caller stores: the revision is the new one, and the step 0.
        before: the resources of the revision before.
        wanted: the resources of the new revision.
        share: the percentage of node ids that get it; `WHOLE`: all of them, which also ends a share.

    Raises:
        InvalidError: another revision is served to a share; its Envoys would get all of this one at once.
    """
    shared = await rollouts.shares(connection)
    touched = {
        node async for node in cooperatively(before.keys() | wanted.keys()) if before.get(node) != wanted.get(node)
    }
    if share != WHOLE:
        if shared:
            raise InvalidError(
                f"a revision is served to {max(shared.values()):g} % of the Envoys of {', '.join(sorted(shared)[:5])}: "
                "promote it, or roll it back, before another one gets a share",
                "$.share",
            )
        await _part_share(connection, state, touched, share)
        parts = [(node, share) for node in sorted(touched)]
    else:
        parts = [(node, WHOLE) for node in sorted(touched | shared.keys())] + sorted(shared.items())
    await want(connection, state, {key: wanted.get(key[0], {}) for key in parts}, state.revision)
    return sorted({node for node, _ in parts})


async def promote(connection: Session, state: MeshState, revision: int) -> list[str]:
    """Roll a revision that a share of the Envoys has out to all; return the node.clusters that it changes.

    Args:
        connection: the connection, in a transaction that has locked the mesh configuration.
        state: its numbers, which the caller stores.
        revision: the revision.
    """
    shared = await rollouts.shares(connection)
    contents = await store.read_contents(connection, revision)
    await want(connection, state, {(node, WHOLE): contents.get(node, {}) for node in sorted(shared)}, revision)
    return sorted(shared)


async def pause(connection: Session, revision: int, order: Pause | None) -> list[str]:
    """Pause the roll-outs of a revision, or let them go on; return the node.clusters that this concerns.

    A phase that goes on has its whole time again.

    Args:
        connection: the connection, in a transaction that has locked the mesh configuration.
        revision: the revision.
        order: who pauses it and why; None: it goes on.
    """
    rows = [
        RolloutRow(
            row.node_cluster,
            row.share,
            revision,
            replace(row.state, paused=order, rollout=Rollout(row.state.rollout.phase, row.state.rollout.fresh)),
        )
        for row in await rollouts.read(connection)
        if row.revision == revision and row.state is not None and (row.state.paused is None) is (order is not None)
    ]
    await rollouts.write(connection, rows)
    return sorted({row.node_cluster for row in rows})


async def want(connection: Session, state: MeshState, wanted: Mapping[RolloutKey, NodeNames], revision: int) -> None:
    """Want something else of node.clusters: serve what may be served of it at once, and begin their roll-outs.

    Args:
        connection: the connection, in a transaction that has locked the mesh configuration.
        state: its numbers, which the caller stores.
        wanted: the resources that are wanted, by node.cluster and share.
        revision: the revision that they are of.

    Raises:
        UnavailableError: a body of it is missing or spoilt, so that no process could serve it.
    """
    await _check_whole(connection, wanted, revision)
    now = await read_clock(connection)
    rows = await store.read_served(connection, {node for node, _ in wanted})
    facts = await read_facts(connection, rows, wanted.values())
    earlier = {row.key: row.state for row in await rollouts.read(connection)}
    changes = []
    rows_of = await by_node(rows)
    async for key, names in cooperatively(wanted.items()):
        before = earlier.get(key)
        new = resources_of(names, facts)
        try:
            served = served_of(rows_of.get(key[0], ()), key, facts).resources
        except LookupError:
            # A row of it is spoilt, so that no process could read it: what is wanted mends it.
            log.warning("mesh_node_mended", node_cluster=key[0])
            served = {}
        resources, following = phases.begin(served, new, Rollout() if before is None else before.rollout, now)
        ahead = (Phase.DONE,) if following.phase is Phase.DONE else phases.phases_between(served, new)
        left_behind = () if before is None else before.left_behind
        changes.append(
            Change(*key, revision, resources, RolloutState(following, 0, phases=ahead, left_behind=left_behind))
        )
    await serve(connection, state, changes)


async def _check_whole(connection: Session, wanted: Mapping[RolloutKey, NodeNames], revision: int) -> None:
    """Refuse what was deleted or changed by hand before anything is switched to it."""
    digests = {
        key: {digest for named in names.values() for digest in named.values()}
        async for key, names in cooperatively(wanted.items())
    }
    whole = await store.find_whole(connection, set().union(*digests.values()))
    spoilt = sorted({node for (node, _), own in digests.items() if not own <= whole})
    if spoilt:
        raise UnavailableError(
            f"the bodies of resources of {', '.join(spoilt[:5])} are missing in PostgreSQL, or were changed there, so "
            f"that revision {revision} cannot be served: apply its definitions again, which stores them anew"
        )


async def serve(connection: Session, state: MeshState, changes: Sequence[Change]) -> None:
    """Serve what follows in some roll-outs, and store their states; the caller saves the numbers.

    Args:
        connection: the connection, in a transaction that has locked the mesh configuration.
        state: its numbers.
        changes: what follows, for each node.cluster and share at most once.
    """
    by_share: defaultdict[float, dict[str, NodeNames]] = defaultdict(dict)
    async for change in cooperatively(changes):
        by_share[change.share][change.node_cluster] = names_of(change.resources)
    for share, contents in sorted(by_share.items()):
        await store.serve(connection, state, contents, share)
    serial = state.change + 1
    waiting = [change for change in changes if change.state.rollout.phase is not Phase.DONE]
    await rollouts.write(
        connection,
        [
            RolloutRow(change.node_cluster, change.share, change.revision, replace(change.state, serial=serial))
            for change in waiting
        ],
    )
    await rollouts.delete(connection, {change.key for change in changes} - {change.key for change in waiting})
    await _join_shares(connection, state, {change.node_cluster for change in changes})


async def read_facts(
    connection: Session, rows: Iterable[ServedRow], wanted: Iterable[NodeNames]
) -> dict[str, Resource]:
    """Return the facts about all resources that are served or wanted, by their digests."""
    kinds = {row.sha256: _KINDS[row.kind] async for row in cooperatively(rows) if _is_read(row)}
    async for names in cooperatively(wanted):
        kinds |= {digest: kind for kind, named in names.items() for digest in named.values()}
    return await store.read_resources(connection, kinds) if kinds else {}


async def used_clusters(connection: Session, contents: Contents) -> dict[str, frozenset[str]]:
    """Return the clusters that routes use, of each node.cluster that has listeners: of gateways and edges."""
    fronts = {node: kinds for node, kinds in contents.items() if kinds.get("listeners")}
    facts = await read_facts(connection, (), fronts.values())
    return {
        node: frozenset(
            cluster
            for named in kinds.values()
            for digest in named.values()
            if digest in facts
            for cluster in facts[digest].uses
        )
        for node, kinds in fronts.items()
    }


def _is_read(row: ServedRow) -> bool:
    """Return whether a row is a resource of a kind that this version reads."""
    return bool(row.sha256) and row.kind in _KINDS


def served_of(rows: Iterable[ServedRow], key: RolloutKey, facts: Mapping[str, Resource]) -> NodeServed:
    """Return what one node.cluster and share is served.

    Raises:
        LookupError: the facts about a resource are missing.
    """
    names: dict[Kind, dict[str, str]] = {}
    sets: dict[Kind, int] = {}
    versions: dict[str, int] = {}
    for row in rows:
        kind = _KINDS.get(row.kind)
        if (row.node_cluster, row.share) != key or kind is None:
            continue
        if row.name == ALL:
            sets[kind] = row.version
            names.setdefault(kind, {})
        else:
            names.setdefault(kind, {})[row.name] = row.sha256
            if kind == "routes":
                versions[row.name] = row.version
    served = phases.Versions(sets.get("clusters", 0), sets.get("listeners", 0), versions)
    return NodeServed(names, resources_of(names, facts), served)


def resources_of(names: NodeNames, facts: Mapping[str, Resource]) -> NodeResources:
    """Return resources without their bodies.

    Raises:
        LookupError: the facts about one are missing.
    """
    return {
        kind: {name: replace(facts[digest], kind=kind, name=name) for name, digest in named.items()}
        for kind, named in names.items()
    }


def names_of(resources: NodeResources) -> NodeNames:
    """Return the digests of resources."""
    return {kind: {name: resource.sha256 for name, resource in named.items()} for kind, named in resources.items()}


async def _part_share(connection: Session, state: MeshState, nodes: Collection[str], share: float) -> None:
    """Serve a share of the Envoys apart, and let it go on in the roll-out that is under way."""
    await rollouts.copy_share(connection, state, nodes, share)
    under_way = [
        RolloutRow(row.node_cluster, share, row.revision, row.state)
        for row in await rollouts.read(connection)
        if row.node_cluster in nodes and row.share == WHOLE and row.state is not None
    ]
    await rollouts.write(connection, under_way)


async def _join_shares(connection: Session, state: MeshState, nodes: Collection[str]) -> None:
    """Serve all Envoys the same again where the share and the others have come to the same."""
    shared = await rollouts.shares(connection, nodes)
    if not shared:
        return
    waiting = {row.node_cluster for row in await rollouts.read(connection)}
    rows = await store.read_served(connection, shared.keys() - waiting)
    digests: defaultdict[str, defaultdict[float, set[tuple[str, str, str]]]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        digests[row.node_cluster][row.share].add((row.kind, row.name, row.sha256))
    equal = [node for node, parts in digests.items() if parts[WHOLE] == parts[shared[node]]]
    if equal:
        await rollouts.raise_to_share(connection, state, equal)
        await store.forget_share(connection, state, equal)


def concerns(rollout: NodeRollout, share: float, node_id: str) -> bool:
    """Return whether a roll-out is for an Envoy.

    Args:
        rollout: the roll-out.
        share: the share of the node.cluster that is served apart; 0: none.
        node_id: the node id of the Envoy.
    """
    return (rollout.share != WHOLE) == (share != WHOLE and in_share(node_id, share))


async def by_node(rows: Iterable[ServedRow]) -> Mapping[str, Sequence[ServedRow]]:
    """Return the rows of each node.cluster."""
    nodes: defaultdict[str, list[ServedRow]] = defaultdict(list)
    async for row in cooperatively(rows):
        nodes[row.node_cluster].append(row)
    return nodes
