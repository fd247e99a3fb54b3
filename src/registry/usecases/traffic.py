"""Traffic of services: registrars bring digests of what their Envoys counted, and readers get figures."""

import time
from collections.abc import Sequence
from functools import partial

from msgspec import Struct

from registry import metrics
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.traffic_exchange import TrafficExchange
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively, in_turns
from registry.core.traffic import PairFigures, Reporting, RouteFigures, Window
from registry.core.traffic_digest import check_digest
from registry.core.traffic_figures import Figures, figures_in_steps, most_telling_in_steps
from registry.errors import RegistryError
from wire.address import parse_endpoint
from wire.traffic_digest import DigestAnswer, TrafficDigest

MAX_PAIRS = 10_000
"""Pairs of one answer at most, 400 bytes each."""
SHIFT_INTERVAL = 2.0
"""Seconds between two digests of an Envoy with traffic to a service under a shift."""


class TrafficFigures(Struct, frozen=True):
    """The pairs of a window, and what they lack.

    Attributes:
        pairs: the pairs that the principal may read.
        omitted: those beyond the number that was asked for.
        reporting: by caller, how many of its Envoys report.
        complete: whether they have the digests that other processes got.
        processes: the processes whose digests they have.
        dropped: pairs, routes and Envoys that this process has dropped, since its start, because there were too many.
    """

    pairs: Sequence[PairFigures]
    omitted: int
    reporting: dict[str, Reporting]
    complete: bool
    processes: int
    dropped: int


class Traffic:
    """Takes digests, and tells who calls whom, how often, how well and how fast.

    Args:
        policy: decides who may report and read; whoever may register a service may report what it calls.
        cache: knows how many instances a caller has.
        exchange: has the tables of all processes.
    """

    def __init__(self, policy: Policy, cache: SnapshotCache, exchange: TrafficExchange) -> None:
        self._policy = policy
        self._cache = cache
        self._exchange = exchange
        self._instances: dict[str, tuple[int, int]] = {}
        """By service with endpoints: the change and, as of it, the number of instances. Written by _instances_of()."""

    def take(self, principal: Principal, digest: TrafficDigest) -> DigestAnswer:
        """Add a digest, and return what the next one is to have.

        Raises:
            NotAllowedError: the principal may not register the caller.
            InvalidError: a number or a name is not valid; nothing of the digest is counted.
            TooLargeError: it has too many callees or routes.
            LimitError: the Envoy or the principal reports too often; nothing of the digest is counted.
        """
        try:
            self._policy.allow(principal, Verb.REGISTER, digest.caller)
            check_digest(digest)
            table, now = self._exchange.table, time.monotonic()
            table.check_rate(digest, principal.limited_as, now)
        except RegistryError:
            metrics.TRAFFIC_DIGESTS.labels("refused").inc()
            raise
        is_shifted = self._cache.is_shifted
        shifted = tuple([edge.callee for edge in digest.edges if is_shifted(edge.callee)])
        watched = {callee: partial(self._is_registered, callee) for callee in shifted}
        taken = table.take(digest, now, watched, principal.limited_as)
        metrics.TRAFFIC_DIGESTS.labels("taken" if taken else "repeated").inc()
        return DigestAnswer(SHIFT_INTERVAL, shifted) if shifted else _AS_CONFIGURED

    async def pairs(
        self,
        principal: Principal,
        window: Window,
        caller: str | None = None,
        callee: str | None = None,
        *,
        by_location: bool = False,
        limit: int = MAX_PAIRS,
    ) -> TrafficFigures:
        """Return the figures of pairs; a pair may be read with its caller or its callee.

        Args:
            principal: the reader.
            window: the time that they are about.
            caller: the pairs of this caller alone; None: of all.
            callee: the pairs of this callee alone; None: of all.
            by_location: whether the callers' Envoys of each region and zone are told apart.
            limit: pairs at most: first those that fail, then the busiest.
        """
        self._check_reader(principal, caller, callee)
        figures = await self._figures(window, by_location=by_location)
        reach = self._policy.reach(principal, Verb.READ)
        everyone = await in_turns(figures.pairs_in_steps(caller, callee))
        pairs = [
            pair async for pair in cooperatively(everyone) if reach.covers(pair.caller) or reach.covers(pair.callee)
        ]
        callers = {pair.caller for pair in pairs}
        reporting = {
            name: count
            async for name, count in cooperatively(figures.reporting())
            if name in callers or reach.covers(name)
        }
        shown = await in_turns(most_telling_in_steps(pairs, limit))
        return TrafficFigures(
            pairs=shown,
            omitted=len(pairs) - len(shown),
            reporting=reporting,
            complete=self._exchange.complete,
            processes=self._exchange.processes,
            dropped=self._exchange.dropped,
        )

    async def routes(
        self, principal: Principal, window: Window, callee: str, caller: str | None = None
    ) -> list[RouteFigures]:
        """Return the figures of the routes to a callee, those of one caller alone where it is named."""
        self._policy.allow(principal, Verb.READ, callee)
        figures = await self._figures(window)
        return await in_turns(figures.routes_in_steps(callee, caller))

    def _check_reader(self, principal: Principal, caller: str | None, callee: str | None) -> None:
        if caller and callee and self._policy.can(principal, Verb.READ, callee):
            return
        self._policy.allow(principal, Verb.READ, caller or callee or "")

    async def _figures(self, window: Window, *, by_location: bool = False) -> Figures:
        images = await self._exchange.images()
        return await in_turns(figures_in_steps(images, window, self._instances_of, by_location=by_location))

    def _is_registered(self, service: str, endpoint: str) -> bool:
        try:
            return parse_endpoint(endpoint) in self._cache.get(service).endpoints
        except ValueError:
            return False

    def _instances_of(self, service: str) -> int:
        """Return how many instances a service has, each of which has an Envoy beside it."""
        snapshot = self._cache.get(service)
        if not snapshot.endpoints:
            # Nothing is kept of it: callers may be gateways, and may be invented.
            self._instances.pop(service, None)
            return 0
        known = self._instances.get(service)
        if known is None or known[0] != snapshot.change:
            instances = {
                endpoint.registration.instance_id for endpoint in snapshot.endpoints.values() if endpoint.alive
            }
            known = self._instances[service] = (snapshot.change, len(instances))
        return known[1]


_AS_CONFIGURED = DigestAnswer()
