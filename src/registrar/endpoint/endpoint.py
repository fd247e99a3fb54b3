"""One endpoint of this process: what its checks found, and what is therefore sent."""

import asyncio

from msgspec import Struct

from registrar.checks.flap_damping import FlapDamping
from registrar.checks.result import Outcome, Result
from registrar.checks.threshold import State
from registrar.config.settings import Service
from registrar.endpoint.incarnation import Incarnation
from registrar.endpoint.lease import LeaseState
from registrar.identity.resolver import Identity
from registrar.identity.source import Location
from registrar.registry_client.endpoint_ref import EndpointRef
from wire.address import format_endpoint
from wire.model import Heartbeat, Registration, Report


class _Past(Struct, frozen=True):
    """What is sent of an incarnation that is over, until the next one may be published.

    Silence would not do: the registry would go on showing the old state for the rest of its lease.
    """

    health: Report
    draining: bool
    detail: str


class Endpoint:
    """Joins a service's settings, the incarnations that its checks see and its lease.

    Attributes:
        service: its settings.
        location: where it is advertised.
        name: ``ip:port``, as in the registry's paths.
        lease: what the registry said.
        drain_settled: set once a drain has nothing left to wait for: it was acknowledged, or is not ours to make.
        retired: whether it sends no more heartbeats.
    """

    def __init__(self, service: Service, location: Location, identity: Identity, now: float) -> None:
        self.service = service
        self.location = location
        self.name = format_endpoint(location.address, location.port)
        self.lease = LeaseState(identity.instance_id, identity.incarnation)
        self.drain_settled = asyncio.Event()
        self.retired = False
        self.identity = identity
        self._damping = FlapDamping()
        self._suppressed = 0
        self._stopping = self._hushed = False
        self._past: _Past | None = None
        # By the index of the check: what keeps the endpoint out of rotation, and which start of the app it saw.
        self._maintenance: dict[int, str] = {}
        self._lives: dict[int, str] = {}
        self._incarnation = self._begin(now)

    @property
    def state(self) -> State:
        """DRAINING in maintenance and after a drain; STARTING until every check has a verdict."""
        return self._incarnation.state

    @property
    def report(self) -> Report | None:
        """What may be published: None before the first verdicts, unchanged from a drain on."""
        return self._past.health if self._past else self._incarnation.report

    @property
    def detail(self) -> str:
        """Why it is in this state."""
        if self._past:
            return self._past.detail
        return next(iter(self._maintenance.values()), self._incarnation.detail)

    @property
    def suppressed(self) -> int:
        """Recoveries that flap damping held back."""
        return self._suppressed + self._incarnation.suppressed

    def starting(self, check: int, now: float) -> bool:
        """Tell whether the check with that index keeps the incarnation from being published for the first time."""
        return self._incarnation.starting(check, now)

    def observe(self, check: int, result: Result, now: float) -> bool:
        """Take in a result of the check with that index and tell whether what is sent changed."""
        before = self._sent()
        if self._stopping:
            return False
        self._see_maintenance(check, result, now)
        self._see_life(check, result, now)
        self._incarnation.observe(check, result, now)
        if self._past and self._incarnation.report is not None and not self._maintenance:
            self._succeed()
        return self._sent() != before

    def restarted(self, now: float, why: str) -> None:
        """Begin a new incarnation, with the start-up gate: what was known is of an app that is gone.

        The old one is sent as UNHEALTHY until then; if it was draining, it goes on draining. A drain of the
        whole process is not undone by a restart of its app.
        """
        if self._stopping:
            return
        if self._past is None and self.report is not None:
            drained = self.state is State.DRAINING
            if not drained and self.report is not Report.UNHEALTHY:
                self._damping.record(now)
            self._past = _Past(self.report if drained else Report.UNHEALTHY, drained, why)
        self._suppressed += self._incarnation.suppressed
        self._incarnation = self._begin(now)

    def inherit(self, old: "Endpoint") -> None:
        """Go on with the lease of an endpoint that this one replaces, with other settings.

        Its drain, which is final, goes on as well, until this one begins the next incarnation.
        """
        self.lease = old.lease
        if old.report is not None and old.draining:
            self._past = _Past(old.report, draining=True, detail=old.detail)

    def drain(self) -> None:
        """Enter DRAINING, for good: for this process there is no further incarnation.

        What the registry was never told of is not announced by its end.
        """
        if not self._stopping:
            self._hushed = not self.lease.may_be_registered
        self._stopping = True
        self._incarnation.drain()

    def adopt(self, health: Report, detail: str) -> None:
        """Go on with the drain of what an earlier start of the instance had published."""
        if self.report is None:
            self._past = _Past(health, draining=True, detail=detail)
        self._hushed = False

    @property
    def ref(self) -> EndpointRef:
        """What a drain or a deregistration is asked for."""
        return EndpointRef(self.service.service, self.name, self.identity.instance_id, self.lease.incarnation)

    def retire(self) -> None:
        """Send no more heartbeats: a late one must not follow the deregistration."""
        self.retired = True

    def heartbeat(self) -> Heartbeat | None:
        """Return the full state to send, or None when nothing may be published."""
        report = self.report
        if report is None or self._hushed or self.retired or self.lease.fenced:
            return None
        service, identity = self.service, self.identity
        registration = Registration(
            instance_id=identity.instance_id,
            incarnation=self.lease.incarnation,
            health=report,
            draining=self.draining,
            revision=service.revision,
            region=identity.region,
            zone=identity.zone,
            canary=service.canary,
            weight=service.weight,
            repository=service.repository,
            metadata=service.metadata,
            detail=self.detail,
        )
        return Heartbeat(service.service, self.name, registration)

    @property
    def draining(self) -> bool:
        """Whether what is sent is draining."""
        return self.state is State.DRAINING or (self._past is not None and self._past.draining)

    def _sent(self) -> tuple[Report | None, bool, int]:
        return self.report, self.draining, self.lease.incarnation

    def _begin(self, now: float) -> Incarnation:
        return Incarnation([check.limits for check in self.service.checks], now, self._damping)

    def _see_maintenance(self, check: int, result: Result, now: float) -> None:
        if result.outcome is Outcome.MAINTENANCE:
            self._maintenance[check] = result.detail
            self._incarnation.drain()
        elif result.outcome is not Outcome.UNKNOWN and check in self._maintenance:
            why = self._maintenance.pop(check)
            if not self._maintenance:
                # DRAINING is final, so the way back into rotation is a new incarnation.
                self.restarted(now, f"was in maintenance: {why}")

    def _see_life(self, check: int, result: Result, now: float) -> None:
        known = self._lives.get(check)
        if not result.app_start or result.app_start == known:
            return
        self._lives[check] = result.app_start
        if known is not None and not self._maintenance:
            self.restarted(now, f"the app was started again ({result.app_start})")

    def _succeed(self) -> None:
        """Hand over to the new incarnation; one that was fenced has none."""
        if self.lease.fenced:
            return
        self._past = None
        self.drain_settled.clear()
        self.lease = self.lease.successor()
