"""A steady load through Envoy, and the outcome of each request."""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from registry_demo.bootstrap import APP_HEADER, ENDPOINT_HEADER, FLAGS_HEADER
from registry_demo.connection import Connection

REQUEST_TIMEOUT = 7.0
"""Seconds; longer than the timeout of Envoy's route, whose answer says more than silence."""
MAX_IN_FLIGHT = 64
"""Requests that wait for an answer at once."""
MAX_OUTCOMES = 20_000
"""Outcomes that are remembered, the newest."""


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """One request: when it was sent, when it was over, which endpoint Envoy chose, and why it failed.

    Where Envoy does not say its choice, ``endpoint`` is the name that the app gave.
    """

    sent: float
    done: float
    endpoint: str
    failure: str


@dataclass
class TrafficCount:
    """Numbers of requests of one endpoint within a time."""

    passed: int = 0
    failed: int = 0


@dataclass
class Traffic:
    """Sender of ``rate`` requests a second: a slow answer does not slow the load."""

    port: int
    rate: float
    authority: str = "demo"
    """The Host of the requests."""
    sent: int = 0
    """Requests that are over, since the start; ``failed`` are those of them that failed."""
    failed: int = 0
    outcomes: deque[RequestOutcome] = field(default_factory=lambda: deque(maxlen=MAX_OUTCOMES))
    # Connections that are open, or can be opened again, and carry no request now.
    _idle: list[Connection] = field(default_factory=list)
    # Requests that wait for an answer.
    _requests: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> None:
        """Send until cancelled."""
        clock = asyncio.get_running_loop().time
        due = clock()
        try:
            while True:
                # After a pause of the whole machine the load goes on; it does not catch up in one burst.
                due = max(due + 1 / self.rate, clock() - 0.25)
                await asyncio.sleep(max(0.0, due - clock()))
                if len(self._requests) == MAX_IN_FLIGHT:
                    await asyncio.wait(self._requests, return_when=asyncio.FIRST_COMPLETED)
                task = asyncio.create_task(self._request(clock()))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
        finally:
            await self._close()

    def since(self, start: float, end: float = float("inf")) -> dict[str, TrafficCount]:
        """Count the requests that were sent from ``start`` to ``end``, by endpoint."""
        counts: dict[str, TrafficCount] = {}
        for outcome in reversed(self.outcomes):
            if outcome.done < start:
                break
            if start <= outcome.sent <= end:
                count = counts.setdefault(outcome.endpoint, TrafficCount())
                count.failed += bool(outcome.failure)
                count.passed += not outcome.failure
        return counts

    def total(self, start: float, end: float = float("inf")) -> int:
        """Return how many requests were sent from ``start`` to ``end``."""
        return sum(count.passed + count.failed for count in self.since(start, end).values())

    def failures(self, start: float) -> list[RequestOutcome]:
        """Return the requests that failed from ``start`` on, also those that were under way by then."""
        return [outcome for outcome in self.outcomes if outcome.failure and outcome.done >= start]

    def first_passed(self, endpoint: str, start: float) -> float | None:
        """Return when ``endpoint`` first answered a request that was sent from ``start`` on."""
        first = None
        for outcome in reversed(self.outcomes):
            if outcome.done < start:
                break
            if outcome.endpoint == endpoint and outcome.sent >= start and not outcome.failure:
                first = outcome.done
        return first

    def last_sent(self, endpoint: str) -> float:
        """Return when the last request that Envoy gave to ``endpoint`` was sent."""
        return max((outcome.sent for outcome in self.outcomes if outcome.endpoint == endpoint), default=0.0)

    async def _request(self, sent: float) -> None:
        connection = self._idle.pop() if self._idle else Connection(self.port, authority=self.authority)
        endpoint = ""
        try:
            answer = await connection.get("/work", REQUEST_TIMEOUT)
        except OSError as error:
            failure = str(error) or type(error).__name__
        else:
            endpoint = answer.headers.get(ENDPOINT_HEADER) or answer.headers.get(APP_HEADER, "")
            failure = "" if answer.status == 200 else f"{answer.status} {answer.headers.get(FLAGS_HEADER, '')}"
        self._idle.append(connection)
        self.sent += 1
        self.failed += bool(failure)
        self.outcomes.append(RequestOutcome(sent, asyncio.get_running_loop().time(), endpoint, failure))

    async def _close(self) -> None:
        if self._requests:
            await asyncio.wait(self._requests)
        for connection in self._idle:
            connection.close()
