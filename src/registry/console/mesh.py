"""The page of the mesh configuration: what is served, its roll-out, its revisions, and an operator's forms."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from msgspec import Struct

from meshconfig.resource import Kind
from registry.auth.principal import Principal
from registry.console.form import Filled
from registry.console.listing import matches, page_of
from registry.console.page import Framed, Missing, ask
from registry.core.mesh import KINDS, ServedNode, ServedSets, revision_of, show_version
from registry.core.rollout import RolloutView, view_of
from registry.http.dependencies import READY, MeshPart, MeshRevisionsPart, MeshRolloutPart, MeshStatusPart, Reader
from registry.http.views.mesh import RevisionView, revision_view
from registry.usecases.mesh_revisions import MeshRevisions
from registry.usecases.mesh_rollout import RolloutOverview
from wire.model import Text

router = APIRouter(dependencies=[READY])

_MAX_REVISIONS = 20
"""Revisions of one page."""
_MAX_ROLLOUTS = 20
"""Roll-outs that the page shows, those first that stand still."""
_MAX_NAMED = 5
"""Services that a sentence names."""
_WORST_FIRST = ("unreadable", "refused", "paused", "waiting")
_STANDS_STILL = {
    "unreadable": "cannot be read",
    "refused": "stands still: an Envoy refuses it",
    "paused": "is paused",
}
"""What is said of a roll-out in a state in which nothing goes on by itself."""

RevisionNumber = Annotated[int, Path(ge=1, lt=10**18)]


class Sent(Struct, frozen=True):
    """The fields of the forms."""

    reason: Text = ""


class ServedRow(Struct, frozen=True):
    """The resources that the Envoys of one node.cluster are served, in numbers.

    Attributes:
        name: the node.cluster.
        version: the newest version of its resources.
        counts: the number of its resources by kind.
        share: the percentage of its node ids that are served something else; 0: none.
        state: of its roll-out; ``done`` where there is none, ``unknown`` while PostgreSQL is away.
    """

    name: str
    version: str
    counts: Mapping[Kind, int]
    share: float
    state: str


class Share(Struct, frozen=True):
    """A revision that a share of the Envoys is served; ``more`` counts the services that are not named."""

    revision: int
    percent: float
    names: Sequence[str]
    more: int


class RolloutGroup(Struct, frozen=True):
    """The roll-outs of one revision: how many wait, and how many of these are paused."""

    revision: int
    waiting: int
    paused: int


class RolloutRows(Struct, frozen=True):
    """The roll-outs that are shown, and the number of the others."""

    items: Sequence[RolloutView]
    groups: Sequence[RolloutGroup]
    total: int

    @property
    def more(self) -> int:
        """The number of those that are not shown."""
        return self.total - len(self.items)


@router.get("/mesh")
async def show_mesh(  # noqa: PLR0913  # the parts of the page, and one argument a filter
    mesh: MeshRevisionsPart,
    status: MeshStatusPart,
    rollouts: MeshRolloutPart,
    reader: Reader,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    page: Annotated[int, Query(ge=1)] = 1,
    before: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """Show what is served of the mesh configuration, how far its roll-out is, and its revisions."""
    nodes, reach = status.nodes(reader), status.reach(reader)
    current = await ask(_current(mesh, reader))
    revisions = await ask(_revisions(mesh, reader, before))
    overview = await ask(rollouts.overview(reader))
    under_way = None if isinstance(overview, Missing) else [view_of(each) for each in overview.rollouts]
    shown = overview if isinstance(overview, Missing) else _rollout_rows(under_way or ())
    states = None if under_way is None else _states(under_way)
    served = [_served_row(node, states) for node in sorted(nodes, key=lambda node: node.cluster)]
    older = [] if isinstance(revisions, Missing) else revisions
    return frame.page(
        "mesh.html",
        headline=_headline(current, shown, len(served), everything=reach.everything),
        reach=reach,
        current=current,
        unreadable=status.unreadable(reader).items(),
        gateways_refused=() if isinstance(overview, Missing) else overview.gateways.refusals,
        uncovered=[] if isinstance(overview, Missing) else _uncovered(overview),
        total=len(served),
        shared=_share_of(nodes),
        rollouts=shown,
        rows=page_of([row for row in served if matches(q, row.name)], page),
        revisions=revisions,
        older=older[-1].number if len(older) == _MAX_REVISIONS and older[-1].number > 1 else None,
        before=before,
        older_than={} if before is None else {"before": before},
        q=q,
    )


@router.post("/mesh/revisions/{number}/rollback")
async def roll_back(number: RevisionNumber, mesh: MeshPart, form: Filled) -> Response:
    """Put the resources of an earlier revision in force again, as a new revision."""
    mesh.check_may_apply(form.actor)
    applied = await mesh.roll_back(form.actor, number, form.read(Sent).reason)
    return form.done("mesh_kept" if applied.kept else "mesh_rolled_back")


@router.post("/mesh/revisions/{number}/promote")
async def promote(number: RevisionNumber, rollouts: MeshRolloutPart, form: Filled) -> Response:
    """Roll a revision that a share of the Envoys has out to all."""
    await rollouts.promote(form.actor, number, form.read(Sent).reason)
    return form.done("mesh_promoted")


@router.post("/mesh/revisions/{number}/pause")
async def pause_rollout(number: RevisionNumber, rollouts: MeshRolloutPart, form: Filled) -> Response:
    """Let the roll-out of a revision go no further."""
    await rollouts.pause(form.actor, number, form.read(Sent).reason)
    return form.done("mesh_paused")


@router.post("/mesh/revisions/{number}/resume")
async def resume_rollout(number: RevisionNumber, rollouts: MeshRolloutPart, form: Filled) -> Response:
    """Let the roll-out of a revision go on."""
    await rollouts.resume(form.actor, number, form.read(Sent).reason)
    return form.done("mesh_resumed")


async def _current(mesh: MeshRevisions, reader: Principal) -> RevisionView | None:
    newest = await mesh.revisions(reader, before=None, limit=1)
    return revision_view(newest[0]) if newest else None


async def _revisions(mesh: MeshRevisions, reader: Principal, before: int | None) -> list[RevisionView]:
    return [revision_view(each) for each in await mesh.revisions(reader, before=before, limit=_MAX_REVISIONS)]


def _headline(
    current: RevisionView | Missing | None, rollouts: RolloutRows | Missing, served: int, *, everything: bool
) -> str:
    """Return the state of the mesh configuration, as far as the reader may know it, as a sentence."""
    if isinstance(current, Missing) or isinstance(rollouts, Missing):
        return "The mesh configuration is served from memory" if served else "The mesh configuration is unavailable"
    if current is None:
        return "No mesh configuration was applied"
    unproven = " unproven" if current.proof.by == "nobody" else ""
    states = Counter(rollout.state for rollout in rollouts.items)
    for state, words in _STANDS_STILL.items():
        if states[state]:
            return f"The roll-out of{unproven} revision {current.number} {words}"
    subject = f"{unproven} revision {current.number}".strip().capitalize()
    if rollouts.total:
        services = "1 service waits" if rollouts.total == 1 else f"{rollouts.total} services wait"
        return f"{subject} is being rolled out: {services} for Envoys"
    return f"{subject} is served" if everything else f"{subject} is served to the services that you may read"


def _uncovered(overview: RolloutOverview) -> list[tuple[str, Sequence[str]]]:
    """Return the versions of Envoy that no proof covers, with the services that they poll for.

    A proof by one patch release covers the others, which know the same fields.
    """
    if overview.unproven or not overview.revision:
        return []
    proven = {_minor(version) for version in overview.proven_by}
    return sorted((version, names) for version, names in overview.envoys.items() if _minor(version) not in proven)


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _rollout_rows(rollouts: Collection[RolloutView]) -> RolloutRows:
    ordered = sorted(rollouts, key=lambda each: (_WORST_FIRST.index(each.state), each.node_cluster, each.share))
    waiting = Counter(each.revision for each in ordered)
    paused = Counter(each.revision for each in ordered if each.state == "paused")
    groups = [RolloutGroup(number, waiting[number], paused[number]) for number in sorted(waiting, reverse=True)]
    return RolloutRows(ordered[:_MAX_ROLLOUTS], groups, len(ordered))


def _states(rollouts: Collection[RolloutView]) -> dict[str, str]:
    """Return the worst state of the roll-outs of each node.cluster."""
    states: dict[str, str] = {}
    for rollout in rollouts:
        state = states.get(rollout.node_cluster, "waiting")
        states[rollout.node_cluster] = min(state, rollout.state, key=_WORST_FIRST.index)
    return states


def _served_row(node: ServedNode, states: Mapping[str, str] | None) -> ServedRow:
    return ServedRow(
        node.cluster,
        newest_version(node.sets),
        {kind: len(node.sets[kind].resources) if kind in node.sets else 0 for kind in KINDS},
        node.share,
        "unknown" if states is None else states.get(node.cluster, "done"),
    )


def newest_version(sets: ServedSets) -> str:
    """Return the newest version of some resources, as people read it."""
    return show_version(max((served.version for served in sets.values()), default=0))


def _share_of(nodes: Collection[ServedNode]) -> Share | None:
    """Return the newest revision that a share of the Envoys is served; None: there is no share."""
    parts = sorted((node for node in nodes if node.share), key=lambda node: node.cluster)
    if not parts:
        return None
    versions = [served.version for node in parts for served in node.share_sets.values()]
    names = [node.cluster for node in parts]
    return Share(revision_of(max(versions, default=0)), parts[0].share, names[:_MAX_NAMED], len(names[_MAX_NAMED:]))
