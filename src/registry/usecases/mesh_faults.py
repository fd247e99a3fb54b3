"""Faults of a change of the mesh configuration, beside those of its definitions."""

from collections.abc import Collection, Iterable

from meshconfig.position import Fault, Position, Severity
from registry.core.mesh_fleet import MeshFleet, Poller
from registry.core.mesh_gateways import RefusedGateway
from registry.core.rollout import NodeRollout, Pause

_MAX_NAMED = 5
"""Envoys that a sentence names."""


def removal_fault(node: str, fleet: MeshFleet) -> Fault:
    """Return that a definition is gone for which Envoys poll, or may do so."""
    pollers = sorted(fleet.pollers.get(node, ()))
    if pollers:
        named = ", ".join(_poller(poller) for poller in pollers[:_MAX_NAMED])
        more = f" and {len(pollers) - _MAX_NAMED} more" if len(pollers) > _MAX_NAMED else ""
        message = f"The definition of {node} is gone, and Envoys poll for it: {named}{more}. They would lose all of it."
    else:
        message = (
            f"The definition of {node} is gone, and it is not certain that no Envoy polls for it: a registry has "
            "started lately, or had no room to remember all that poll."
        )
        fix = f"Apply again in a minute, or with --allow-removal {node}."
        return Fault(Position("mesh.yaml"), message, fix)
    return Fault(Position("mesh.yaml"), message, f"Stop these Envoys first, or apply with --allow-removal {node}.")


def outdated_fault(refused: RefusedGateway) -> Fault:
    """Return that a rollback serves a gateway, or a service of it, as its revision did."""
    if refused.service:
        message = f"The gateway {refused.gateway} serves {refused.service} as it did then, or not: {refused.reason}"
        fix = f"Change what {refused.service} registers; registryctl check says when that is over."
    else:
        whose = (
            f"The gateway {refused.gateway} is served as it was"
            if refused.gateway
            else "Gateways are served as they were"
        )
        message = f"{whose} compiled for the services of then, because that cannot be done anew: {refused.reason}"
        fix = "Services that are new since are not reached through it; registryctl check says when that is over."
    return Fault(Position("mesh.yaml"), message, fix, Severity.WARNING)


def pause_fault(rollout: NodeRollout, pause: Pause) -> Fault:
    """Return that a change takes the place of a paused roll-out, so that nothing holds it any more."""
    message = (
        f"The roll-out of revision {rollout.revision} to {rollout.node_cluster} is paused by {pause.by}:"
        f" {pause.reason}. This revision has what that one has, takes its place, and goes on."
    )
    fix = "Take out what it was paused for, or pause this revision as well: registryctl mesh pause."
    return Fault(Position("mesh.yaml"), message, fix, Severity.WARNING)


def pause_faults(rollouts: Iterable[NodeRollout], nodes: Collection[str]) -> list[Fault]:
    """Return warnings of the paused roll-outs whose place a change of these node.clusters takes."""
    return [
        pause_fault(row, row.state.paused)
        for row in rollouts
        if row.node_cluster in nodes and row.state is not None and row.state.paused is not None
    ]


def _poller(poller: Poller) -> str:
    return f"{poller.node_id or 'one without a node id'} at {poller.address}"


def unproven_fault(reason: str, fix: str) -> Fault:
    """Return that no Envoy has accepted what is to be served."""
    return Fault(Position("mesh.yaml"), f"It is not proven. {reason}", fix)
