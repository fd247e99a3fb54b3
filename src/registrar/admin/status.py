"""What a running registrar tells of itself, as a document for people and programs."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from registrar.checks.threshold import State
from wire.model import Health


class CheckStatus(Struct, frozen=True):
    """One check: what it found last, how many seconds ago, and how often each outcome came."""

    type: str
    outcome: str
    detail: str
    seconds_ago: float | None
    counts: Mapping[str, int]


class EndpointStatus(Struct, frozen=True):
    """One endpoint.

    Attributes:
        service: its service.
        endpoint: ``ip:port``.
        setting: what it was made from, like ``:8080``.
        incarnation: of which start.
        state: what this process knows.
        published: what the registry last said that it publishes; None before its first answer, and when it is over.
        detail: what the check that decided said.
        accepted: whether a heartbeat of it was ever stored.
        fenced: whether somebody newer owns it, and this process is silent for good.
        problem: why the registry refuses it, or None.
        suppressed: recoveries that flap damping held back.
        transitions: how often each state was entered.
        checks: its checks, in the order of its settings.
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
    """The heartbeats: where they go, and how they fare.

    Attributes:
        url: the registry that is asked now.
        away: why the last attempt failed, or None when it was answered.
        seconds_since_acknowledged: since the last stored heartbeat; None before the first.
        sent: requests that left.
        failed: those of them that were not answered with a grant or a problem for each endpoint.
    """

    url: str
    away: str | None
    seconds_since_acknowledged: float | None
    sent: int
    failed: int


class ReloadStatus(Struct, frozen=True):
    """How often SIGHUP was followed, and how often the old settings stayed."""

    applied: int
    rejected: int
    fault: str | None


class RegistrarStatus(Struct, frozen=True):
    """Everything at one moment.

    Attributes:
        instance_id: who owns the endpoints.
        seconds_up: since the start.
        healthy: what ``registrar healthcheck`` answers.
        ready: whether every endpoint is registered and in rotation as far as this process is concerned.
        drain: ``serving``, ``draining``, ``drained``, or ``refused`` when the registry would not have it.
        registry: the heartbeats.
        reloads: what became of SIGHUPs.
        endpoints: in the order of the settings.
    """

    instance_id: str
    seconds_up: float
    healthy: bool
    ready: bool
    drain: str
    registry: RegistryStatus
    reloads: ReloadStatus
    endpoints: Sequence[EndpointStatus]


def ready(state: str) -> bool:
    """Tell whether an endpoint in that state may have traffic."""
    return state in (State.HEALTHY, State.DEGRADED)
