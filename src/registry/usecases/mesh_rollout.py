"""The roll-outs of the mesh configuration: how far they are, and an operator's orders to them."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.grants import Reach
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.mesh_feed import MeshFeed
from registry.core.mesh_gateways import GatewayStatus
from registry.core.rollout import NodeRollout, Pause
from registry.errors import InvalidError, UnavailableError
from registry.rollout import switching
from registry.store import mesh as store
from registry.store import mesh_gateways, mesh_subscribers, rollouts
from registry.store.database import Database, Session, read_clock
from registry.store.mesh import MeshState
from registry.store.rollouts import RolloutEvent
from registry.usecases.audit import Audit

_NUMBER = "$.number"
_WHOLE_SHARE = 100.0

Order = Callable[[Session, MeshState], Awaitable[list[str]]]
"""Carries an order out, and returns the node.clusters that it concerns."""


class RolloutOverview(Struct, frozen=True):
    """Everything that is being rolled out, as far as the reader may read it.

    Attributes:
        revision: the newest revision; 0: there is none.
        unproven: whether nobody has proven it.
        proven_by: the versions of Envoy that have accepted it.
        shares: the node.clusters of which a share of the Envoys is served something else, with the percentage.
        rollouts: the roll-outs that are under way.
        envoys: the versions of Envoy that polled within a day, with the node.clusters of each.
        gateways: the gateways that were compiled again, and what of that was refused.
    """

    revision: int
    unproven: bool
    proven_by: Sequence[str]
    shares: Mapping[str, float]
    rollouts: Sequence[NodeRollout]
    envoys: Mapping[str, Sequence[str]]
    gateways: GatewayStatus = GatewayStatus()


def readable(overview: RolloutOverview, reach: Reach) -> RolloutOverview:
    """Return the part of an overview that a principal may read."""
    envoys = {
        version: [cluster for cluster in clusters if reach.covers(cluster)]
        for version, clusters in overview.envoys.items()
    }
    return replace(
        overview,
        shares={node: share for node, share in overview.shares.items() if reach.covers(node)},
        rollouts=[row for row in overview.rollouts if reach.covers(row.node_cluster)],
        envoys={version: clusters for version, clusters in envoys.items() if clusters},
        gateways=readable_gateways(overview.gateways, reach),
    )


def readable_gateways(gateways: GatewayStatus, reach: Reach) -> GatewayStatus:
    """Return what a principal may read of gateways; the refusal of all of them may quote any file."""
    recompiled = [each for each in gateways.recompiled if reach.covers(each.node_cluster)]
    refusals = [each for each in gateways.refusals if reach.everything or (each.gateway and reach.covers(each.gateway))]
    return GatewayStatus(recompiled, refusals)


class MeshRollouts:
    """Shows the roll-outs, and promotes, pauses and resumes them.

    Args:
        policy: decides who may read and configure.
        database: where they are.
        feed: reads at once what was stored.
        audit: notes who ordered what and why.
    """

    def __init__(self, policy: Policy, database: Database, feed: MeshFeed, audit: Audit) -> None:
        self._policy = policy
        self._database = database
        self._feed = feed
        self._audit = audit

    async def overview(self, principal: Principal, service: str | None = None) -> RolloutOverview:
        """Return how far the roll-outs are that a principal may read, of one service or of all.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.READ, service or "")
        try:
            under_way = await self.read()
        except UnavailableError as error:
            message = f"{error}. Roll-outs wait where they are until it answers, and Envoys keep what they are served"
            raise UnavailableError(message, error.retry_after, cause=error.cause) from None
        overview = readable(under_way, self._policy.reach(principal, Verb.READ))
        if service is None:
            return overview
        return replace(overview, rollouts=[row for row in overview.rollouts if row.node_cluster == service])

    async def read(self) -> RolloutOverview:
        """Return how far all roll-outs are.

        Raises:
            UnavailableError: PostgreSQL is away.
        """
        async with self._database.session() as connection:
            newest = await store.find_revision(connection, await store.newest(connection))
            under_way = await rollouts.read(connection)
            shares = await rollouts.shares(connection)
            envoys = await mesh_subscribers.read_envoys(connection)
            gateways = GatewayStatus() if newest is None else await mesh_gateways.read(connection, newest.number)
        proof = {} if newest is None else newest.proof
        return RolloutOverview(
            0 if newest is None else newest.number,
            newest is not None and proof.get("by") == "nobody",
            tuple(str(each) for each in proof.get("envoy", ())),
            shares,
            under_way,
            envoys,
            gateways,
        )

    async def promote(self, principal: Principal, number: int, reason: str) -> list[str]:
        """Roll the revision of a share out to all Envoys; return the node.clusters that this concerns.

        Raises:
            InvalidError: it is not the newest revision, or no share has it.
        """

        async def carry_out(connection: Session, state: MeshState) -> list[str]:
            newest = await store.find_revision(connection, await store.newest(connection))
            if newest is None or newest.number != number:
                in_force = 0 if newest is None else newest.number
                raise InvalidError(f"revision {number} cannot be promoted: {in_force} is the newest one", _NUMBER)
            shared = await rollouts.shares(connection)
            if newest.share >= _WHOLE_SHARE or not shared:
                raise InvalidError(f"revision {number} is no share's any more: all Envoys are served it", _NUMBER)
            self._check_reach(principal, shared)
            return await switching.promote(connection, state, number)

        return await self._order(principal, "mesh_promoted", number, reason, carry_out)

    async def pause(self, principal: Principal, number: int, reason: str) -> list[str]:
        """Let the roll-out of a revision go no further; return the node.clusters that this concerns.

        Raises:
            InvalidError: nothing of it is being rolled out.
        """

        async def carry_out(connection: Session, _state: MeshState) -> list[str]:
            await self._check_under_way(connection, principal, number)
            order = Pause(principal.name, reason, await read_clock(connection))
            return await switching.pause(connection, number, order)

        return await self._order(principal, "mesh_paused", number, reason, carry_out)

    async def resume(self, principal: Principal, number: int, reason: str) -> list[str]:
        """Let a paused roll-out go on; return the node.clusters that this concerns.

        Raises:
            InvalidError: nothing of it is being rolled out.
        """

        async def carry_out(connection: Session, _state: MeshState) -> list[str]:
            await self._check_under_way(connection, principal, number)
            return await switching.pause(connection, number, None)

        return await self._order(principal, "mesh_resumed", number, reason, carry_out)

    async def _check_under_way(self, connection: Session, principal: Principal, number: int) -> None:
        nodes = [row.node_cluster for row in await rollouts.read(connection) if row.revision == number]
        if not nodes:
            raise InvalidError(f"nothing of revision {number} is being rolled out", _NUMBER)
        self._check_reach(principal, nodes)

    def _check_reach(self, principal: Principal, nodes: Collection[str]) -> None:
        for node in sorted(nodes):
            self._policy.allow(principal, Verb.CONFIGURE, node)

    async def _order(self, principal: Principal, kind: str, number: int, reason: str, carry_out: Order) -> list[str]:
        reach = self._policy.reach(principal, Verb.CONFIGURE)
        # Before PostgreSQL is asked which services it concerns; each of them is decided about then.
        self._policy.allow(principal, Verb.CONFIGURE, next(iter((*reach.names, *reach.prefixes)), ""))
        words = f"revision {number}: {reason}" if reason else f"revision {number}"
        with self._audit.noting(principal, kind, Verb.CONFIGURE, reason=words):
            async with self._database.transaction() as connection:
                state = await store.lock(connection)
                nodes = await carry_out(connection, state)
                await rollouts.add_events(
                    connection, [RolloutEvent(node, kind, words, principal.name, number) for node in nodes]
                )
                await store.save(connection, state)
        await self._feed.refresh()
        return nodes
