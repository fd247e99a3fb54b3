"""One endpoint of this process: the results of its checks, and the heartbeat that follows from them."""

import asyncio

from msgspec import Struct

from registrar.checks.flap_damping import FlapDamping
from registrar.checks.result import Outcome, Result
from registrar.checks.threshold import State
from registrar.config.settings import Service
from registrar.endpoint.incarnation import Incarnation
from registrar.endpoint.lease import LeaseState
from registrar.endpoint.reserved_metadata import with_reserved_keys
from registrar.identity.resolver import Identity
from registrar.identity.source import Location
from registrar.registry_client.endpoint_ref import EndpointRef
from wire.address import format_endpoint
from wire.model import Heartbeat, Registration, Report


class _EndedIncarnation(Struct, frozen=True):
    """The state of an incarnation that has ended; it is sent until the next one may be published.

    Without it the registry would list the old state until the lease expires.
    """

    health: Report
    draining: bool
    detail: str


class Endpoint:
    """Combines the settings of a service, the incarnations that its checks see, and its lease.

    Attributes:
        service: the settings; a reload replaces them.
        location: the advertised address and port.
        name: ``ip:port``, as in the registry's paths.
        lease: the lease of the current incarnation.
        drain_settled: set when a drain was acknowledged, or refused for good.
        retired: whether it sends no more heartbeats.
        identity: the instance that owns the endpoint.
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
        # Recoveries that flap damping delayed in earlier incarnations.
        self._suppressed = 0
        # Whether the process drains the endpoint for good, and whether it does so without ever having published it.
        self._stopping = self._silent = False
        # The incarnation before, while its state is still sent; None otherwise.
        self._ended: _EndedIncarnation | None = None
        # By the index of the check: why it asks for maintenance, and the start of the app that it saw last.
        self._maintenance: dict[int, str] = {}
        self._app_starts: dict[int, str] = {}
        self._incarnation = self._begin(now)

    @property
    def state(self) -> State:
        """The state: DRAINING in maintenance and after a drain, STARTING until every check has a verdict."""
        return self._incarnation.state

    @property
    def report(self) -> Report | None:
        """The health to publish: None before the first verdicts, unchanged after a drain."""
        return self._ended.health if self._ended else self._incarnation.report

    @property
    def detail(self) -> str:
        """The reason for the state, for people."""
        if self._ended:
            return self._ended.detail
        return next(iter(self._maintenance.values()), self._incarnation.detail)

    @property
    def suppressed(self) -> int:
        """The number of recoveries that flap damping delayed."""
        return self._suppressed + self._incarnation.suppressed

    def starting(self, check: int, now: float) -> bool:
        """Tell whether the check with that index keeps the incarnation from being published for the first time."""
        return self._incarnation.starting(check, now)

    def observe(self, check: int, result: Result, now: float) -> bool:
        """Record a result of the check with that index and tell whether the heartbeat changed."""
        before = self._sent()
        if self._stopping:
            return False
        self._note_maintenance(check, result, now)
        self._note_app_start(check, result, now)
        self._incarnation.observe(check, result, now)
        if self._ended and self._incarnation.report is not None and not self._maintenance:
            self._succeed()
        return self._sent() != before

    def restarted(self, now: float, why: str) -> None:
        """Begin a new incarnation, unpublished until its checks pass: the results so far are of an app that has ended.

        The old incarnation is sent as UNHEALTHY until then; if it was draining, it goes on draining. A restart of the
        app does not undo a drain of the whole process.
        """
        if self._stopping:
            return
        if self._ended is None and self.report is not None:
            drained = self.state is State.DRAINING
            if not drained and self.report is not Report.UNHEALTHY:
                self._damping.record(now)
            self._ended = _EndedIncarnation(self.report if drained else Report.UNHEALTHY, drained, why)
        self._suppressed += self._incarnation.suppressed
        self._incarnation = self._begin(now)

    def inherit(self, old: "Endpoint") -> None:
        """Take over the lease of an endpoint that this one replaces after a reload.

        A drain of the old endpoint is final and goes on, until this one begins the next incarnation.
        """
        self.lease = old.lease
        if old.report is not None and old.draining:
            self._ended = _EndedIncarnation(old.report, draining=True, detail=old.detail)

    def drain(self) -> None:
        """Enter DRAINING for good: this process begins no further incarnation.

        An endpoint that the registry never stored is not registered just to be drained.
        """
        if not self._stopping:
            self._silent = not self.lease.may_be_registered
        self._stopping = True
        self._incarnation.drain()

    def adopt(self, health: Report, detail: str) -> None:
        """Continue the drain of the registration of an earlier start of the instance."""
        if self.report is None:
            self._ended = _EndedIncarnation(health, draining=True, detail=detail)
        self._silent = False

    @property
    def ref(self) -> EndpointRef:
        """The reference that a drain or a deregistration names."""
        return EndpointRef(self.service.service, self.name, self.identity.instance_id, self.lease.incarnation)

    def retire(self) -> None:
        """Stop the heartbeats: none may follow the deregistration."""
        self.retired = True

    def heartbeat(self) -> Heartbeat | None:
        """Return the heartbeat with the full state, or None if nothing may be published."""
        report = self.report
        if report is None or self._silent or self.retired or self.lease.fenced:
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
            expected=service.expected,
            weight=service.weight,
            repository=service.repository,
            metadata=with_reserved_keys(service.metadata, identity),
            detail=self.detail,
        )
        return Heartbeat(service.service, self.name, registration)

    @property
    def draining(self) -> bool:
        """Whether the heartbeat says that the endpoint is draining."""
        return self.state is State.DRAINING or (self._ended is not None and self._ended.draining)

    def _sent(self) -> tuple[Report | None, bool, int]:
        return self.report, self.draining, self.lease.incarnation

    def _begin(self, now: float) -> Incarnation:
        return Incarnation([check.limits for check in self.service.checks], now, self._damping)

    def _note_maintenance(self, check: int, result: Result, now: float) -> None:
        if result.outcome is Outcome.MAINTENANCE:
            self._maintenance[check] = result.detail
            self._incarnation.drain()
        elif result.outcome is not Outcome.UNKNOWN and check in self._maintenance:
            why = self._maintenance.pop(check)
            if not self._maintenance:
                # DRAINING is final for an incarnation, so a new one begins.
                self.restarted(now, f"was in maintenance: {why}")

    def _note_app_start(self, check: int, result: Result, now: float) -> None:
        before = self._app_starts.get(check)
        if not result.app_start or result.app_start == before:
            return
        self._app_starts[check] = result.app_start
        if before is not None and not self._maintenance:
            self.restarted(now, f"the app was started again ({result.app_start})")

    def _succeed(self) -> None:
        """Begin to send the new incarnation, unless the endpoint was fenced."""
        if self.lease.fenced:
            return
        self._ended = None
        self.drain_settled.clear()
        self.lease = self.lease.successor()
