"""The status document of a running registrar, for people and programs."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from registrar.checks.threshold import State
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
    """

    instance_id: str
    seconds_up: float
    healthy: bool
    ready: bool
    drain: str
    registry: RegistryStatus
    reloads: ReloadStatus
    endpoints: Sequence[EndpointStatus]


def in_service(endpoint: EndpointStatus) -> bool:
    """Tell whether an endpoint is registered and in rotation, as far as this process knows."""
    return endpoint.accepted and not endpoint.fenced and ready(endpoint.state)


def ready(state: str) -> bool:
    """Tell whether an endpoint in that state is in rotation."""
    return state in (State.HEALTHY, State.DEGRADED)
