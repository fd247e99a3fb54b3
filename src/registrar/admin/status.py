"""The status document of a running registrar, for people and programs."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from registrar.checks.threshold import State
from registrar.traffic.reporter import TrafficStatus
from wire.model import Health


class CheckStatus(Struct, frozen=True):
    """The status of one check: its newest result and its age in seconds, and the number of each outcome."""

    type: str
    outcome: str
    detail: str
    seconds_ago: float | None
    counts: Mapping[str, int]


class EndpointStatus(Struct, frozen=True):
    """The status of one endpoint.

    Attributes:
        service: the name of its service.
        endpoint: ``ip:port``.
        setting: the setting that it was made from, like ``:8080``.
        incarnation: its current incarnation.
        state: its state in this process.
        published: the status that the registry last granted; None before the first grant and after the deregistration.
        detail: the detail of the check that decided the state.
        accepted: whether the registry ever stored a heartbeat of it.
        fenced: whether another owner has it, and this process sends no more heartbeats for it.
        problem: the refusal of its heartbeats, or None.
        suppressed: recoveries that flap damping delayed.
        transitions: how often each state was entered.
        checks: its checks, in the order of the settings.
    """

    service: str
    endpoint: str
    setting: str
    incarnation: int
    state: State
    published: Health | None
    detail: str
    accepted: bool
    fenced: bool
    problem: str | None
    suppressed: int
    transitions: Mapping[str, int]
    checks: Sequence[CheckStatus]


class RegistryStatus(Struct, frozen=True):
    """The status of the heartbeats.

    Attributes:
        url: the registry that gets the next request.
        away: the error of the newest attempt, or None after a response.
        seconds_since_acknowledged: seconds since the last stored heartbeat; None before the first.
        sent: requests sent.
        failed: requests whose response did not have a grant or a problem for each endpoint.
        refused: whether ``away`` is the refusal of a registry that answers.
    """

    url: str
    away: str | None
    seconds_since_acknowledged: float | None
    sent: int
    failed: int
    refused: bool = False


class EnvoyTokenStatus(Struct, frozen=True):
    """The status of the file with the token of the Envoy beside this process.

    Attributes:
        file: its path.
        seconds_since_written: seconds since the last write; None before the first.
        seconds_left: seconds until the token in it ends, negative after that; None without a token, or without an end.
        failures: writes that failed.
        problem: why the newest write failed, or None.
    """

    file: str
    seconds_since_written: float | None
    seconds_left: float | None
    failures: int
    problem: str | None


class CredentialStatus(Struct, frozen=True):
    """The status of the credential that requests carry; no token is in it.

    Attributes:
        kind: ``none``, ``token``, ``token_file`` or ``aws``.
        principal: the registry's name for this process, where it logged in.
        seconds_left: seconds until the session ends, negative after that; None without a session.
        failure: ``impossible``, ``unavailable`` or ``refused`` if the newest login failed, ``unusable`` for a token
            file, or None.
        reason: the words of the failure, or None.
        attempts: logins and renewals so far, by result.
        envoy: the token of the Envoy, if this process writes it.
    """

    kind: str
    principal: str | None = None
    seconds_left: float | None = None
    failure: str | None = None
    reason: str | None = None
    attempts: Mapping[str, int] = {}
    envoy: EnvoyTokenStatus | None = None


class EdgeNameStatus(Struct, frozen=True):
    """The content that the edge holds of one name.

    Attributes:
        kind: the type of its resources, as the path of their polls has it.
        name: the name; ``*`` for all of a node.
        version: the registry's version of it; empty without content.
        source: ``registry``, ``disk``, ``fallback`` or ``nowhere``.
        age: seconds since the registry last vouched for it; None without content of a registry.
        bytes: size of the content.
        envoys: Envoys that poll for it.
        refused: whether the registry said that this process may not discover it.
    """

    kind: str
    name: str
    version: str
    source: str
    age: float | None
    bytes: int
    envoys: int
    refused: bool


class EdgeStatus(Struct, frozen=True):
    """The status of the discovery cache of the Envoys beside this process.

    Attributes:
        listen: where Envoys poll it.
        refused: whether registries answer and refuse it, or an answer is too long, so that Envoys poll them directly.
        full: whether it turns polls away for want of room, so that Envoys poll registries directly.
        away: why no registry answers, why each one refuses, or whose answer is too long; else None.
        seconds_since_answered: seconds since the newest answer; None before the first.
        age: seconds since the registry last vouched for the oldest content; None without content.
        polls: answered polls, by status.
        held_polls: polls that wait for an answer.
        connections: open connections of Envoys.
        questions: questions to registries, by what became of them.
        names: what is held.
        directory: where it is on disk; None for nowhere.
        bad_files: files that were not used because they are not what was written.
        write_failures: writes that failed.
        disk_problem: why a name is not written, or None.
        fallback_problem: why the object of a name at the fallback is not used, or None.
    """

    listen: str
    refused: bool
    full: bool
    away: str | None
    seconds_since_answered: float | None
    age: float | None
    polls: Mapping[str, int]
    held_polls: int
    connections: int
    questions: Mapping[str, int]
    names: Sequence[EdgeNameStatus]
    directory: str | None
    bad_files: int
    write_failures: int
    disk_problem: str | None
    fallback_problem: str | None


class ReloadStatus(Struct, frozen=True):
    """The number of reloads that were applied and rejected, and the error of the newest one."""

    applied: int
    rejected: int
    fault: str | None


class RegistrarStatus(Struct, frozen=True):
    """The status of the whole process at one moment.

    Attributes:
        instance_id: the id of the instance that owns the endpoints.
        seconds_up: seconds since the start.
        healthy: whether ``registrar healthcheck`` passes.
        ready: whether every endpoint is registered and in rotation, as far as this process knows.
        drain: ``serving``, ``draining``, ``drained``, or ``refused`` if the registry refused the drain.
        registry: the heartbeats.
        reloads: the reloads of the settings.
        endpoints: the endpoints, in the order of the settings.
        credential: the credential of the requests.
        traffic: the digests of Envoy's statistics; None where none are sent.
        edge: the discovery cache of the Envoys beside this process; None where there is none.
    """

    instance_id: str
    seconds_up: float
    healthy: bool
    ready: bool
    drain: str
    registry: RegistryStatus
    reloads: ReloadStatus
    endpoints: Sequence[EndpointStatus]
    credential: CredentialStatus = CredentialStatus("none")
    traffic: TrafficStatus | None = None
    edge: EdgeStatus | None = None


def envoy_warning(status: RegistrarStatus) -> str:
    """Return what an Envoy that starts now would lack; empty if it lacks nothing."""
    envoy = status.credential.envoy
    if envoy is None:
        return ""
    if envoy.seconds_since_written is None:
        reason = envoy.problem or status.credential.reason or "no login has ended yet"
        return f"Envoy has no token: {reason}"
    if envoy.seconds_left is not None and envoy.seconds_left <= 0:
        return f"Envoy's token ended {-envoy.seconds_left:.0f}s ago: one that starts now gets no endpoints"
    return f"Envoy's newest token is not written: {envoy.problem}" if envoy.problem else ""


def startup_wait(status: RegistrarStatus) -> str:
    """Return what ``registrar healthcheck`` still waits for, while it has never passed."""
    refused = next(
        (f"{item.service} {item.endpoint} is refused: {item.problem}" for item in status.endpoints if item.problem), ""
    )
    if refused or status.registry.refused:
        return refused or f"the registry refuses: {status.registry.away}"
    waiting = next((item for item in status.endpoints if not ready(item.state)), None)
    if waiting is not None:
        return f"{waiting.service} {waiting.endpoint} is {waiting.state}: {waiting.detail or 'no check has ended yet'}"
    if not any(item.accepted for item in status.endpoints):
        return f"waiting for the first registration{f': {status.registry.away}' if status.registry.away else ''}"
    envoy = envoy_warning(status)
    return f"registered; {envoy or 'waiting until Envoys have received it'}"


def in_service(endpoint: EndpointStatus) -> bool:
    """Tell whether an endpoint is registered and in rotation, as far as this process knows."""
    return endpoint.accepted and not endpoint.fenced and ready(endpoint.state)


def ready(state: str) -> bool:
    """Tell whether an endpoint in that state is in rotation."""
    return state in (State.HEALTHY, State.DEGRADED)
