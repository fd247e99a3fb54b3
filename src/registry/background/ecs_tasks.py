"""The job that asks ECS whether the tasks of suspects have stopped, and for the desired counts of ECS services.

``registry.core.ecs_tasks`` and ``registry.core.ecs_services`` have the rules. A process makes one request a second,
tasks first. Only the process that sweeps asks for tasks; every process asks for services, because each shows their
numbers, a minute old at most while ECS answers. The answers stay in memory: no sweep and no reader ever waits for AWS.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, TypeVar

import structlog

from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.ecs_services import EcsService, EcsServices, desired_of
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
_WATCH_INTERVAL = 10.0
"""Seconds between two searches for the ECS services that endpoints are of."""
_MAX_REGIONS = 32
"""Regions whose client is kept; beyond it all are made anew."""

_T = TypeVar("_T")
_Statuses = dict[str, tuple[str, str]]
"""By the id of a task: its last status or MISSING, and why it stopped."""


class EcsTaskPoller:
    """Asks ECS for the tasks of suspects, while this process sweeps, and for the services of endpoints.

    Args:
        cache: where the endpoints are; takes the desired counts.
        leads: whether this process sweeps.
    """

    def __init__(self, cache: SnapshotCache, leads: Callable[[], bool]) -> None:
        check_installed()
        self._cache = cache
        self._leads = leads
        # Of clusters that are named without a region.
        self._default_region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
        self._tasks = EcsTasks()
        self._services = EcsServices(self._default_region)
        # Monotonic time from which the services of endpoints are searched for again.
        self._watch_at = float("-inf")
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

    @property
    def services(self) -> EcsServices:
        """The ECS services of endpoints."""
        return self._services

    def word(self, endpoint: Endpoint) -> PlatformWord | None:
        """Return the word of ECS that the task of a suspect has stopped; None: it said nothing that is certain."""
        ref = task_of(endpoint, self._default_region)
        stopped = None if ref is None else self._tasks.stopped(ref)
        if ref is None or stopped is None:
            return None
        return PlatformWord(endpoint.id, endpoint.registration.incarnation, stopped_in_words(ref, stopped))

    async def poll(self) -> None:
        """Make the request that is due: for tasks of suspects if this process sweeps, else for services."""
        requested = await self._ask_for_tasks()
        await self._watch_services()
        request = None if requested else self._services.next_request(time.monotonic())
        if request is not None:
            await self._ask_for_services(*request)
        self._cache.read_desired_counts(self._services.desired(time.monotonic()))

    async def _watch_services(self) -> None:
        if time.monotonic() < self._watch_at:
            return
        self._watch_at = time.monotonic() + _WATCH_INTERVAL
        now = self._cache.clock.now()
        services: dict[EcsService, None] = {}
        async for snapshot in cooperatively(self._cache.services().values()):
            services.update(dict.fromkeys(snapshot.missed_ecs_services(now)))
        self._services.watch(services)

    async def _ask_for_tasks(self) -> bool:
        """Ask for the tasks of suspects, and return whether any were due."""
        if not self._leads():
            self._tasks.watch(())
            return False
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
        return request is not None

    async def _ask_for_services(self, cluster: Cluster, services: Sequence[EcsService]) -> None:
        self.requests += 1
        names = [service.name for service in services]
        try:
            desired = await _in_thread(partial(self._describe_services, cluster, names))
        except Exception as error:  # noqa: BLE001  # botocore's, or an answer of another form: it says nothing
            ECS_REQUESTS.labels("failed").inc()
            reason = _reason_of(error)
            if self._services.failed(cluster, services, reason, time.monotonic()):
                log.warning(
                    "ecs_services_not_described",
                    cluster=cluster.name,
                    region=cluster.region,
                    services=names,
                    reason=reason,
                )
            return
        ECS_REQUESTS.labels("answered").inc()
        self.answered_at = time.monotonic()
        self._services.answered(services, desired, self.answered_at)

    async def _ask(self, cluster: Cluster, refs: Sequence[TaskRef]) -> None:
        self.requests += 1
        try:
            statuses = await _in_thread(partial(self._describe, cluster, [ref.task_id for ref in refs]))
        except Exception as error:  # noqa: BLE001  # botocore's, or an answer of another form: it says nothing
            ECS_REQUESTS.labels("failed").inc()
            reason = _reason_of(error)
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

    def _describe_services(self, cluster: Cluster, names: Sequence[str]) -> Mapping[str, int]:
        """Return the desired counts of services by their names; blocks."""
        answer = self._client(cluster.region).describe_services(cluster=cluster.name, services=list(names))
        counts = {str(service["serviceName"]): desired_of(service) for service in answer["services"]}
        return {name: desired for name, desired in counts.items() if desired is not None}

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


def _reason_of(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _id_of(arn: str) -> str:
    return arn.rpartition("/")[2]


async def _in_thread(work: Callable[[], _T]) -> _T:
    """Run blocking work in a thread of its own.

    Not in one of the loop's threads, which are few: without a name server a look-up holds its thread for long. It is a
    daemon, because a process that stops does not wait for AWS.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

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


def _set_result(outcome: "asyncio.Future[_T]", result: _T) -> None:
    if not outcome.done():
        outcome.set_result(result)


def _set_exception(outcome: "asyncio.Future[_T]", error: Exception) -> None:
    if not outcome.done():
        outcome.set_exception(error)
