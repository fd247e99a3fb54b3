"""The status document, built from the parts of the running registrar."""

import math
from collections.abc import Iterable

from registrar.admin.status import (
    CheckStatus,
    CredentialStatus,
    EdgeNameStatus,
    EdgeStatus,
    EndpointStatus,
    EnvoyTokenStatus,
    RegistryStatus,
)
from registrar.credentials.credentials import Credentials
from registrar.credentials.envoy_token import EnvoyTokenFile
from registrar.edge.server import EdgeServer
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.monitor import Monitor, MonitoredCheck
from registrar.heartbeat.agent import HeartbeatAgent


def registry_status(agent: HeartbeatAgent, now: float) -> RegistryStatus:
    """Return the status of the heartbeats."""
    since = None if agent.acknowledged is None else round(now - agent.acknowledged, 3)
    return RegistryStatus(agent.registry, agent.away, since, agent.sent, agent.failed, agent.refused)


def credential_status(credentials: Credentials | None, now: float) -> CredentialStatus:
    """Return the status of the credential of the requests."""
    if credentials is None:
        return CredentialStatus("none")
    envoy = None if credentials.envoy is None else _envoy_status(credentials.envoy, now)
    login, token = credentials.login, credentials.token
    if login is None:
        failure = "unusable" if token.problem else None
        return CredentialStatus(token.kind, failure=failure, reason=token.problem or None, envoy=envoy)
    session, failed = login.session, login.failure
    return CredentialStatus(
        "aws",
        principal=session.principal if session else None,
        seconds_left=round(session.registrar.ends_at - now, 3) if session else None,
        failure=str(failed.kind) if failed else None,
        reason=failed.reason if failed else None,
        attempts=dict(login.counts),
        envoy=envoy,
    )


def _envoy_status(file: EnvoyTokenFile, now: float) -> EnvoyTokenStatus:
    since = None if file.written_at is None else round(now - file.written_at, 3)
    ends = math.inf if file.written is None else file.written.ends_at
    left = round(ends - now, 3) if math.isfinite(ends) else None
    return EnvoyTokenStatus(str(file.path), since, left, file.failures, file.problem or None)


def edge_status(server: EdgeServer, now: float) -> EdgeStatus:
    """Return the status of the edge."""
    edge, askers, disk = server.edge, server.edge.askers, server.edge.disk
    progress = askers.progress
    since = None if progress.answered_at is None else round(now - progress.answered_at, 3)
    age = edge.age(now)
    return EdgeStatus(
        listen=str(server.address),
        refused=edge.refused,
        full=edge.full,
        away=askers.away,
        seconds_since_answered=since,
        age=None if age is None else round(age, 3),
        polls={str(status): count for status, count in edge.held_polls.answered.items()},
        held_polls=len(edge.held_polls),
        connections=len(server.connections),
        questions={
            "answered": progress.questions - progress.failed - progress.refused,
            "failed": progress.failed,
            "refused": progress.refused,
        },
        names=[
            EdgeNameStatus(
                kind=entry.polled.kind,
                name=entry.name,
                version=entry.token,
                source=entry.source,
                age=None if entry.answered_at is None else round(max(0.0, now - entry.answered_at), 3),
                bytes=len(entry.resources),
                envoys=len(entry.subscriptions),
                refused=askers.is_refused(entry),
            )
            for entry in edge.entries.values()
        ],
        directory=None if disk is None else str(disk.directory),
        bad_files=0 if disk is None else disk.bad_files,
        write_failures=0 if disk is None else disk.failures,
        disk_problem=None if disk is None else disk.problem,
        fallback_problem=None if edge.fallback is None else edge.fallback.problem,
    )


def endpoint_status(monitor: Monitor, now: float) -> EndpointStatus:
    """Return the status of one endpoint and its checks."""
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
        checks=[_check_status(check, now) for check in monitor.checks],
    )


def instance_id_of(endpoints: Iterable[Endpoint]) -> str:
    """Return the id of the instance that owns the endpoints of the process; empty without endpoints."""
    return next((endpoint.identity.instance_id for endpoint in endpoints), "")


def _check_status(check: MonitoredCheck, now: float) -> CheckStatus:
    counts = {str(outcome): count for outcome, count in check.counts.items()}
    if check.last is None:
        return CheckStatus(check.kind, "none yet", "", None, counts)
    at, result = check.last
    return CheckStatus(check.kind, result.outcome, result.detail, round(now - at, 3), counts)
