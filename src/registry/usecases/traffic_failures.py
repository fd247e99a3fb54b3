"""The pairs whose requests fail, as verdicts have them: added up for all of them together, and not too often."""

import asyncio
import time

import structlog

from registry.background.traffic_exchange import TrafficExchange
from registry.cooperative import in_order, in_turns
from registry.core.traffic_failures import failing_pairs_in_steps, severity
from registry.core.verdict.facts import TrafficFacts

log = structlog.get_logger()

MIN_AGE = 1.0
"""Seconds for which the last facts are used."""
_MAX_SHARE = 0.02
"""The part of the time in which they are made: beyond it they are made less often, so that discovery goes on."""
_MAX_AGE = 20.0
"""Seconds after which they are made again, however long that takes, and after which they say nothing any more."""
_TIMEOUT = 0.5
"""Seconds to wait for the next facts; the last ones do until then."""


class TrafficFailures:
    """Knows which pairs fail in the tables of all processes.

    Args:
        exchange: has the tables.
    """

    def __init__(self, exchange: TrafficExchange) -> None:
        self._exchange = exchange
        self._facts: TrafficFacts | None = None
        """The last facts; as old as the last question that needed newer ones."""
        self._made_at = 0.0
        """When they were made (monotonic)."""
        self._due = 0.0
        """Monotonic time from which they are made again."""
        self._making: asyncio.Task[None] | None = None
        """The ones under way, or the last ones."""

    async def facts(self) -> TrafficFacts | None:
        """Return what is known now or was a moment ago; None: it could not be added up in time."""
        if time.monotonic() >= self._due:
            if self._making is None or self._making.done():
                self._making = asyncio.create_task(self._make_or_log())
            await asyncio.wait({self._making}, timeout=_TIMEOUT)
        return self._facts if time.monotonic() - self._made_at <= _MAX_AGE else None

    async def _make_or_log(self) -> None:
        try:
            await self._make()
        except Exception:
            # A defect: the verdict says that nothing is known, and it is not tried again at once.
            self._due = time.monotonic() + _MAX_AGE
            log.exception("traffic_failures_not_known")

    async def _make(self) -> None:
        begun = time.monotonic()
        exchange = self._exchange
        others = exchange.pairs_of_others()
        failing = await in_order(await in_turns(failing_pairs_in_steps(exchange.table, others, begun)), severity)
        self._facts = TrafficFacts(failing, bool(len(exchange.table) or any(others)), exchange.complete)
        self._made_at = time.monotonic()
        self._due = begun + min(max(MIN_AGE, (self._made_at - begun) / _MAX_SHARE), _MAX_AGE)
