"""The ECS services of endpoints: which ones to ask for next, and how many tasks ECS wants of each.

A registrar in an ECS task names its cluster, its task and its ECS service (``wire.reserved_metadata``). The desired
count of those ECS services is how many tasks there should be. Everything but a positive desired count of an active
service says nothing: an error, a service that ECS does not know, one that is scaled to 0 or deleted.

One request asks for services of one cluster. One service without the right fails the whole request, so after an error
its services are asked for one by one, until each has answered.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from msgspec import Struct

from registry.core.ecs_tasks import Cluster, ClusterFailure, cluster_of, is_ecs_name, printable
from registry.core.endpoint import Endpoint
from wire.reserved_metadata import ECS_CLUSTER, ECS_SERVICE, ECS_TASK

MAX_SERVICES = 10
"""Services of one request; the limit of ``DescribeServices``."""
REPEAT_INTERVAL = 60.0
"""Seconds after which a service is asked for again."""
MAX_AGE = 300.0
"""Seconds for which an answer counts."""
CLUSTER_PAUSE = 10.0
"""Seconds for which a cluster is not asked for its services after an error."""
MAX_WATCHED = 5_000
"""ECS services that are asked for; further ones have no desired count."""


class EcsService(Struct, frozen=True, order=True):
    """An ECS service as registrars name it: the ARN or the name of its cluster, and its name."""

    cluster: str
    name: str


def endpoints_per_task(endpoints: Iterable[Endpoint]) -> Mapping[EcsService, int] | None:
    """Return how many endpoints most tasks of each ECS service have; None: some endpoint is of no ECS service.

    A task has several endpoints in a service where it registers several ports. Of equally frequent numbers the larger
    counts.
    """
    # Plain tuples: a service may have ten thousand endpoints.
    tasks: dict[tuple[str, str, str], int] = {}
    for endpoint in endpoints:
        registration = endpoint.registration
        metadata = registration.metadata
        cluster, name = metadata.get(ECS_CLUSTER), metadata.get(ECS_SERVICE)
        if not isinstance(cluster, str) or not isinstance(name, str):
            return None
        task = cluster, name, str(metadata.get(ECS_TASK, registration.instance_id))
        tasks[task] = tasks.get(task, 0) + 1
    numbers: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    for (cluster, name, _), count in tasks.items():
        numbers[cluster, name][count] += 1
    return {EcsService(*names): _most_frequent(counts) for names, counts in numbers.items()}


def _most_frequent(numbers: Counter[int]) -> int:
    return max(numbers, key=lambda number: (numbers[number], number))


def desired_of(answer: Mapping[str, Any]) -> int | None:
    """Return the desired count in ECS's description of a service; None: it says nothing."""
    desired = answer.get("desiredCount")
    return desired if answer.get("status") == "ACTIVE" and isinstance(desired, int) and desired > 0 else None


class EcsServices:
    """The ECS services to ask for, and what ECS has said of each; times are monotonic seconds."""

    def __init__(self, default_region: str) -> None:
        # Of clusters that are named without a region.
        self._default_region = default_region
        # The cluster to ask and the time of the last request, by service; -inf: never. Written by ``watch`` and after
        # each request.
        self._clusters: dict[EcsService, Cluster] = {}
        self._asked_at: dict[EcsService, float] = {}
        # The desired count of watched services, with the time of the answer; may be too old.
        self._desired: dict[EcsService, tuple[int, float]] = {}
        # Watched services that are asked for one by one, because a request for them and others failed.
        self._alone: set[EcsService] = set()
        # Why a request for the service alone failed, and since when.
        self._failures: dict[EcsService, ClusterFailure] = {}
        # Until when a cluster is not asked.
        self._pauses: dict[Cluster, float] = {}

    @property
    def watched(self) -> int:
        """The number of ECS services that are asked for."""
        return len(self._asked_at)

    @property
    def failures(self) -> list[ClusterFailure]:
        """The services that could not be asked for, the longest first; the name is ``cluster/service``."""
        return sorted(self._failures.values(), key=lambda failure: failure.since)

    def desired(self, now: float) -> dict[EcsService, int]:
        """Return the desired counts that are not too old."""
        return {service: count for service, (count, at) in self._desired.items() if 0 <= now - at <= MAX_AGE}

    def watch(self, services: Iterable[EcsService]) -> None:
        """Set the ECS services of the present endpoints; what was known of others is forgotten."""
        clusters: dict[EcsService, Cluster] = {}
        for service in services:
            if len(clusters) >= MAX_WATCHED:
                break
            cluster = cluster_of(service.cluster, self._default_region)
            if cluster is not None and is_ecs_name(service.name):
                clusters[service] = cluster
        self._clusters = clusters
        self._asked_at = {each: self._asked_at.get(each, float("-inf")) for each in clusters}
        self._desired = {each: answer for each, answer in self._desired.items() if each in clusters}
        self._alone &= clusters.keys()
        self._failures = {each: failure for each, failure in self._failures.items() if each in clusters}
        present = set(clusters.values())
        self._pauses = {each: until for each, until in self._pauses.items() if each in present}

    def next_request(self, now: float) -> tuple[Cluster, list[EcsService]] | None:
        """Return the cluster to ask next and the services to ask it for; None when nothing is due.

        Services that have a count come first, then those that were not asked for the longest time, so that names that
        somebody made up do not delay those that there are.
        """
        due = [
            service
            for service, asked_at in self._asked_at.items()
            if now - asked_at >= REPEAT_INTERVAL and now >= self._pauses.get(self._clusters[service], now)
        ]
        if not due:
            return None
        due.sort(key=lambda each: (each not in self._desired, self._asked_at[each], each))
        first = due[0]
        cluster = self._clusters[first]
        if first in self._alone:
            return cluster, [first]
        together = [each for each in due if self._clusters[each] == cluster and each not in self._alone]
        return cluster, together[:MAX_SERVICES]

    def answered(self, services: Iterable[EcsService], desired: Mapping[str, int], now: float) -> None:
        """Record an answer: the desired counts by the name of the service; one without a count has none."""
        for service in services:
            if service not in self._asked_at:
                continue
            self._asked_at[service] = now
            self._alone.discard(service)
            self._failures.pop(service, None)
            self._desired.pop(service, None)
            if service.name in desired:
                self._desired[service] = (desired[service.name], now)

    def failed(self, cluster: Cluster, services: Collection[EcsService], reason: str, now: float) -> bool:
        """Record that services could not be asked for, and return whether that is to be logged.

        An earlier answer counts on until it is too old.
        """
        watched = [service for service in services if service in self._asked_at]
        if watched:
            self._pauses[cluster] = now + CLUSTER_PAUSE
        if len(services) > 1:
            self._alone.update(watched)
            return False
        reason = printable(reason)
        for service in watched:
            before = self._failures.get(service)
            where = Cluster(f"{cluster.name.rpartition('/')[2]}/{service.name}", cluster.region)
            self._asked_at[service] = now
            self._failures[service] = ClusterFailure(where, reason, now if before is None else before.since)
            return before is None or before.reason != reason
        return False
