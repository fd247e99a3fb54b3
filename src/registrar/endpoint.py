"""One endpoint of this process: what its checks found, and what is therefore sent."""

import asyncio

from registrar.identity.resolver import Identity
from registrar.identity.source import Location
from registrar.lease import Lease
from registrar.result import Result
from registrar.settings import Service
from registrar.threshold import State, Threshold
from wire.address import format_endpoint
from wire.model import Beat, Registration, Report

_SEVERITY = (Report.HEALTHY, Report.DEGRADED, Report.UNHEALTHY)


class Endpoint:
    """Joins a service's settings, the state of its checks and its lease.

    Attributes:
        service: its settings.
        location: where it is advertised.
        name: ``ip:port``, as in the registry's paths.
        lease: what the registry said.
        settled: set once a drain has nothing left to wait for: it was acknowledged, or is not ours to make.
        retired: whether it sends no more heartbeats.
    """

    def __init__(self, service: Service, location: Location, identity: Identity, now: float) -> None:
        self.service = service
        self.location = location
        self.name = format_endpoint(location.address, location.port)
        self.lease = Lease(identity.instance_id, identity.incarnation)
        self.settled = asyncio.Event()
        self._identity = identity
        self._thresholds = [Threshold(check.limits, now) for check in service.checks]
        self._details = [""] * len(service.checks)
        self.retired = False

    @property
    def state(self) -> State:
        """DRAINING for good; STARTING until every check has a verdict; else the worst of them."""
        states = [threshold.state for threshold in self._thresholds]
        for first in (State.DRAINING, State.STARTING):
            if first in states:
                return first
        return State(self._worst().report or State.STARTING)

    @property
    def report(self) -> Report | None:
        """What may be published: None before the first verdicts, unchanged from a drain on."""
        if any(threshold.report is None for threshold in self._thresholds):
            return None
        return self._worst().report

    def observe(self, check: int, result: Result, now: float) -> bool:
        """Take in a result of the check with that index and tell whether the published state changed."""
        before = self.report
        # The detail moves with the state only: one that changed with each result would make each heartbeat
        # a change that the registry has to publish.
        if self._thresholds[check].observe(result.outcome, now):
            self._details[check] = result.detail
        return self.report is not before

    def drain(self) -> None:
        """Enter DRAINING, for good."""
        for threshold in self._thresholds:
            threshold.drain()

    def retire(self) -> None:
        """Send no more heartbeats: a late one must not follow the deregistration."""
        self.retired = True

    @property
    def detail(self) -> str:
        """What the check that decided the state said when it did."""
        return self._details[self._thresholds.index(self._worst())]

    @property
    def suppressed(self) -> int:
        """Recoveries that flap damping held back."""
        return sum(threshold.suppressed for threshold in self._thresholds)

    def beat(self) -> Beat | None:
        """Return the full state to send, or None when nothing may be published."""
        report = self.report
        if report is None or self.retired or self.lease.fenced:
            return None
        service, identity = self.service, self._identity
        registration = Registration(
            instance_id=identity.instance_id,
            incarnation=self.lease.incarnation,
            health=report,
            draining=self.state is State.DRAINING,
            revision=service.revision,
            region=identity.region,
            zone=identity.zone,
            canary=service.canary,
            weight=service.weight,
            repository=service.repository,
            metadata=service.metadata,
            detail=self.detail,
        )
        return Beat(service.service, self.name, registration)

    def _worst(self) -> Threshold:
        """Return the check that decides; of several equal ones the first."""
        return max(self._thresholds, key=lambda one: _SEVERITY.index(one.report) if one.report else -1)
