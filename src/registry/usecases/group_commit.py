"""Adaptive group commit: while one batch is being stored, the next one gathers.

A lone item is stored at once. Of many items, a batch takes those that arrived while the batch before was stored and its
results were sent. Small batches that would
follow one another at once may be kept a minimum interval apart. Heartbeats are batched so by
``registry.usecases.lease_renewal``, changes by ``registry.usecases.registration``.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Generic, TypeVar

import structlog

from registry.errors import RefusedError, RegistryError, UnavailableError

log = structlog.get_logger()

_CROWDED = "too many writes are waiting for PostgreSQL"

Item = TypeVar("Item")
Result = TypeVar("Result")


class RolledBackError(Exception):
    """Raised from the cause when nothing of a batch was stored, and one of its items may be to blame."""


@contextmanager
def rolled_back() -> Iterator[None]:
    """Mark the part of a store before its commit: an error there stored nothing, so the batch may be retried.

    An outage, and an error that concerns all rows, holds for each item and is raised as it is.
    """
    try:
        yield
    except UnavailableError as error:
        if isinstance(error, RefusedError) and error.row_specific:
            raise RolledBackError from error
        raise
    except Exception as error:
        raise RolledBackError from error


class GroupCommit(Generic[Item, Result]):
    """Stores items in batches, one batch at a time.

    Args:
        store: stores a batch; returns for each item a result or the error that it alone deserves. After a
            ``RolledBackError`` it is called again, with halves of the batch; after any other error it is not, because
            the batch may have been stored.
        max_batch: a batch takes no further item from this weight on.
        max_waiting: weight that may wait; beyond it items are refused, so that memory stays bounded.
        weight_of: returns the weight of an item; 1 by default.
        min_interval: seconds between the beginnings of two batches at least, unless ``enough`` wait: a batch of few
            costs nearly as much as one of many.
        enough: weight for which a batch begins as soon as the last one is stored.
        on_idle: called each time when everything is stored and nothing waits.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Item]], Awaitable[Sequence[Result | RegistryError]]],
        *,
        max_batch: int,
        max_waiting: int,
        weight_of: Callable[[Item], int] = lambda _item: 1,
        min_interval: float = 0.0,
        enough: int = 1,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._on_idle = on_idle
        self._max_batch = max_batch
        self._min_interval = min_interval
        self._enough = enough
        self._crowded = asyncio.Event()
        """Set when enough items wait for a batch to begin at once."""
        self._next_at = 0.0
        """When the next batch may begin, on the loop's clock."""
        self._max_waiting = max_waiting
        self._weight_of = weight_of
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._weight = 0
        """Of all items that wait."""
        self._worker: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Return once the item is stored.

        Raises:
            UnavailableError: it could not be stored, or too many wait already.
            RegistryError: the item was refused.
        """
        return await self.put(item)

    def put(self, item: Item) -> "asyncio.Future[Result]":
        """Return the future of what ``submit`` returns, for callers that would need a task for each item otherwise.

        Raises:
            UnavailableError: too many wait already.
        """
        if self._weight >= self._max_waiting:
            raise UnavailableError(_CROWDED)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._weight += self._weight_of(item)
        if self._weight >= self._enough:
            self._crowded.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return future

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                # An item whose client disconnected meanwhile is not stored.
                batch = [(item, future) for item, future in self._next() if not future.cancelled()]
                if batch:
                    await self._commit(batch)
                if self._waiting:
                    await _let_others_in()
        finally:
            self._worker = None
            self._on_idle()

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        left = self._next_at - loop.time()
        if left > 0 and self._weight < self._enough:
            self._crowded.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._crowded.wait()
        self._next_at = loop.time() + self._min_interval

    def _next(self) -> Iterator[tuple[Item, "asyncio.Future[Result]"]]:
        weight = 0
        while self._waiting and weight < self._max_batch:
            item, future = self._waiting.popleft()
            weight += self._weight_of(item)
            yield item, future
        self._weight -= weight

    async def _commit(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._store([item for item, _ in batch])
        except UnavailableError as error:
            results = [error] * len(batch)
        except RolledBackError as error:
            if len(batch) > 1:
                # The item that cannot be stored must not take the others with it.
                middle = len(batch) // 2
                await self._commit(batch[:middle])
                await self._commit(batch[middle:])
                return
            results = [_cause(error)]
        except Exception as error:
            log.exception("group_commit_failed", items=len(batch))
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.cancelled():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _cause(error: RolledBackError) -> Exception:
    cause = error.__cause__
    return cause if isinstance(cause, Exception) else error


async def _let_others_in() -> None:
    """Let responses be sent and sockets be read: under load, batches are a third larger for it.

    It takes two turns of the loop: in the first one the loop runs what waits for the results, and only then it reads
    the sockets.
    """
    await asyncio.sleep(0)
    await asyncio.sleep(0)


class Lanes(Generic[Item, Result]):
    """A group commit for each name with items under way, so that a stuck name delays no other.

    Args:
        store: stores a batch of one lane.
        max_batch: most items of one batch.
        max_waiting: most items that may wait in all lanes together.
        max_batches: most batches that are stored at a time.
    """

    def __init__(
        self,
        store: Callable[[Sequence[Item]], Awaitable[Sequence[Result | RegistryError]]],
        *,
        max_batch: int,
        max_waiting: int,
        max_batches: int,
    ) -> None:
        self._store = store
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._turns = asyncio.Semaphore(max_batches)
        self._lanes: dict[str, GroupCommit[Item, Result]] = {}
        """By name, while a batch of it is being stored: a second one would take a turn from others."""
        self._waiting = 0
        """Callers of submit() that wait, for all names."""

    async def submit(self, lane: str, item: Item) -> Result:
        """Return once the item is stored.

        Raises:
            UnavailableError: it could not be stored, or too many wait already.
            RegistryError: the item was refused.
        """
        if self._waiting >= self._max_waiting:
            raise UnavailableError(_CROWDED)
        if lane not in self._lanes:
            self._lanes[lane] = GroupCommit(
                self._in_turn,
                max_batch=self._max_batch,
                max_waiting=self._max_waiting,
                on_idle=partial(self._close, lane),
            )
        self._waiting += 1
        try:
            return await self._lanes[lane].submit(item)
        finally:
            self._waiting -= 1

    def _close(self, lane: str) -> None:
        del self._lanes[lane]

    async def _in_turn(self, items: Sequence[Item]) -> Sequence[Result | RegistryError]:
        async with self._turns:
            return await self._store(items)
