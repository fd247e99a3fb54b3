"""Rules about the mesh configuration: whether its Envoys follow it, and whether what they get was proven."""

from registry.core.rollout import NodeRollout, RolloutState
from registry.core.verdict.facts import AWAY, Facts
from registry.core.verdict.finding import Conclusion, Rule, about_caller, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus, Line, counted

_SLOW_AFTER = 60.0
"""Seconds of one step after which the Envoys that it waits for are a trouble."""


def _readable(facts: Facts) -> Conclusion:
    if facts.mesh is None:
        return skip(AWAY)
    spoilt = [about_caller(row.node_cluster, row.node_cluster) for row in facts.mesh.rollouts if row.state is None]
    return conclude(
        counted(len(spoilt), "roll-out cannot be read", "roll-outs cannot be read"),
        spoilt,
        fact=f"{counted(len(facts.mesh.rollouts), 'roll-out is', 'roll-outs are')} under way",
    )


def _taken(facts: Facts) -> Conclusion:
    if facts.mesh is None:
        return skip(AWAY)
    refused = [
        about_caller(row.node_cluster, f"{_name(row)}, step {int(state.rollout.phase)}: {state.reason}")
        for row, state in _states(facts)
        if state.refused
    ]
    return conclude(
        counted(len(refused), "roll-out stops: an Envoy refuses it", "roll-outs stop: Envoys refuse them"), refused
    )


def _followed(facts: Facts) -> Conclusion:
    """Check for steps that take long, and for Envoys that were left behind."""
    if facts.mesh is None:
        return skip(AWAY)
    lines = []
    for row, state in _states(facts):
        if state.paused is not None:
            since = ago(max(0.0, facts.now - state.paused.at))
            by = f"paused {since} ago by {state.paused.by}: {state.paused.reason}"
            lines.append(about_caller(row.node_cluster, f"{_name(row)}, step {int(state.rollout.phase)}: {by}"))
        elif not state.refused and state.rollout.waited >= _SLOW_AFTER:
            waited = f"{state.rollout.waited:.0f} s in step {int(state.rollout.phase)}"
            lines.append(about_caller(row.node_cluster, f"{_name(row)}, {waited}: {state.reason}"))
        lines += [
            about_caller(
                row.node_cluster,
                f"{_name(row)}: {each.node_id or 'an Envoy without a node id'} at {each.address} did not follow an"
                f" earlier step: {each.reason}",
            )
            for each in state.left_behind
        ]
    headline = counted(len(lines), "trouble with roll-outs", "troubles with roll-outs")
    return conclude(headline, lines, status=FindingStatus.WARNING)


def _proven(facts: Facts) -> Conclusion:
    if facts.mesh is None:
        return skip(AWAY)
    mesh = facts.mesh
    lines: list[Line | str] = []
    if mesh.unproven:
        lines.append(f"revision {mesh.revision} was applied unproven: an Envoy may refuse it")
    lines += [
        about_caller(
            gateway,
            f"gateway {gateway}, revision {mesh.revision}: it was compiled again for other services by a registry that"
            " has no Envoy",
        )
        for gateway in mesh.gateways.unproven
    ]
    return conclude("no Envoy has proven what is served", lines, status=FindingStatus.WARNING)


def _gateways(facts: Facts) -> Conclusion:
    if facts.mesh is None:
        return skip(AWAY)
    lines = [
        about_caller(each.gateway, f"{each.subject}, for {ago(max(0.0, facts.now - each.since))}: {each.reason}")
        if each.gateway
        else f"{each.subject}, for {ago(max(0.0, facts.now - each.since))}: {each.reason}"
        for each in facts.mesh.gateways.refusals
    ]
    return conclude("gateways do not follow the services that are registered", lines)


def _versions_proven(facts: Facts) -> Conclusion:
    if facts.mesh is None:
        return skip(AWAY)
    mesh = facts.mesh
    if not mesh.revision or mesh.unproven:
        return conclude("", [])
    proven = {_minor(version) for version in mesh.proven_by}
    lines = [
        f"Envoy {version}, of {', '.join(clusters[:3])}{f' and {len(clusters) - 3} more' if len(clusters) > 3 else ''};"
        f" revision {mesh.revision} is proven by {', '.join(mesh.proven_by) or 'none'}"
        for version, clusters in sorted(mesh.envoys.items())
        if _minor(version) not in proven
    ]
    headline = counted(
        len(lines), "version of Envoy is covered by no proof", "versions of Envoy are covered by no proof"
    )
    return conclude(headline, lines, status=FindingStatus.WARNING)


def _states(facts: Facts) -> list[tuple[NodeRollout, RolloutState]]:
    return [(row, row.state) for row in facts.mesh.rollouts if row.state is not None] if facts.mesh else []


def _name(row: NodeRollout) -> str:
    share = f", {row.share:g} % of its Envoys" if row.share else ""
    return f"{row.node_cluster}{share}, revision {row.revision}"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


RULES = (
    Rule("mesh-readable", "every roll-out can be read", _readable, page="/ui/mesh"),
    Rule("mesh-taken", "no Envoy refuses a revision that is being rolled out", _taken, page="/ui/mesh"),
    Rule("mesh-followed", "every roll-out goes on, and no Envoy was left behind", _followed, page="/ui/mesh"),
    Rule("mesh-gateways", "gateways follow the services that are registered", _gateways, page="/ui/mesh"),
    Rule("mesh-proven", "what is served was proven by an Envoy", _proven, page="/ui/mesh"),
    Rule(
        "mesh-envoys-proven",
        "a proof covers every version of Envoy that polled within a day",
        _versions_proven,
        page="/ui/mesh",
    ),
)
