"""Queues of compiler jobs: one job runs at a time, and no principal takes all of the places."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager

from registry.compiler.job import Job, Result
from registry.errors import LimitError

_RETRY_AFTER = 5.0
"""Seconds after which a request that found the queue full may be sent again."""


class JobQueue:
    """Jobs of one kind, in the order in which they come.

    Args:
        name: what the jobs are, for the error, and for the name of the limit.
        capacity: requests that have a place in it at most; each may hold a repository of 16 MiB in memory.
        share: places that one principal has at most.
        work: does a job.
    """

    def __init__(self, name: str, capacity: int, share: int, work: Callable[[Job], Awaitable[Result]]) -> None:
        self.capacity = capacity
        self._name = name
        self._share = share
        self._work = work
        self._turn = asyncio.Semaphore(1)
        self._places: Counter[str] = Counter()
        """Places that are taken, by principal. Written by place()."""
        self._shared: dict[Hashable, asyncio.Task[Result]] = {}
        """Jobs that run or wait and whose result several requests may share, by their key. Written by run_shared()."""

    @contextmanager
    def place(self, principal: str) -> Iterator[None]:
        """Keep a place for a request of a principal.

        Raises:
            LimitError: all places are taken, or the principal has its share of them.
        """
        own = self._places[principal]
        if own >= self._share or self._places.total() >= self.capacity:
            raise LimitError(
                f"{self._places.total()} {self._name} run or wait, {own} of them yours; "
                f"at most {self.capacity} may, {self._share} of one sender; try again",
                f"mesh {self._name}",
                _RETRY_AFTER,
            )
        self._places[principal] += 1
        try:
            yield
        finally:
            self._places[principal] -= 1
            # Principals come and go for as long as the process lives.
            self._places += Counter()

    async def run(self, job: Job) -> Result:
        """Return the result of a job, once those before it are done.

        Raises:
            InvalidError: the document of the request has a wrong value.
            UnreadableError: it is no JSON.
            UnavailableError: the process failed, or took too long.
        """
        async with self._turn:
            return await self._work(job)

    async def run_shared(self, key: Hashable, principal: str, job: Job) -> Result:
        """Return the result of a job that is done once for all requests that ask for it meanwhile.

        Only the first of them takes a place. The job goes on although its client may have gone.

        Args:
            key: what the result depends on.
            principal: the sender of the request.
            job: the job.

        Raises:
            LimitError: there is no place for it.
            UnavailableError: the process failed, or took too long.
        """
        task = self._shared.get(key)
        if task is None:
            task = self._shared[key] = asyncio.create_task(self._run_in_place(principal, job))
            task.add_done_callback(lambda done: self._end_shared(key, done))
        return await asyncio.shield(task)

    async def _run_in_place(self, principal: str, job: Job) -> Result:
        with self.place(principal):
            return await self.run(job)

    def _end_shared(self, key: Hashable, task: asyncio.Task[Result]) -> None:
        del self._shared[key]
        if not task.cancelled():
            # All clients may have gone, so that nobody else asks for it.
            task.exception()
