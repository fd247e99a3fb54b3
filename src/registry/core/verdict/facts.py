"""The facts of a verdict, from memory and from PostgreSQL, as far as the principal may read them."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from registry.core.endpoint import Override
from registry.core.expiry_guard import Pause
from registry.core.mesh_gateways import GatewayStatus
from registry.core.presence import Presence
from registry.core.rollout import NodeRollout
from registry.core.silence import Silence
from registry.core.status import StateView
from registry.core.subscriber_status import ClusterSubscribers
from registry.core.traffic_failures import FailingPair


class ServiceFacts(Struct, frozen=True):
    """A service that is worth a look: it has no routable endpoint, or rows that are quarantined.

    Attributes:
        service: its name.
        statuses: the number of its endpoints in each status, as people see it.
        routable: the number of its endpoints that get traffic.
        quarantined: its rows that are left out of the answers: ``ip:port`` and the reason.
    """

    service: str
    statuses: Mapping[str, int]
    routable: int
    quarantined: Sequence[tuple[str, str]] = ()


class SilentEndpoint(Struct, frozen=True):
    """An endpoint whose lease has expired and that still gets traffic: it is silent.

    Attributes:
        service: its service.
        endpoint: its ``ip:port``.
        silence: since when it is kept, until when, and why.
    """

    service: str
    endpoint: str
    silence: Silence


class AilingEndpoint(Struct, frozen=True):
    """An endpoint whose check fails, as its registrar reports; neither drained nor silent.

    Attributes:
        service: its service.
        endpoint: its ``ip:port``.
        status: UNHEALTHY or DEGRADED.
        detail: the result of its check.
        seconds: for which it has been out of rotation; None: it is not.
    """

    service: str
    endpoint: str
    status: str
    detail: str
    seconds: float | None


class Lapse(Struct, frozen=True):
    """An endpoint whose lease has lapsed, and that gets no traffic any more.

    Attributes:
        service: its service.
        endpoint: its ``ip:port``.
        instance_id: the instance that has fallen silent.
        seconds: since its lease lapsed.
        listed: whether it is still listed; otherwise it was removed since.
    """

    service: str
    endpoint: str
    instance_id: str
    seconds: float
    listed: bool


class StrengthFacts(Struct, frozen=True):
    """A service with too few endpoints, or with lost ones.

    Attributes:
        service: its name.
        presence: its present endpoints beside the expected number, and the lost ones.
        silent: the number of its endpoints that are silent.
        expected_by: the operator that has set the expected number; empty: none has.
    """

    service: str
    presence: Presence
    silent: int = 0
    expected_by: str = ""


class SharesFacts(Struct, frozen=True):
    """A service whose shares of traffic do not do what they say.

    Attributes:
        service: its name.
        misleading: why, in words.
        actor: the operator who set the shares.
    """

    service: str
    misleading: tuple[str, ...]
    actor: str


class OldSharesFacts(Struct, frozen=True):
    """Shares of a service that no shift changes, and that were set long ago.

    Attributes:
        service: its name.
        seconds: how long ago.
        actor: the operator who set them, or who began the shift that did.
        reason: why.
    """

    service: str
    seconds: float
    actor: str
    reason: str


class ShiftFacts(Struct, frozen=True):
    """A shift of traffic that somebody has to look at.

    Attributes:
        service: its service.
        trouble: why, in words.
    """

    service: str
    trouble: str


class TrafficFacts(Struct, frozen=True):
    """The requests between services, as Envoys report them.

    Attributes:
        failing: the pairs of caller and callee that fail, those with the most failures first.
        reported: whether any pair is known.
        complete: whether the digests that other processes got are in it.
    """

    failing: Sequence[FailingPair] = ()
    reported: bool = False
    complete: bool = True


class OverrideFacts(Struct, frozen=True):
    """An operator's override that is in force.

    Attributes:
        service: the service of its endpoint.
        endpoint: the ``ip:port`` of its endpoint.
        override: what it does, by whom, since when, until when, and why.
        listed: whether the endpoint is listed; otherwise the override waits for its return.
    """

    service: str
    endpoint: str
    override: Override
    listed: bool = True


class MeshFacts(Struct, frozen=True):
    """The roll-outs of the mesh configuration, as far as the principal may read its services.

    Attributes:
        revision: the newest revision; 0: there is none.
        unproven: whether it was applied although nobody has proven it.
        proven_by: the versions of Envoy that have accepted it.
        rollouts: the roll-outs that are under way.
        envoys: the versions of Envoy that polled within a day, with the node.clusters of each.
        gateways: the gateways that were compiled again, and why that was refused.
    """

    revision: int = 0
    unproven: bool = False
    proven_by: Sequence[str] = ()
    rollouts: Sequence[NodeRollout] = ()
    envoys: Mapping[str, Sequence[str]] = {}  # msgspec copies it
    gateways: GatewayStatus = GatewayStatus()


class Facts(Struct, frozen=True):
    """Everything that the rules go by. Services that the principal may not read are not in it, nor counted.

    Attributes:
        now: the time of PostgreSQL's clock.
        state: the registry's own state, from memory and PostgreSQL.
        everything: whether the principal may read all services.
        readable: otherwise the names and prefixes of the services that it may read.
        services: the number of services.
        endpoints: the number of their endpoints.
        troubled: the services that are worth a look.
        unavailable: the services that this process cannot read, and answers with 503.
        outdated: the services that it serves as they were, because it cannot read what PostgreSQL has now.
        sizes: the number of endpoints of each service that a subscriber asks for; a service that is not in it is not
            known to the registry.
        suspects: the endpoints that are served although their lease has lapsed.
        ailing: the endpoints whose checks fail.
        lapses: the endpoints whose lease has lapsed, listed or removed lately.
        weak: the services with too few endpoints, or with lost ones.
        overrides: the overrides in force.
        misleading_shares: the services whose shares of traffic do not do what they say.
        old_shares: the shares that were set long ago, and that no shift changes.
        troubled_shifts: the shifts that somebody has to look at; None: PostgreSQL, which has them, is away.
        traffic: the requests between services; None: they could not be added up in time.
        subscribers: the Envoys that poll; None: they could not be collected in time.
        pauses: the pauses of expiry in force; None: PostgreSQL, which has them, is away.
        allowed_suspects: the number of suspects that the person who asks puts up with.
        mesh: the roll-outs of the mesh configuration; None: PostgreSQL, which has them, is away.
    """

    now: float
    state: StateView
    everything: bool = True
    readable: Sequence[str] = ()
    services: int = 0
    endpoints: int = 0
    troubled: Sequence[ServiceFacts] = ()
    unavailable: Sequence[str] = ()
    outdated: Sequence[str] = ()
    sizes: Mapping[str, int] = {}  # msgspec copies it
    suspects: Sequence[SilentEndpoint] = ()
    ailing: Sequence[AilingEndpoint] = ()
    lapses: Sequence[Lapse] = ()
    weak: Sequence[StrengthFacts] = ()
    overrides: Sequence[OverrideFacts] = ()
    misleading_shares: Sequence[SharesFacts] = ()
    old_shares: Sequence[OldSharesFacts] = ()
    troubled_shifts: Sequence[ShiftFacts] | None = None
    traffic: TrafficFacts | None = None
    subscribers: ClusterSubscribers | None = None
    pauses: Sequence[Pause] | None = None
    allowed_suspects: int = 0
    mesh: MeshFacts | None = None

    @property
    def ready(self) -> bool:
        """Whether this process knows the services."""
        return self.state.snapshot.ready


NOT_READY = "this process has not read the registry's state yet"
"""The reason to skip a rule about services while none are known."""
AWAY = "PostgreSQL is away"
"""The reason to skip a rule whose facts are in PostgreSQL alone."""
PARTIAL = "this principal may not read all services"
"""The reason to skip a rule about numbers of the whole registry."""
