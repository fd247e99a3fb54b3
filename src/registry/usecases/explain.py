"""Why an endpoint is, or is not, getting traffic, with what happened to it."""

import asyncio
import datetime as dt
import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.evidence import EvidenceReader
from registry.background.subscriber_sync import SubscriberSync
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively, in_order
from registry.core.endpoint import Endpoint, Key, Quarantined
from registry.core.expiry_guard import Candidate, Pause
from registry.core.explain import Circumstances, Explanation, explain
from registry.core.history import EventFilter, RecordedEvent, without_hidden
from registry.core.lease import Lease
from registry.core.presence import is_lost, loss_in_words
from registry.core.shares import share_of
from registry.core.silence import Silence, is_silent, pause_of
from registry.core.subscriber_status import ClusterSubscribers, State, SubscriberFilter, SubscriberStatus
from registry.errors import NotFoundError, UnavailableError
from registry.settings import Settings
from registry.store import history, leases, pauses
from registry.store.database import Database, read_clock
from registry.usecases.silence import Silences
from wire.address import format_endpoint

_MAX_EVENTS = 50
"""Events of an endpoint that its explanation shows."""
_MAX_NAMED_CLIENTS = 3
"""Clients that an explanation names because they go by older endpoints."""
_OUTDATED: Sequence[State] = ("rejected", "stuck", "behind")
"""States of clients that go by older endpoints, the clearest first. Silent ones may be gone."""
_DATABASE_TIMEOUT = 1.5
"""Seconds to wait for PostgreSQL before an endpoint is explained from memory: people who ask are in a hurry."""

_NOT_LISTED = Explanation(
    served=False,
    because=["it is not listed; whether and why it left is in the history, which PostgreSQL has"],
    would_change=["a registration by an instance that has not left"],
)


class Away(Struct, frozen=True):
    """The absence of PostgreSQL: the reason, and what an explanation lacks without it, in words."""

    reason: str
    missing: list[str]


class ExplainedEndpoint(Struct, frozen=True):
    """An endpoint with the reasons for what it is.

    Attributes:
        key: service, address and port.
        endpoint: None when it is not listed.
        lease: its lease, as of the last reading of the leases.
        silence: its silence; None when it is not silent.
        explanation: why it is, or is not, served.
        events: the last of its events, the oldest first.
        away: why and how much is missing, because PostgreSQL is away and this is from memory; None: nothing is.
    """

    key: Key
    endpoint: Endpoint | None
    lease: Lease | None
    silence: Silence | None
    explanation: Explanation
    events: Sequence[RecordedEvent]
    away: Away | None = None


class Explanations:
    """Explains endpoints.

    Args:
        policy: decides who may read.
        database: where pauses, leases and the history are.
        cache: where the endpoints are.
        settings: how long endpoints stay listed.
        reads: held while the history is read, as in ``History``.
        silences: tells whether an endpoint is silent.
        evidence: reads the evidence of whether a silent endpoint is dead.
        subscribers: knows which clients go by an older version of a service.
    """

    def __init__(  # noqa: PLR0913  # everything that an explanation comes from
        self,
        policy: Policy,
        database: Database,
        cache: SnapshotCache,
        settings: Settings,
        reads: asyncio.Semaphore,
        silences: Silences,
        evidence: EvidenceReader,
        subscribers: SubscriberSync,
    ) -> None:
        self._subscribers = subscribers
        self._silences = silences
        self._evidence = evidence
        self._policy = policy
        self._database = database
        self._cache = cache
        self._settings = settings
        self._reads = reads

    async def explain(self, principal: Principal, key: Key) -> ExplainedEndpoint:
        """Explain an endpoint with all that PostgreSQL knows of it, or from memory while PostgreSQL is away.

        Raises:
            NotFoundError: it was never registered, or longer ago than history is kept.
            UnavailableError: this process cannot read its service.
        """
        self._policy.allow(principal, Verb.READ, key[0], format_endpoint(*key[1:]))
        wanted = SubscriberFilter(service=key[0])
        explained, subscribers = await asyncio.gather(
            self._explain_soon(principal, key), self._subscribers.list_subscribers(wanted)
        )
        explanation = explained.explanation
        because = [*explanation.because, *await _clients(subscribers, self._cache.clock.now())]
        return replace(explained, explanation=replace(explanation, because=because))

    async def _explain_soon(self, principal: Principal, key: Key) -> ExplainedEndpoint:
        """Explain an endpoint without PostgreSQL if that does not answer soon."""
        try:
            async with asyncio.timeout(_DATABASE_TIMEOUT):
                return await self._explain(principal, key)
        except UnavailableError as error:
            return self._explain_from_memory(key, str(error))
        except TimeoutError:
            return self._explain_from_memory(key, f"PostgreSQL did not answer within {_DATABASE_TIMEOUT:g} s")

    async def _explain(self, principal: Principal, key: Key) -> ExplainedEndpoint:
        wanted = EventFilter(service=key[0], address_port=key[1:], limit=_MAX_EVENTS)
        async with self._reads:
            newest_first = await history.find_events(self._database, wanted)
        reach = self._policy.reach(principal, Verb.READ)
        events = [without_hidden(event, reach) for event in reversed(newest_first)]
        endpoint = self._cache.find(key)
        if endpoint is not None:
            return self._listed(endpoint, await self._circumstances(endpoint), events)
        quarantined = self._quarantined(key)
        if quarantined is not None:
            return _unlisted(key, _explain_quarantined(quarantined), events)
        lost = self._lost(key)
        if lost:
            return _unlisted(key, _explain_lost(lost), events)
        # It may be listed for all that this process knows.
        self._cache.check_sure(key[0])
        if not events:
            name = format_endpoint(*key[1:])
            raise NotFoundError(f"{name} was never registered for {key[0]}, or longer ago than history is kept")
        return _unlisted(key, _explain_departed(_last_change(events)), events)

    def _explain_from_memory(self, key: Key, reason: str) -> ExplainedEndpoint:
        """Explain an endpoint by what this process knows.

        Args:
            key: service, address and port.
            reason: why PostgreSQL cannot be asked.

        Raises:
            NotFoundError: its service is not known.
            UnavailableError: this process cannot read its service.
        """
        away = Away(reason, self._missing())
        endpoint, quarantined = self._cache.find(key), self._quarantined(key)
        if endpoint is not None:
            return replace(self._listed(endpoint, self._remembered(endpoint), []), away=away)
        if quarantined is not None:
            return replace(_unlisted(key, _explain_quarantined(quarantined), []), away=away)
        lost = self._lost(key)
        if lost:
            return replace(_unlisted(key, _explain_lost(lost), []), away=away)
        if self._cache.knows(key[0]):
            return replace(_unlisted(key, _NOT_LISTED, []), away=away)
        raise NotFoundError(f"{format_endpoint(*key[1:])} is not listed for {key[0]}; its history is in PostgreSQL")

    def _remembered(self, endpoint: Endpoint) -> Circumstances:
        """Return the circumstances of an endpoint as this process read them last."""
        cache = self._cache
        now, pause = cache.clock.now(), pause_of(endpoint.service, cache.pauses)
        if pause is not None and pause.until <= now:
            pause = None
        around = self._around(endpoint, now=now, lease=cache.leases.get(endpoint.id), pause=pause)
        return replace(around, read_ago=now - cache.leases_read_at)

    def _missing(self) -> list[str]:
        """Return in words what an explanation from memory lacks."""
        read_at = self._cache.leases_read_at
        if not read_at:
            return ["heartbeats and pauses", "the history"]
        return [f"heartbeats and pauses since {dt.datetime.fromtimestamp(read_at, dt.UTC):%H:%M:%S} UTC", "the history"]

    def _quarantined(self, key: Key) -> Quarantined | None:
        return self._cache.get(key[0]).quarantined.get(key[1:])

    def _lost(self, key: Key) -> str:
        """Return the loss of an endpoint that is not listed, in words; empty: it is not lost."""
        now = self._cache.clock.now()
        lost = (row for row in self._cache.get(key[0]).lost.values() if row.key == key and is_lost(row, now))
        return next((loss_in_words(row, now) for row in lost), "")

    async def _circumstances(self, endpoint: Endpoint) -> Circumstances:
        async with self._database.reading() as connection:
            in_force = await pauses.in_force(connection)
            lease = await leases.lease_of(connection, endpoint.id)
            now = await read_clock(connection)
        around = self._around(endpoint, now=now, lease=lease, pause=pause_of(endpoint.service, in_force))
        if lease is None or not is_silent(endpoint):
            return around
        evidence = await self._evidence.of([_candidate(endpoint, lease)], now)
        return replace(around, evidence=evidence[endpoint.id])

    def _around(self, endpoint: Endpoint, *, now: float, lease: Lease | None, pause: Pause | None) -> Circumstances:
        snapshot = self._cache.get(endpoint.service)
        siblings, shares = snapshot.endpoints.values(), snapshot.shares
        return Circumstances(
            now=now,
            lease=lease,
            pause=pause,
            has_routable=any(sibling.routable for sibling in siblings),
            removal_delay=self._settings.removal_delay,
            last_hold=self._settings.last_endpoint_hold,
            share=None if shares is None else share_of(endpoint, shares),
            share_weights=0 if shares is None else sum(each.share_weight or 0 for each in siblings if each.routable),
        )

    def _listed(self, endpoint: Endpoint, around: Circumstances, events: Sequence[RecordedEvent]) -> ExplainedEndpoint:
        lease = self._cache.leases.get(endpoint.id)
        silence = self._silences.of(endpoint)
        return ExplainedEndpoint(endpoint.key, endpoint, lease, silence, explain(endpoint, around), events)


async def _clients(subscribers: ClusterSubscribers, now: float) -> list[str]:
    """Return in words which clients go by older endpoints, in at most five lines.

    The last line says how many are behind edges. There may be ten thousand, so they are looked at in turns.
    """
    outdated = await in_order(
        [each async for each in cooperatively(subscribers.statuses) if each.evaluation.state in _OUTDATED],
        lambda each: (_OUTDATED.index(each.evaluation.state), each.report.identity),
    )
    lines = [
        f"{each.report.node_id or 'a client without a node id'} at {each.report.address} {each.evaluation.reason}"
        for each in outdated[:_MAX_NAMED_CLIENTS]
    ]
    others = len(outdated) - len(lines)
    if others:
        lines.append(f"{others} more clients do not go by the newest endpoints either")
    return [*lines, *await _behind_edges(subscribers.statuses, now)]


async def _behind_edges(clients: Sequence[SubscriberStatus], now: float) -> list[str]:
    """Return how many clients are behind edges, whose word is all that is known of them; empty if none is."""
    behind = [each async for each in cooperatively(clients) if each.report.edge]
    if not behind:
        return []
    ages: dict[bool, list[float]] = {True: [], False: []}
    async for each in cooperatively(behind):
        ages[each.evaluation.state == "silent"].append(max(0.0, now - each.report.seen_at))
    current = len([each async for each in cooperatively(behind) if each.evaluation.state == "current"])
    words = f"{len(behind)} of {len(clients)} clients are behind an edge, and {current} of these are current"
    if ages[False]:
        words += f", by what their edges told within {math.ceil(max(ages[False]))} s"
    if ages[True]:
        words += (
            f"; of {len(ages[True])} nothing was heard for up to {math.ceil(max(ages[True]))} s: they are gone, or "
            "their edges go on with what they have"
        )
    return [words]


def _candidate(endpoint: Endpoint, lease: Lease) -> Candidate:
    return Candidate(
        endpoint.id,
        endpoint.service,
        lease.expires_at,
        address=endpoint.address,
        port=endpoint.port,
        incarnation=endpoint.registration.incarnation,
    )


def _unlisted(key: Key, explanation: Explanation, events: Sequence[RecordedEvent]) -> ExplainedEndpoint:
    return ExplainedEndpoint(key, None, None, None, explanation, events)


def _explain_lost(loss: str) -> Explanation:
    because = [f"it is not listed, because it was lost: {loss}"]
    changes = [
        "a registration by its instance, or by another one at its address",
        "nothing, if the host is gone for good: its loss is acknowledged on the page of its service",
    ]
    return Explanation(served=False, because=because, would_change=changes)


def _last_change(events: Sequence[RecordedEvent]) -> RecordedEvent:
    """Return the last event that left the endpoint with a status; errands leave none, and no endpoint by them."""
    return next((event for event in reversed(events) if event.status), events[-1])


def _explain_departed(last: RecordedEvent) -> Explanation:
    because = [f"it is not listed; last: {last.kind}: {last.reason} (by {last.actor})"]
    return Explanation(served=False, because=because, would_change=["a registration by an instance that has not left"])


def _explain_quarantined(row: Quarantined) -> Explanation:
    because = [f"it is quarantined, since Envoy would reject the whole answer for it: {row.reason}"]
    return Explanation(served=False, because=because, would_change=["a registration of the address by an instance"])
