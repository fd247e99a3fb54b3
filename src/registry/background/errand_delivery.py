"""Delivery of errands: hands them to the registrars that this process holds, and wakes those that wait for a result.

PostgreSQL's notifications make it fast, over the connection of the change feed; a look at the table every few seconds
makes it certain. An errand is marked as collected in PostgreSQL before its registrar gets it, so that of two processes
one hands it out.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog
from msgspec import Struct

from registry.core.endpoint import Key
from registry.core.errands import RETENTION, StoredErrand
from registry.errors import UnavailableError
from registry.metrics import ERRANDS_HELD, ROWS_LEFT_OUT
from registry.store import errands as store
from registry.store.database import Database
from registry.store.left_out import is_of_rows

log = structlog.get_logger()

PASS_INTERVAL = 0.5
"""Seconds between two passes; one without anything new reads nothing."""
_LISTENING_INTERVAL = 5.0
"""Seconds after which the table is read where PostgreSQL notifies, since a notification can be lost."""
_MAX_RESULTS = 64
"""Results that this process keeps for askers while PostgreSQL is away."""

LOST = "asked for its next errand and has not answered this one: it was restarted, or its connection broke; ask again"
"""Why an errand is lost, behind the name of its registrar."""

MayTake = Callable[[StoredErrand], bool]
"""Tells whether the registrar of a held request may get an errand."""


class Hold:
    """A held request of a registrar for its next errand."""

    __slots__ = ("errand", "has_ended", "keys", "may_take")

    def __init__(self, keys: frozenset[Key], may_take: MayTake, has_ended: Callable[[], bool]) -> None:
        self.keys = keys
        """The endpoints that the registrar speaks for."""
        self.may_take = may_take
        self.has_ended = has_ended
        """Tells whether the credential of the request was revoked, expired or changed since."""
        self.errand: asyncio.Future[StoredErrand | None] = asyncio.get_running_loop().create_future()
        """Its errand.

        None: another request of the same registrar has taken its place, its credential has ended, or the process stops.
        """

    async def wait(self, seconds: float) -> StoredErrand | None:
        """Return the errand when there is one, or None after some seconds."""
        # Shielded by wait(): an errand that comes in the turn of the time-out is still seen.
        await asyncio.wait({self.errand}, timeout=seconds)
        return self.errand.result() if self.errand.done() else None


class _KeptResult(Struct, frozen=True):
    errand: StoredErrand
    until: float


class ErrandDelivery:
    """The requests for errands that one process holds, and the askers that wait on it.

    Args:
        database: where errands are kept.
        max_held: requests that are held at once.
        listens: whether PostgreSQL notifies of errands.
    """

    def __init__(self, database: Database, max_held: int, *, listens: bool) -> None:
        self._database = database
        self._max_held = max_held
        self._interval = _LISTENING_INTERVAL if listens else PASS_INTERVAL
        self._holds: dict[Key, Hold] = {}
        """The held request of each endpoint's registrar. Written by hold() and _end()."""
        self._all: set[Hold] = set()
        """The requests that are held. Written as the former."""
        self._waiters: dict[str, set[asyncio.Event]] = {}
        """Those that wait for the result of an errand, by its id. Written by wait()."""
        self._kept: OrderedDict[str, _KeptResult] = OrderedDict()
        """Results that came here, the oldest first; those of all processes are in PostgreSQL. Written by keep()."""
        self._active: list[StoredErrand] = []
        """The errands that nobody has answered, as of the last pass."""
        self._wake = asyncio.Event()
        """Set when there may be something to hand out."""
        self._read_at = float("-inf")
        """Monotonic time of the last read."""
        self.released = False
        """Whether the process stops, and nothing is waited for any more. Written by release()."""

    @property
    def held(self) -> int:
        """The number of requests that are held now."""
        return len(self._all)

    def nudge(self, errand_id: str) -> None:
        """Take note of a notification: an errand was asked, or has ended."""
        for waiter in self._waiters.get(errand_id, ()):
            waiter.set()
        self._wake.set()

    def hold(self, keys: frozenset[Key], may_take: MayTake, has_ended: Callable[[], bool]) -> Hold | None:
        """Hold a request of a registrar in place of its earlier one; None if too many are held."""
        for other in {id(hold): hold for key in keys if (hold := self._holds.get(key)) is not None}.values():
            self._end(other, None)
        if len(self._all) >= self._max_held or self.released:
            return None
        hold = Hold(keys, may_take, has_ended)
        self._all.add(hold)
        self._holds |= dict.fromkeys(keys, hold)
        ERRANDS_HELD.set(len(self._all))
        if any(errand.key in keys for errand in self._active):
            self._wake.set()
        return hold

    async def take(self, keys: frozenset[Key], may_take: MayTake) -> StoredErrand | None:
        """Return an errand that waits for a registrar whose request cannot be held; None if there is none.

        Raises:
            UnavailableError: it could not be marked as collected, and goes on waiting.
        """
        for errand in self._active:
            if errand.key in keys and errand.state == "asked" and may_take(errand):
                collected = await store.collect(self._database, errand.id)
                if collected is not None:
                    return collected
        return None

    def let_go(self, hold: Hold) -> None:
        """Forget a held request that was answered, or whose registrar has disconnected."""
        self._end(hold, None)

    def release(self) -> None:
        """Answer all held requests and all who wait, so that stopping does not wait for them."""
        self.released = True
        for hold in list(self._all):
            self._end(hold, None)
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.set()

    async def lose_unanswered(self, keys: Iterable[Key]) -> None:
        """End the errands that a registrar was given before: it asks for the next one instead."""
        mine = frozenset(keys)
        # What is collected, PostgreSQL knows; this process has read it as it was at the last notification.
        if any(errand.key in mine for errand in self._active):
            with suppress(UnavailableError):
                for errand_id in await store.lose(self._database, mine, LOST):
                    self.nudge(errand_id)

    async def run(self) -> None:
        """Hand out errands as they are asked, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PASS_INTERVAL):
                    await self._wake.wait()
            # They ask again at once, and are told why they may not, or go on with what they may now.
            for hold in [hold for hold in self._all if hold.has_ended()]:
                self._end(hold, None)
            try:
                await self._pass()
            except UnavailableError:
                # The change feed says so. Errands wait, and their askers are answered that PostgreSQL is away.
                await asyncio.sleep(PASS_INTERVAL)
            except Exception:
                log.exception("errands_not_delivered")
                await asyncio.sleep(PASS_INTERVAL)

    async def _pass(self) -> None:
        due = time.monotonic() - self._read_at >= self._interval
        if not self._wake.is_set() and not due:
            return
        nudged = self._wake.is_set()
        self._wake.clear()
        if not nudged and not self._all and not self._waiters:
            return
        self._read_at = time.monotonic()
        self._active = await store.active(self._database)
        if due:
            # A notification may have been lost.
            for waiters in self._waiters.values():
                for waiter in waiters:
                    waiter.set()
        for errand in self._active:
            if errand.state != "asked":
                continue
            try:
                await self._deliver(errand)
            except Exception as error:
                # Of this errand alone: it is tried again at the next read, and the others are handed out.
                if not is_of_rows(error):
                    raise
                ROWS_LEFT_OUT.labels("errands").inc()
                reason = error.cause if isinstance(error, UnavailableError) else repr(error)
                log.warning("errand_not_delivered", errand=errand.id, service=errand.service, reason=reason)

    async def _deliver(self, errand: StoredErrand) -> None:
        hold = self._holds.get(errand.key)
        if hold is None or not hold.may_take(errand):
            return
        collected = await store.collect(self._database, errand.id)
        if collected is None:
            return
        if hold.errand.done():
            await store.give_back(self._database, errand.id)
            return
        self._end(hold, collected)

    def _end(self, hold: Hold, errand: StoredErrand | None) -> None:
        if not hold.errand.done():
            hold.errand.set_result(errand)
        self._all.discard(hold)
        for key in hold.keys:
            if self._holds.get(key) is hold:
                del self._holds[key]
        ERRANDS_HELD.set(len(self._all))

    def keep(self, errand: StoredErrand) -> None:
        """Keep a result that came here, for askers of this process while PostgreSQL is away, and wake them."""
        self._kept[errand.id] = _KeptResult(errand, time.monotonic() + RETENTION)
        while len(self._kept) > _MAX_RESULTS or next(iter(self._kept.values())).until < time.monotonic():
            self._kept.popitem(last=False)
            if not self._kept:
                break
        self.nudge(errand.id)

    def kept(self, errand_id: str) -> StoredErrand | None:
        """Return an errand whose result came here; None if it did not, or is not kept any more."""
        kept = self._kept.get(errand_id)
        return None if kept is None or kept.until < time.monotonic() else kept.errand

    async def wait(self, errand_id: str, seconds: float) -> None:
        """Wait until something may have happened to an errand, for some seconds at most."""
        if self.released:
            return
        waiter = asyncio.Event()
        self._waiters.setdefault(errand_id, set()).add(waiter)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await waiter.wait()
        finally:
            self._waiters[errand_id].discard(waiter)
            if not self._waiters[errand_id]:
                del self._waiters[errand_id]
