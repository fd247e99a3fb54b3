"""The hot path of writes: most heartbeats change nothing and only renew a lease, many in one statement."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

from registry.core.abilities import Ability
from registry.core.endpoint import Endpoint
from registry.errors import RefusedError, RegistryError, UnavailableError
from registry.metrics import COMMIT_SECONDS, COMMIT_SIZE, HEARTBEATS
from registry.store import leases
from registry.store.database import Database, Session, is_closed
from registry.store.failures import retry_if_stale
from registry.usecases.group_commit import GroupCommit, RolledBackError, rolled_back
from wire.model import Registration

Renewal = tuple[int, int, int]
"""A lease to renew: the endpoint's id, the incarnation that renews it, and the change that the endpoint is at."""
Renewals = tuple[Renewal, ...]

# Bound once: to find them by their labels takes as long as to read a heartbeat.
_RENEWED, _FAILED = HEARTBEATS.labels("renewed"), HEARTBEATS.labels("failed")
_SIZE, _SECONDS = COMMIT_SIZE.labels("renewal"), COMMIT_SECONDS.labels("renewal")


# A fleet of 10,000 endpoints renews 2,000 leases a second, each by itself. Stored in twos as they come, renewals cost
# PostgreSQL three times what they cost in twenties, and polls wait for it. A registrar can wait 10 ms.
_BATCH_INTERVAL = 0.01
"""Seconds between the beginnings of two batches at least, unless as many renewals wait as are enough for one."""
_ENOUGH = 16
"""Renewals for which a batch begins as soon as the last one is stored."""


class LeaseRenewals:
    """Renews leases in batches, at most one at a time.

    Args:
        database: where the leases are.
        ability: notes whether renewals can be stored.
    """

    def __init__(self, database: Database, ability: Ability) -> None:
        self._database = database
        self._ability = ability
        self._commit: GroupCommit[Renewals, list[bool]] = GroupCommit(
            self._store, max_batch=1000, max_waiting=20_000, weight_of=len, min_interval=_BATCH_INTERVAL, enough=_ENOUGH
        )
        self._row_refused = False
        """Whether a row was refused since one was stored last; then an empty batch that is stored proves nothing."""
        self._session: Session | None = None
        """The connection that renewals keep; None until the first one, and after a failure."""
        self._lent = AsyncExitStack()
        """Gives the connection back when it is closed."""

    def renew(self, endpoints: Sequence[Endpoint]) -> asyncio.Future[list[bool]]:
        """Renew the leases of endpoints that one request names.

        The future tells for each whether it was renewed. It was not when it has no lease any more, or when another
        process changed it. The future fails with an ``UnavailableError`` when nothing could be stored.

        Raises:
            UnavailableError: too many wait already.
        """
        try:
            return self._commit.put(
                tuple((endpoint.id, endpoint.registration.incarnation, endpoint.change) for endpoint in endpoints)
            )
        except UnavailableError:
            _FAILED.inc(len(endpoints))
            raise

    async def probe(self) -> None:
        """Try to renew nothing, so that a failure is known to last, or to be over, while no heartbeat comes."""
        with suppress(Exception):  # whatever it is, it was reported where it was raised
            await self._commit.submit(())

    async def aclose(self) -> None:
        """Give the connection back."""
        self._session = None
        with suppress(UnavailableError):
            await self._lent.aclose()

    async def _connection(self) -> Session:
        """Return the connection that renewals keep: to take one from the pool costs as much as to renew a lease."""
        if self._session is not None and await is_closed(self._session):
            await self.aclose()
        if self._session is None:
            self._session = await self._lent.enter_async_context(self._database.keep(by_index=True))
        return self._session

    async def _renew(self, renewals: Collection[Renewal]) -> leases.Renewed:
        try:
            return await leases.renew(await self._connection(), renewals)
        except RefusedError as error:
            if error.stale:
                await self.aclose()
            raise
        except Exception:
            # After a defect as well: the connection is gone, and to look whether it is closed would open another one.
            await self.aclose()
            raise

    async def _store(self, requests: Sequence[Renewals]) -> Sequence[list[bool] | RegistryError]:
        started = time.perf_counter()
        renewals = [renewal for request in requests for renewal in request]
        # Of two renewals of one endpoint the later one counts: the other one's lease is not there any more.
        newest = {renewal[0]: renewal for renewal in renewals}
        try:
            with rolled_back():
                stored = await retry_if_stale(partial(self._renew, newest.values()))
        except UnavailableError as error:
            _FAILED.inc(len(renewals))
            self._ability.failed(error.cause, time.monotonic())
            raise
        except RolledBackError as error:
            # Counted once the batch is so small that it is known which request failed.
            if len(requests) == 1:
                _FAILED.inc(len(renewals))
                self._note_refusal(error.__cause__)
            raise
        self._row_refused = self._row_refused and not renewals
        if not self._row_refused:
            self._ability.worked(time.monotonic())
        _SIZE.observe(len(renewals))
        _SECONDS.observe(time.perf_counter() - started)
        outcomes = [_outcome(request, newest, stored) for request in requests]
        _RENEWED.inc(sum(sum(outcome) for outcome in outcomes if isinstance(outcome, list)))
        return outcomes

    def _note_refusal(self, cause: BaseException | None) -> None:
        if isinstance(cause, RefusedError):
            self._row_refused = True
            self._ability.refused(cause.cause, time.monotonic())


def _outcome(request: Renewals, newest: Mapping[int, Renewal], stored: leases.Renewed) -> list[bool] | RegistryError:
    if stored.locked and any(endpoint_id in stored.locked for endpoint_id, _, _ in request):
        # The whole request is sent again; to renew the others twice does no harm.
        _FAILED.inc(len(request))
        return UnavailableError("another session of PostgreSQL holds a lock on the lease; retry later")
    return [renewal[0] in stored.renewed and newest[renewal[0]] == renewal for renewal in request]


def only_renews(endpoint: Endpoint | None, registration: Registration) -> bool:
    """Return whether a heartbeat says nothing new of an endpoint, so that only its lease is to be stored."""
    if endpoint is None or endpoint.lapsed_at is not None or endpoint.leaving_at is not None:
        return False
    if endpoint.suspect_since is not None:
        return False
    return endpoint.registration == registration
