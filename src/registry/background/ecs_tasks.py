"""The job that asks ECS whether the tasks of suspects have stopped; ``registry.core.ecs_tasks`` has the rules.

Only the process that sweeps asks, for suspects alone, one request a second. The answers stay in memory, and the next
sweep uses them: no sweep ever waits for AWS.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any

import structlog

from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.ecs_tasks import Cluster, ClusterFailure, EcsTasks, TaskRef, stopped_in_words, task_of
from registry.core.endpoint import Endpoint
from registry.core.evidence import PlatformWord
from registry.errors import BadSettingsError
from registry.metrics import ECS_REQUESTS

log = structlog.get_logger()

REQUEST_INTERVAL = 1.0
"""Seconds between two requests to AWS at least."""
_CONNECT_TIMEOUT = 2.0
"""Seconds to connect to AWS."""
_READ_TIMEOUT = 3.0
"""Seconds to wait for an answer of AWS."""
_MAX_REGIONS = 32
"""Regions whose client is kept; beyond it all are made anew."""

_Statuses = dict[str, tuple[str, str]]
"""By the id of a task: its last status or MISSING, and why it stopped."""


class EcsTaskPoller:
    """Asks ECS for the tasks of suspects, while this process sweeps.

    Args:
        cache: where the suspects are.
        leads: whether this process sweeps.
    """

    def __init__(self, cache: SnapshotCache, leads: Callable[[], bool]) -> None:
        check_installed()
        self._cache = cache
        self._leads = leads
        # Of clusters that are named without a region.
        self._default_region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
        self._tasks = EcsTasks()
        # The boto3 clients by region; used by one thread at a time.
        self._clients: dict[str, Any] = {}
        self.requests = 0
        """Requests to AWS since the start of the process."""
        self.answered_at: float | None = None
        """Monotonic time of the last answer; None before the first one."""

    @property
    def failures(self) -> list[ClusterFailure]:
        """The clusters of suspects that could not be asked."""
        return self._tasks.failures

    @property
    def watched(self) -> int:
        """The number of suspects' tasks that ECS is asked for."""
        return self._tasks.watched

    @property
    def stopped_count(self) -> int:
        """The number of them that have stopped."""
        return self._tasks.stopped_count

    def word(self, endpoint: Endpoint) -> PlatformWord | None:
        """Return the word of ECS that the task of a suspect has stopped; None: it said nothing that is certain."""
        ref = task_of(endpoint, self._default_region)
        stopped = None if ref is None else self._tasks.stopped(ref)
        if ref is None or stopped is None:
            return None
        return PlatformWord(endpoint.id, endpoint.registration.incarnation, stopped_in_words(ref, stopped))

    async def poll(self) -> None:
        """Ask one cluster for the tasks of its suspects, if this process sweeps and one is due."""
        if not self._leads():
            self._tasks.watch(())
            return
        suspects = [
            endpoint
            async for snapshot in cooperatively(self._cache.services().values())
            for endpoint in snapshot.silent
        ]
        refs = [task_of(endpoint, self._default_region) for endpoint in suspects]
        self._tasks.watch(ref for ref in refs if ref is not None)
        request = self._tasks.next_request(time.monotonic())
        if request is not None:
            await self._ask(*request)

    async def _ask(self, cluster: Cluster, refs: Sequence[TaskRef]) -> None:
        self.requests += 1
        try:
            statuses = await _in_thread(partial(self._describe, cluster, [ref.task_id for ref in refs]))
        except Exception as error:  # noqa: BLE001  # botocore's, or an answer of another form: it says nothing
            ECS_REQUESTS.labels("failed").inc()
            reason = " ".join(str(error).split()) or type(error).__name__
            if self._tasks.failed(cluster, reason, time.monotonic()):
                log.warning("ecs_tasks_not_described", cluster=cluster.name, region=cluster.region, reason=reason)
            return
        ECS_REQUESTS.labels("answered").inc()
        self.answered_at = time.monotonic()
        if self._tasks.answered(cluster, refs, statuses, self.answered_at):
            log.info("ecs_tasks_described_again", cluster=cluster.name, region=cluster.region)

    def _describe(self, cluster: Cluster, ids: Sequence[str]) -> _Statuses:
        """Return the last status of tasks; blocks."""
        answer = self._client(cluster.region).describe_tasks(cluster=cluster.name, tasks=list(ids))
        statuses: _Statuses = {}
        for task in answer["tasks"]:
            statuses[_id_of(task["taskArn"])] = (str(task["lastStatus"]), str(task.get("stoppedReason") or ""))
        for failure in answer["failures"]:
            statuses.setdefault(_id_of(failure["arn"]), (str(failure["reason"]), ""))
        return statuses

    def _client(self, region: str) -> Any:  # noqa: ANN401  # boto3 makes its clients' types at run time
        if region not in self._clients:
            import boto3  # noqa: PLC0415  # an extra, and only where ECS is asked
            from botocore.config import Config  # noqa: PLC0415

            if len(self._clients) >= _MAX_REGIONS:
                self._clients.clear()
            # One attempt: the next request is the retry.
            config = Config(
                connect_timeout=_CONNECT_TIMEOUT,
                read_timeout=_READ_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": 1},
            )
            self._clients[region] = boto3.session.Session(region_name=region).client("ecs", config=config)
        return self._clients[region]


def check_installed() -> None:
    """Refuse REGISTRY_ECS_TASKS without the extra.

    Raises:
        BadSettingsError: it is not installed.
    """
    try:
        import boto3  # noqa: F401, PLC0415  # an extra
    except ImportError:
        raise BadSettingsError("REGISTRY_ECS_TASKS=on needs boto3: pip install headcount[server,aws]") from None


def _id_of(arn: str) -> str:
    return arn.rpartition("/")[2]


async def _in_thread(work: Callable[[], _Statuses]) -> _Statuses:
    """Run blocking work in a thread of its own.

    Not in one of the loop's threads, which are few: without a name server a look-up holds its thread for long. It is a
    daemon, because a process that stops does not wait for AWS.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_Statuses] = loop.create_future()

    def run() -> None:
        try:
            conclude = partial(_set_result, outcome, work())
        except Exception as error:  # noqa: BLE001  # passed on to the loop
            conclude = partial(_set_exception, outcome, error)
        # The loop is closed when the process stops meanwhile.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(conclude)

    Thread(target=run, name="ecs-tasks", daemon=True).start()
    return await outcome


def _set_result(outcome: "asyncio.Future[_Statuses]", result: _Statuses) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _set_exception(outcome: "asyncio.Future[_Statuses]", error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)
