"""The job that plans which registrars are asked to probe what; ``registry.core.probe_requests`` has the rules."""

import time
from collections.abc import Iterable, Sequence

from registry.background.prober import MAX_READING_AGE
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.endpoint import Endpoint
from registry.core.endpoint_networks import EndpointNetworks
from registry.core.probe_requests import ProbeRequests, is_prober
from registry.core.probing import Target, choose_controls, is_healthy, opts_out, renewed_at_of, target_of
from registry.core.snapshot import Snapshot
from wire.address import format_endpoint

PLAN_INTERVAL = 1.0
"""Seconds between two passes."""
_SUSPECT_INTERVAL = 3.0
"""Seconds after which the probes of a service's suspects are planned again, though nothing has changed."""
_BASE_LINE_PASS_INTERVAL = 3.0
"""Seconds between two passes over all services for base lines."""

_MAX_CONTROLS = 50
"""Endpoints among which the controls for a suspect are chosen."""


class ProbePlanner:
    """Plans the probes of registrars, by what this process has read.

    Args:
        cache: where the endpoints are.
        networks: the networks outside of which nothing is probed.

    Attributes:
        requests: the requests that grants take along.
    """

    def __init__(self, cache: SnapshotCache, networks: EndpointNetworks) -> None:
        self._cache = cache
        self._networks = networks
        self.requests = ProbeRequests()
        # Services without a prober, by the change at which that was found; others are looked through each time.
        self._without_probers: dict[str, int] = {}
        # By service with suspects: the change and the time at which their probes were planned.
        self._planned: dict[str, tuple[int, float]] = {}
        # Monotonic time of the next pass over all services.
        self._base_lines_due = 0.0

    async def plan(self) -> None:
        """Plan what is due."""
        now = time.monotonic()
        services = self._cache.services()
        silent = {name: snapshot async for name, snapshot in cooperatively(services.items()) if snapshot.silent}
        for service in self.requests.services_with_suspects:
            if service not in silent:
                self.requests.clear_suspects(service)
        self._planned = {service: planned for service, planned in self._planned.items() if service in silent}
        async for service, snapshot in cooperatively(silent.items()):
            change, planned_at = self._planned.get(service, (-1, 0.0))
            if change != snapshot.change or now - planned_at >= _SUSPECT_INTERVAL:
                self._planned[service] = (snapshot.change, now)
                self._plan_suspects(snapshot)
        if now >= self._base_lines_due:
            self._base_lines_due = now + _BASE_LINE_PASS_INTERVAL
            await self._plan_base_lines(services.values(), now)
            self.requests.keep_services(services.keys())

    def _plan_suspects(self, snapshot: Snapshot) -> None:
        endpoints = self._endpoints(snapshot)
        controls = self._controls(endpoints)

        def choose(suspect: Endpoint, own_address: str) -> Sequence[str]:
            others = (control for control in controls if control.address != own_address)
            return [format_endpoint(each.address, each.port) for each in choose_controls(target_of(suspect), others)]

        self.requests.plan_suspects(snapshot.service, endpoints, choose)

    def _endpoints(self, snapshot: Snapshot) -> list[Endpoint]:
        """Return the endpoints of a service in the networks outside of which nothing is probed."""
        return [endpoint for endpoint in snapshot.endpoints.values() if self._networks.allows(endpoint.address)]

    def _controls(self, endpoints: Iterable[Endpoint]) -> list[Target]:
        """Return endpoints that renew now, those that renewed last first; none while the leases in memory are old."""
        cache = self._cache
        if time.monotonic() - cache.leases_asked_at > MAX_READING_AGE:
            return []
        read_at = cache.leases_read_at
        renewed = []
        for endpoint in endpoints:
            renewed_at = renewed_at_of(endpoint, cache.leases, read_at) if is_healthy(endpoint) else None
            if renewed_at is not None and not opts_out(endpoint):
                renewed.append((-renewed_at, endpoint.id, target_of(endpoint)))
        return [target for _, _, target in sorted(renewed)[:_MAX_CONTROLS]]

    async def _plan_base_lines(self, snapshots: Iterable[Snapshot], now: float) -> None:
        async for snapshot in cooperatively(snapshots):
            if self._without_probers.get(snapshot.service) == snapshot.change:
                continue
            endpoints = self._endpoints(snapshot)
            if any(map(is_prober, endpoints)):
                self._without_probers.pop(snapshot.service, None)
            else:
                self._without_probers[snapshot.service] = snapshot.change
            self.requests.plan_base_lines(snapshot.service, endpoints, now)
