"""From the parts of a running registrar to the document that describes it."""

from collections.abc import Iterable

from registrar.admin.status import CheckStatus, EndpointStatus, RegistryStatus
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.monitor import Monitor, MonitoredCheck
from registrar.heartbeat.agent import HeartbeatAgent


def registry_status(agent: HeartbeatAgent, now: float) -> RegistryStatus:
    """Return how the heartbeats fare."""
    since = None if agent.acknowledged is None else round(now - agent.acknowledged, 3)
    return RegistryStatus(agent.registry, agent.away, since, agent.sent, agent.failed)


def endpoint_status(monitor: Monitor, now: float) -> EndpointStatus:
    """Return one endpoint with its checks."""
    monitor.count_transition()
    endpoint, lease = monitor.endpoint, monitor.endpoint.lease
    problem = None if lease.problem is None else f"{lease.problem.status} {lease.problem.title}: {lease.problem.detail}"
    return EndpointStatus(
        service=endpoint.service.service,
        endpoint=endpoint.name,
        setting=str(endpoint.service.endpoint),
        incarnation=lease.incarnation,
        state=endpoint.state,
        published=lease.grant.status if lease.grant and not endpoint.retired else None,
        detail=endpoint.detail,
        accepted=lease.accepted,
        fenced=lease.fenced,
        problem=problem,
        suppressed=endpoint.suppressed,
        transitions={str(state): count for state, count in monitor.transitions.items()},
        checks=[_of_probe(probe, now) for probe in monitor.checks],
    )


def instance_id_of(endpoints: Iterable[Endpoint]) -> str:
    """Return the one instance that owns all endpoints of a process."""
    return next((endpoint.identity.instance_id for endpoint in endpoints), "")


def _of_probe(probe: MonitoredCheck, now: float) -> CheckStatus:
    counts = {str(outcome): count for outcome, count in probe.counts.items()}
    if probe.last is None:
        return CheckStatus(probe.kind, "none yet", "", None, counts)
    at, result = probe.last
    return CheckStatus(probe.kind, result.outcome, result.detail, round(now - at, 3), counts)
