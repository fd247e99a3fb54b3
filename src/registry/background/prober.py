"""The prober of a registry process: TCP connections that tell dead endpoints from silent ones.

It connects to each listed endpoint now and then (its base line), and to endpoints whose lease has expired (suspects)
together with two that renew (controls). ``registry.core.probing`` has the rules, ``wire.tcp_probe`` the connection. Its
statements about suspects are stored in PostgreSQL, from where ``registry.background.evidence`` reads them for the
process that sweeps.

Each probe is a task of its own, so that an endpoint that does not answer delays no other one. The job begins at most
one probe a pass, which bounds the rate. Everything here may fail without harm: then there is no evidence.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from itertools import chain, islice
from random import uniform

import structlog

from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.endpoint import Endpoint
from registry.core.endpoint_networks import EndpointNetworks
from registry.core.evidence import Statement
from registry.core.probing import (
    CONTROL_WINDOW,
    CONTROLS,
    ProberRecord,
    Subject,
    SuspectQueue,
    Target,
    choose_controls,
    is_healthy,
    opts_out,
    renewed_at_of,
    target_of,
)
from registry.core.snapshot import Snapshot
from registry.core.status import ProbesState
from registry.errors import RefusedError, UnavailableError
from registry.metrics import PROBED_ENDPOINTS, PROBES
from registry.store.database import Database
from registry.store.left_out import StoredApart
from registry.store.probe_statements import add_statements, replace_statements
from wire.tcp_probe import Outcome, probe, source_address

log = structlog.get_logger()

PROBE_INTERVAL = 0.05
"""Seconds between the begins of two probes: at most 20 a second."""
LOOK_INTERVAL = 0.5
"""Seconds between two searches for suspects, and between two comparisons of the statements with the stored ones."""
SCAN_INTERVAL = 1.0
"""Seconds between two searches for endpoints whose base line is due, at least."""
_ENDPOINTS_A_SECOND = 10_000
"""Endpoints for each of which a search takes place a second later, since a search goes through all of them."""
_MAX_DUE = 400
"""Endpoints whose base line is due that a search finds at most."""
_BASE_LINE_TURN = 5
"""Every so many passes a base line comes before a suspect, so that thousands of suspects do not end all base lines."""
_YOUNG_CONTROL = CONTROL_WINDOW / 2
"""Seconds for which a control serves other attempts, so that it counts until the end of each of them."""
_CONTROL_WAIT = 0.1
"""Seconds after which a suspect is looked at again whose controls are being tried."""
_MAX_CONTROL_CANDIDATES = 500
"""Endpoints of a service, and of others, among which controls are chosen."""
_CANDIDATES_KEPT = 1.0
"""Seconds for which the candidates for controls of a service are kept."""
_MAX_SKIPPED = 5
"""Suspects that a pass looks at while the controls of each are being tried."""
MAX_READING_AGE = 15.0
"""Seconds after which the leases in memory say nothing about who renews now."""

Probe = Callable[[str, int], Awaitable[Outcome]]


class Prober:
    """The prober of one registry process.

    Args:
        prober_id: the random id of the process.
        database: where the statements are stored.
        cache: where the endpoints are.
        networks: the networks outside of which nothing is probed.
        connect: makes one connection attempt; it never raises.
        source: returns the address that this machine connects from.
    """

    def __init__(
        self,
        prober_id: str,
        database: Database,
        cache: SnapshotCache,
        networks: EndpointNetworks,
        connect: Probe = probe,
        source: Callable[[str], str | None] = source_address,
    ) -> None:
        self._id = prober_id
        self._database = database
        self._cache = cache
        self._networks = networks
        self._connect = connect
        self._source = source
        self._record = ProberRecord()
        self._suspects = SuspectQueue()
        # Endpoints whose base line is due, as the last search found them; each is looked up again before it is tried.
        self._due: Iterator[Endpoint] = iter(())
        # Monotonic time of the next search for them, and the service at which it begins, by its place among all.
        self._scan_at = 0.0
        self._scan_from = 0
        # Monotonic time of the next search for suspects.
        self._look_at = 0.0
        self._passes = 0
        # Controls to which connections are under way.
        self._controls_under_way: set[Subject] = set()
        # The tasks of the probes under way.
        self._tasks: set[asyncio.Task[None]] = set()
        # Candidates for controls by service (empty: of all services), and the monotonic time at which they were found.
        self._candidates: dict[str, tuple[float, list[Target]]] = {}
        # The statements that are stored; None: that is not known.
        self._stored: list[Statement] | None = []
        self._apart = StoredApart[Statement]("probe_statements", lambda each: f"endpoint {each.endpoint_id}")
        # Why the statements could not be stored last; empty: they could.
        self._failure = ""

    @property
    def state(self) -> ProbesState:
        """How the prober stands."""
        now = time.monotonic()
        muted = max(0.0, self._record.muted_until - now)
        record = self._record
        return ProbesState(record.base_lines(now), record.tried, len(self._suspects), muted, self._failure)

    async def step(self) -> None:
        """Begin one probe, if one is due."""
        if not self._cache.ready or self._cache.stale:
            return
        now = time.monotonic()
        self._look_for_suspects(now)
        self._passes += 1
        tries = [self._try_suspect, self._try_base_line]
        if self._passes % _BASE_LINE_TURN == 0:
            tries.reverse()
        # The second one only if the first one has begun nothing.
        any(begin(now) for begin in tries)

    async def scan(self) -> None:
        """Find the endpoints whose base line is due; the search goes on where the last one ended."""
        now = time.monotonic()
        if now < self._scan_at or not self._cache.ready or self._cache.stale:
            return
        pause = max(SCAN_INTERVAL, self._cache.endpoint_count() / _ENDPOINTS_A_SECOND)
        self._scan_at = now + pause
        self._record.prune(now)
        snapshots = list(self._cache.services().values())
        begin = self._scan_from % max(1, len(snapshots))
        due: list[Endpoint] = []
        number = begin
        async for snapshot in cooperatively(chain(snapshots[begin:], snapshots[:begin])):
            self._scan_from, number = number, number + 1
            async for endpoint in cooperatively(snapshot.endpoints.values()):
                if is_healthy(endpoint) and self._record.base_line_due(target_of(endpoint), now):
                    due.append(endpoint)
                    if len(due) == _MAX_DUE:
                        break
            if len(due) == _MAX_DUE:
                break
        self._due = iter(due)
        PROBED_ENDPOINTS.set(self._record.base_lines(now))

    async def publish(self) -> None:
        """Store the statements about suspects when they have changed; what cannot be stored is no evidence."""
        now = time.monotonic()
        statements = [
            statement
            async for target in cooperatively(list(self._suspects.targets.values()))
            if (statement := self._statement(target, now)) is not None
        ]
        if statements == self._stored:
            return
        self._stored = None
        try:
            await self._store(statements)
        except UnavailableError as error:
            if error.cause != self._failure:
                log.warning("probe_statements_not_stored", reason=error.cause)
            self._failure = error.cause
        else:
            if self._failure:
                log.info("probe_statements_stored_again")
            self._stored, self._failure = statements, ""

    async def _store(self, statements: Sequence[Statement]) -> None:
        try:
            await replace_statements(self._database, self._id, statements, time.monotonic())
        except RefusedError as error:
            if not error.row_specific:
                raise
            # Of one endpoint: the others have their evidence.
            await replace_statements(self._database, self._id, (), time.monotonic())
            await self._apart.store(
                statements, lambda some: add_statements(self._database, self._id, some, time.monotonic())
            )

    async def stop(self) -> None:
        """Give up the probes under way."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _look_for_suspects(self, now: float) -> None:
        if now < self._look_at:
            return
        self._look_at = now + LOOK_INTERVAL
        suspects = [
            target_of(endpoint)
            for snapshot in self._cache.services().values()
            for endpoint in snapshot.silent
            if self._may_probe(endpoint)
        ]
        self._suspects.update(suspects, now)
        self._record.keep_suspects(self._suspects.targets.keys())

    def _may_probe(self, endpoint: Endpoint) -> bool:
        return not opts_out(endpoint) and self._networks.allows(endpoint.address)

    def _try_base_line(self, now: float) -> bool:
        for endpoint in self._due:
            present = self._cache.find(endpoint.key)
            # It may have changed since the search.
            if present is None or not is_healthy(present) or not self._may_probe(present):
                continue
            target = target_of(present)
            if self._record.base_line_due(target, now):
                # Recorded at once, so that a search that ends meanwhile does not find it again.
                self._record.note_base_line(target, "nothing", now)
                self._begin(self._reach(target))
                return True
        return False

    async def _reach(self, target: Target) -> None:
        outcome = await self._probe(target, "base_line")
        # An endpoint that failed or fell silent meanwhile was not reached while it was healthy.
        if self._healthy(target) is not None:
            self._record.note_base_line(target, outcome, time.monotonic())

    def _healthy(self, target: Target) -> Endpoint | None:
        """Return an endpoint as it is now, or None when it is not healthy or another one."""
        present = self._cache.find((target.service, target.address, target.port))
        same = present is not None and target_of(present).subject == target.subject
        return present if present is not None and same and is_healthy(present) else None

    def _try_suspect(self, now: float) -> bool:
        if self._record.is_muted(now):
            return False
        for _ in range(_MAX_SKIPPED):
            target = self._suspects.take(now)
            if target is None:
                return False
            controls = choose_controls(target, self._renewing(target, now), self._record.fresh_controls(now))
            young = self._record.fresh_controls(now, _YOUNG_CONTROL)
            missing = [control for control in controls if control.subject not in young]
            if len(controls) < CONTROLS or not missing:
                self._begin(self._attempt(target, controls))
                return True
            self._suspects.put_back(target, now + _CONTROL_WAIT, settled=False)
            for control in missing:
                if control.subject not in self._controls_under_way:
                    self._controls_under_way.add(control.subject)
                    self._begin(self._check_itself(control))
                    return True
        return False

    async def _attempt(self, target: Target, controls: Sequence[Target]) -> None:
        began = time.monotonic()
        try:
            outcome = await self._probe(target, "suspect")
            self._record.note_attempt(target, outcome, began, time.monotonic(), controls)
        finally:
            due = time.monotonic() + self._record.next_attempt_in(target) + uniform(0.0, _CONTROL_WAIT)  # noqa: S311  # no secret
            self._suspects.put_back(target, due, settled=self._record.is_settled(target))

    async def _check_itself(self, control: Target) -> None:
        try:
            outcome = await self._probe(control, "control")
        finally:
            self._controls_under_way.discard(control.subject)
        # One that left, failed or fell silent meanwhile says nothing about the network of this process.
        healthy = self._healthy(control) is not None
        if (healthy or outcome == "connected") and not self._record.note_control(control, outcome, time.monotonic()):
            log.info("prober_muted", service=control.service, endpoint=control.address, outcome=outcome)

    async def _probe(self, target: Target, purpose: str) -> Outcome:
        # The passes are as regular as a clock; connections of several processes are not to meet at each endpoint.
        await asyncio.sleep(uniform(0.0, PROBE_INTERVAL))  # noqa: S311  # no secret
        outcome = await self._connect(target.address, target.port)
        PROBES.labels(purpose, outcome).inc()
        return outcome

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _renewing(self, suspect: Target, now: float) -> list[Target]:
        """Return candidates for the controls of a suspect: of its service, and of others if those are too few."""
        own = self._candidates_of(suspect.service, [self._cache.get(suspect.service)], now)
        if len({target.address for target in own} - {suspect.address}) >= CONTROLS:
            return own
        return [*own, *self._candidates_of("", self._cache.services().values(), now)]

    def _candidates_of(self, key: str, snapshots: Iterable[Snapshot], now: float) -> list[Target]:
        found_at, candidates = self._candidates.get(key, (float("-inf"), []))
        if now - found_at >= _CANDIDATES_KEPT:
            self._candidates = {
                name: kept for name, kept in self._candidates.items() if now - kept[0] < _CANDIDATES_KEPT
            }
            candidates = self._find_candidates(snapshots, now)
            self._candidates[key] = now, candidates
        return candidates

    def _find_candidates(self, snapshots: Iterable[Snapshot], now: float) -> list[Target]:
        """Return endpoints that renew now and were reached, those that renewed last first."""
        leases, read_at = self._cache.leases, self._cache.leases_read_at
        if now - self._cache.leases_asked_at > MAX_READING_AGE:
            return []
        listed = (endpoint for snapshot in snapshots for endpoint in snapshot.endpoints.values())
        renewed = []
        for endpoint in islice(listed, _MAX_CONTROL_CANDIDATES):
            target = target_of(endpoint)
            if is_healthy(endpoint) and self._record.has_base_line(target, now) and self._may_probe(endpoint):
                renewed_at = renewed_at_of(endpoint, leases, read_at)
                if renewed_at is not None:
                    renewed.append((-renewed_at, target.endpoint_id, target))
        return [target for _, _, target in sorted(renewed)]

    def _statement(self, target: Target, now: float) -> Statement | None:
        conclusion = self._record.conclusion(target, now)
        address = None if conclusion is None else self._source(target.address)
        if conclusion is None or address is None:
            return None
        return Statement(
            self._id,
            address,
            conclusion.kind,
            conclusion.at,
            target.endpoint_id,
            target.incarnation,
            conclusion.reached_at,
            conclusion.attempts,
        )
