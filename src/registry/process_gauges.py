"""The gauges of a process: what it serves, who follows it, and what is silent or lost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from registry import metrics
from registry.background.subscriber_sync import SubscriberSync
from registry.background.traffic_metrics import TRAFFIC
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.endpoint import Endpoint
from registry.core.silence import STATUSES_FOR_PEOPLE
from registry.core.subscriber import Subscribers
from registry.core.subscriber_status import State
from registry.usecases.silence import Silences
from registry.xds.edge_discovery import EdgeDiscovery

GAUGE_INTERVAL = 5.0
"""Seconds between two times that the gauges are set."""


class ProcessGauges:
    """Sets the gauges from what the process knows.

    Args:
        cache: the endpoints.
        silences: what is silent, and for how long.
        subscriber_sync: the subscribers of this process and of the others.
        subscribers: those of this process.
        edge_discovery: the edges.
    """

    def __init__(
        self,
        cache: SnapshotCache,
        silences: Silences,
        subscriber_sync: SubscriberSync,
        subscribers: Subscribers,
        edge_discovery: EdgeDiscovery,
    ) -> None:
        self._cache = cache
        self._silences = silences
        self._subscriber_sync = subscriber_sync
        self._subscribers = subscribers
        self._edge_discovery = edge_discovery

    async def set(self) -> None:
        """Set all of them, in steps between which polls are answered."""
        await self._set_endpoints()
        await self._set_subscribers()
        await TRAFFIC.share()

    async def _set_endpoints(self) -> None:
        counts: Counter[str] = Counter()
        silent: dict[str, Sequence[Endpoint]] = {}
        quarantined = lost = below_strength = 0
        oldest_shares = 0.0
        now = self._cache.clock.now()
        snapshots = list(self._cache.services().values())
        async for snapshot in cooperatively(snapshots):
            counts.update(snapshot.counts_for_people)
            if snapshot.silent:
                silent[snapshot.service] = snapshot.silent
            quarantined += len(snapshot.quarantined)
            presence = snapshot.presence(now, self._cache.desired_counts)
            lost += len(presence.lost)
            below_strength += presence.missing > 0
            if snapshot.shares is not None and snapshot.shares.shift is None:
                oldest_shares = max(oldest_shares, now - snapshot.shares.set_at)
        for status in STATUSES_FOR_PEOPLE:
            metrics.ENDPOINTS.labels(status).set(counts[status])
        self._set_silence(silent)
        metrics.QUARANTINED.set(quarantined)
        metrics.CLOCK_ERROR.set(self._cache.clock.error)
        metrics.SERVICES_UNAVAILABLE.set(len(self._cache.unsure))
        metrics.SERVICES_OUTDATED.set(len(self._cache.outdated))
        metrics.STALE.set(int(self._cache.stale))
        metrics.SERVICES.set(len(snapshots))
        metrics.LOST.set(lost)
        metrics.BELOW_STRENGTH.set(below_strength)
        metrics.SHARES_SECONDS.set(oldest_shares)

    def _set_silence(self, silent: Mapping[str, Sequence[Endpoint]]) -> None:
        metrics.SUSPECTS.set(sum(map(len, silent.values())))
        held = {service: self._silences.longest(endpoints) for service, endpoints in silent.items()}
        # Both gauges name the same services, because the alert joins them.
        longest = sorted(held, key=lambda service: -held[service])[: metrics.MAX_SERVICE_SERIES]
        metrics.SILENT_SECONDS.set({service: held[service] for service in longest})
        metrics.SILENT_ENDPOINTS.set({service: len(silent[service]) for service in longest})

    async def _set_subscribers(self) -> None:
        states = await self._subscriber_sync.states()
        for state in get_args(State):
            metrics.SUBSCRIBERS.labels(state).set(states[state])
        metrics.EDGES.set(self._edge_discovery.edge_count)
        metrics.EDGE_SUBSCRIBERS.set(self._edge_discovery.subscriber_count)
        metrics.SIGHTINGS.set(self._subscribers.sightings)
        metrics.SIGHTINGS_REFUSED.inc(self._subscribers.take_refused())
