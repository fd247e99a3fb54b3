"""The roll-outs that are under way, as they are stored, and as people look at them. No I/O."""

from collections.abc import Collection, Iterable
from typing import Annotated

from msgspec import Meta, Struct

from meshconfig.phases import Laggard, Phase, Rollout

MAX_LAGGARDS = 50
"""Subscribers that a stored roll-out names; of the others only the number is given."""

RolloutKey = tuple[str, float]
"""A node.cluster, and the share of its Envoys; 0 for all that are in no share."""


class Pause(Struct, frozen=True):
    """The order of an operator that a roll-out goes no further.

    Attributes:
        by: who gave it.
        reason: why.
        at: when, by the database's clock.
    """

    by: str
    reason: str
    at: float


class RolloutState(Struct, frozen=True, gc=False):
    """The state of one roll-out, as it is stored; every process can go on from it.

    Attributes:
        rollout: how far it has come.
        serial: the number of the change that has written what is served now.
        phases: the phases that it has to go through from its beginning, the last one included.
        reason: why the phase has not ended, as a sentence.
        deadline: the seconds of `rollout.waited` after which the phase ends in any case; None: a subscriber refuses.
        laggards: the subscribers that have not shown the phase, at most `MAX_LAGGARDS`.
        lagging: how many they are.
        left_behind: the subscribers that had not shown an earlier phase when it ended.
        paused: the order to go no further; None: there is none.
    """

    rollout: Rollout
    serial: int
    phases: tuple[Phase, ...] = ()
    reason: str = ""
    deadline: float | None = None
    laggards: tuple[Laggard, ...] = ()
    lagging: int = 0
    left_behind: tuple[Laggard, ...] = ()
    paused: Pause | None = None

    @property
    def refused(self) -> bool:
        """Whether it stands still because a subscriber refuses."""
        return self.paused is None and any(laggard.refuses for laggard in self.laggards)


class NodeRollout(Struct, frozen=True, gc=False):
    """The roll-out of one node.cluster.

    Attributes:
        node_cluster: the node.cluster.
        share: the percentage of its node ids that it is for; 0: all that are in no share.
        revision: the revision that is wanted.
        since: when its phase began, by the database's clock.
        state: its state; None: it cannot be read.
    """

    node_cluster: str
    share: float
    revision: int
    since: float
    state: RolloutState | None

    @property
    def key(self) -> RolloutKey:
        """Its node.cluster and share."""
        return (self.node_cluster, self.share)


class LaggardView(Struct, frozen=True):
    """An Envoy that has not followed."""

    node_id: str
    address: str
    kind: Annotated[str, Meta(description="What it has not shown: clusters, listeners, routes or endpoints.")]
    name: Annotated[str, Meta(description="The route configuration or service.")]
    reason: str
    refuses: Annotated[bool, Meta(description="It refuses what it was sent, which stops the roll-out.")]


class RolloutView(Struct, frozen=True):
    """How far one node.cluster, or the share of its Envoys, has come."""

    node_cluster: str
    share: Annotated[float, Meta(description="Percentage of its node ids; 0: all that are in no share.")]
    revision: int
    step: Annotated[int, Meta(description="1: clusters added; 2: routes switched; 3: done.")]
    steps: Annotated[list[int], Meta(description="The steps that it goes through.")]
    since: Annotated[float, Meta(description="When this step began, in seconds since 1970.")]
    waited: Annotated[float, Meta(description="Seconds for which subscribers were looked at in this step.")]
    deadline: Annotated[float | None, Meta(description="Seconds after which the step ends; null: not while refused.")]
    state: Annotated[str, Meta(description="waiting, refused, paused or unreadable.")]
    reason: str
    awaited: list[LaggardView]
    awaited_count: int
    left_behind: Annotated[list[LaggardView], Meta(description="Envoys that had not followed an earlier step.")]
    paused_by: str
    paused_reason: str
    paused_at: Annotated[float | None, Meta(description="When it was paused, in seconds since 1970; null: it is not.")]


def view_of(rollout: NodeRollout) -> RolloutView:
    """Return a roll-out as people look at it."""
    state = rollout.state
    if state is None:
        reason = "its row cannot be read; the log of the process that sweeps says why"
        return RolloutView(
            *(rollout.node_cluster, rollout.share, rollout.revision, 0, [], rollout.since, 0.0, None),
            *("unreadable", reason, [], 0, [], "", "", None),
        )
    condition = "paused" if state.paused else "refused" if state.refused else "waiting"
    return RolloutView(
        node_cluster=rollout.node_cluster,
        share=rollout.share,
        revision=rollout.revision,
        step=int(state.rollout.phase),
        steps=[int(phase) for phase in state.phases],
        since=rollout.since,
        waited=round(state.rollout.waited, 1),
        deadline=state.deadline,
        state=condition,
        reason=f"paused by {state.paused.by}: {state.paused.reason}" if state.paused else state.reason,
        awaited=[_laggard(laggard) for laggard in state.laggards],
        awaited_count=state.lagging,
        left_behind=[_laggard(laggard) for laggard in state.left_behind],
        paused_by=state.paused.by if state.paused else "",
        paused_reason=state.paused.reason if state.paused else "",
        paused_at=state.paused.at if state.paused else None,
    )


def _laggard(laggard: Laggard) -> LaggardView:
    return LaggardView(*(getattr(laggard, name) for name in LaggardView.__struct_fields__))


def held_nodes(shares: Collection[str], rollouts: Iterable[NodeRollout]) -> frozenset[str]:
    """Return the node.clusters that are served nothing new, because an operator has said so.

    Args:
        shares: the node.clusters that have a share of Envoys which is served another revision.
        rollouts: all roll-outs that are under way.
    """
    paused = (row.node_cluster for row in rollouts if row.state is not None and row.state.paused is not None)
    return frozenset(paused).union(shares)
