"""The reporter: it reads the statistics of the Envoy beside the registrar at intervals, and sends their differences.

It is best effort and apart from heartbeats. A digest that is not taken is not sent again, but for one that was beyond a
limit, whose counts the next one has; an Envoy that does not answer is asked again at the next interval. Nothing of this
delays or changes a heartbeat.
"""

import asyncio
import secrets
from typing import Never, Protocol

import msgspec
from msgspec import Struct

from registrar import jitter
from registrar.errors import EnvoyAdminError, RegistryRefused, RegistryRequestError, RegistryUnavailable
from registrar.event_log import EventLogger
from registrar.traffic.difference import EndpointTries, attempts_since, difference
from registrar.traffic.envoy import Envoy
from registrar.traffic.statistics import Reading
from registrar.traffic.topology import EnvoyNode
from wire.traffic_digest import MAX_DIGEST_BYTES, MAX_SECONDS, DigestAnswer, EdgeEndpoint, TrafficDigest

LOOK_INTERVAL = 60.0
"""Seconds between two looks at Envoy's clusters; one that is new in its statistics is looked at at once."""
MIN_INTERVAL = 1.0
"""Seconds between two readings at least, whatever a registry asks for."""
UNSUPPORTED_PAUSE = 600.0
"""Seconds after which a registry that does not know digests is asked again: it may have been upgraded."""
LOG_INTERVAL = 300.0
"""Seconds between two log events of one kind of failure, whose reason may change each time, or which comes and goes."""
REFUSED_PAUSE = 60.0
"""Seconds after which a refused digest is followed by another one: grants may have changed."""
_PAUSE_SPREAD = 0.1
_MAX_GAP = 30.0
"""Seconds, and three intervals, after which a reading is a new base line: a digest of longer would look like a peak."""
_MAX_GAP_INTERVALS = 3.0
_SEQUENCE_BEGIN = 2**48
"""Sequences begin below this, at random."""
_SENDER_BYTES = 8
_SHRINK = 0.8

log = EventLogger(__name__)

_encode = msgspec.json.Encoder().encode


class TrafficRegistry(Protocol):
    """The part of the registry's client that the reporter needs."""

    async def report_traffic(self, digest: bytes) -> DigestAnswer:
        """Send a digest.

        Raises:
            RegistryRequestError: it was not taken.
        """


class TrafficStatus(Struct, frozen=True):
    """How the reporter stands, for the status document and metrics.

    Attributes:
        sent: digests that the registry took.
        failed: readings that failed, and digests that were not taken.
        problem: why the last one failed; empty after a success.
    """

    sent: int = 0
    failed: int = 0
    problem: str = ""


class _Base(Struct, frozen=True):
    """The reading that the next one is compared with, and the loop's time of it."""

    reading: Reading
    at: float
    endpoints: EndpointTries
    services: frozenset[str] = frozenset()
    """The services whose endpoints were read."""


class TrafficReporter:
    """Sends digests until it is cancelled.

    Args:
        registry: takes the digests.
        envoy: the Envoy whose statistics are read.
        interval: seconds between two digests.
    """

    def __init__(self, registry: TrafficRegistry, envoy: Envoy, interval: float) -> None:
        self._registry = registry
        self._envoy = envoy
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._sequence = secrets.randbelow(_SEQUENCE_BEGIN)
        self._sender = secrets.token_hex(_SENDER_BYTES)
        """Tells this Envoy from others with its node id."""
        self._base: _Base | None = None
        """The last reading; None before the first, and after a gap."""
        self._looked_at = float("-inf")
        """Loop time of the last look at Envoy's clusters."""
        self._asked = DigestAnswer()
        """What the registry asked for with its last answer."""
        self._problems: dict[str, str] = {}
        """By kind: the reason of the last failure, until the next success."""
        self._logged: dict[str, tuple[str, float]] = {}
        """By kind: the reason that was logged last, and the loop's time of it."""
        self._logged_open: set[str] = set()
        """The kinds of failure that were logged since their last success."""
        self._sent = self._failed = 0

    @property
    def status(self) -> TrafficStatus:
        """How it stands."""
        return TrafficStatus(self._sent, self._failed, next(iter(self._problems.values()), ""))

    async def run(self) -> Never:
        """Read and send at intervals."""
        # Spread over the interval: registrars that start together must not report together.
        await asyncio.sleep(jitter.phase(self._interval))
        while True:
            began = self._loop.time()
            try:
                pause = await self._pass()
            except Exception as error:  # noqa: BLE001 - figures are never worth the process, which sends heartbeats
                self._fail("traffic_internal_error", repr(error))
                pause = REFUSED_PAUSE
            await asyncio.sleep(max(0.0, began + pause - self._loop.time()))

    async def _pass(self) -> float:
        """Read and send once; return the seconds from its beginning to that of the next."""
        before = self._base
        try:
            digest = await self._next_digest()
        except EnvoyAdminError as error:
            self._asked = DigestAnswer()
            self._fail("envoy_not_read", str(error))
            return self._interval
        self._recover("envoy_not_read")
        if digest is None:
            return self._pace()
        try:
            self._asked = await self._registry.report_traffic(digest)
        except RegistryRequestError as error:
            self._asked = DigestAnswer()
            if isinstance(error, RegistryUnavailable) and error.limited:
                # Nothing of it was counted: the next digest has it too.
                self._base = before
            return self._refused(error)
        self._sent += 1
        self._recover("traffic_not_sent")
        return self._pace()

    def _pace(self) -> float:
        return self._interval if self._asked.interval is None else max(MIN_INTERVAL, self._asked.interval)

    async def _next_digest(self) -> bytes | None:
        """Return the digest of what was counted since the last reading; None if this is the first."""
        node = self._envoy.node or await self._envoy.identify()
        now = self._loop.time()
        if now - self._looked_at >= LOOK_INTERVAL:
            await self._envoy.look()
            self._looked_at = now
        services = frozenset(self._asked.endpoints)
        endpoints = await self._envoy.endpoints(services) if services else {}
        now = self._loop.time()
        reading = await self._envoy.read()
        base, self._base = self._base, _Base(reading, now, endpoints, services)
        if self._envoy.has_new_clusters(reading):
            # They are read from the next reading on, and count from 0 then.
            self._looked_at = float("-inf")
        if base is None or now - base.at > max(_MAX_GAP, _MAX_GAP_INTERVALS * self._interval):
            return None
        if reading.is_of_later_start(base.reading):
            # Envoy has restarted, perhaps as another node: everything counts from 0.
            node = await self._envoy.identify()
            base = _Base(Reading(), base.at, {}, services)
        counted: dict[str, tuple[EdgeEndpoint, ...]] = {}
        if services and services <= base.services:
            counted = attempts_since(base.endpoints, endpoints)
        return self._encode(node, base, reading, now - base.at, counted)

    def _encode(
        self,
        node: EnvoyNode,
        base: _Base,
        reading: Reading,
        seconds: float,
        endpoints: dict[str, tuple[EdgeEndpoint, ...]],
    ) -> bytes:
        counted = difference(base.reading, reading, self._envoy.clusters, endpoints)
        self._sequence += 1
        digest = TrafficDigest(
            caller=node.cluster,
            node=node.id,
            seconds=round(min(max(seconds, 0.001), MAX_SECONDS), 3),
            sequence=self._sequence,
            sender=self._sender,
            zone=node.zone,
            region=node.region,
            edges=counted.edges,
            routes=counted.routes,
        )
        encoded, omitted = _encode(digest), counted.omitted
        while len(encoded) > MAX_DIGEST_BYTES:
            # Edges and routes are in order: the least busy ones go.
            edges = digest.edges[: int(len(digest.edges) * _SHRINK)]
            routes = digest.routes[: int(len(digest.routes) * _SHRINK)]
            omitted += len(digest.edges) - len(edges) + len(digest.routes) - len(routes)
            digest = msgspec.structs.replace(digest, edges=edges, routes=routes)
            encoded = _encode(digest)
        self._note_omitted(omitted)
        return encoded

    def _note_omitted(self, omitted: int) -> None:
        if omitted and "traffic_omitted" not in self._problems:
            log.warning(
                "traffic_omitted", callees_and_routes=omitted, meaning="a digest has the busiest ones that fit in it"
            )
            self._problems["traffic_omitted"] = f"{omitted} callees and routes do not fit into a digest"
        elif not omitted:
            self._problems.pop("traffic_omitted", None)

    def _refused(self, error: RegistryRequestError) -> float:
        """Note why a digest was not taken, and return the seconds to the next pass."""
        if isinstance(error, RegistryRefused):
            if error.problem.status in (404, 405):
                self._fail(
                    "traffic_not_sent",
                    f"the registry does not know digests of traffic ({error.problem.status}); upgrade it, or unset "
                    "REGISTRAR_ENVOY_ADMIN",
                )
                return jitter.around(UNSUPPORTED_PAUSE, _PAUSE_SPREAD)
            self._fail("traffic_not_sent", str(error))
            return jitter.around(REFUSED_PAUSE, _PAUSE_SPREAD)
        self._fail("traffic_not_sent", str(error))
        retry_after = error.retry_after if isinstance(error, RegistryUnavailable) else None
        return max(self._interval, min(retry_after or 0.0, REFUSED_PAUSE))

    def _fail(self, kind: str, reason: str) -> None:
        """Note a failure, and log it unless the same reason was logged last, or any a moment ago."""
        self._failed += 1
        self._problems[kind] = reason
        before, at = self._logged.get(kind, ("", float("-inf")))
        same = kind in self._logged_open and reason == before
        if not same and self._loop.time() - at >= LOG_INTERVAL:
            log.warning(kind, reason=reason)
            self._logged[kind] = reason, self._loop.time()
            self._logged_open.add(kind)

    def _recover(self, kind: str) -> None:
        """Note a success, and log it after a failure that was logged."""
        self._problems.pop(kind, None)
        if kind in self._logged_open:
            self._logged_open.discard(kind)
            log.info("traffic_recovered", after=kind)
