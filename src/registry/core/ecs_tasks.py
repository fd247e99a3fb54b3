"""The ECS tasks of suspects: which ones to ask for next, and which of them have stopped.

A suspect's registrar has named its ECS cluster (``wire.reserved_metadata``). A task that ECS calls STOPPED never runs
again, so its endpoint is dead. So is one that ECS does not know any more (MISSING) after it knew it: ECS forgets a
stopped task after an hour. Everything else, and every error, says nothing.

Registrars send these names, so they are checked here before AWS is asked. One cluster is one request. After an error
only its cluster waits, so that a wrong name delays no other cluster.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from registry.core.endpoint import Endpoint
from wire.aws_partition import partition_of
from wire.reserved_metadata import ECS_CLUSTER, ECS_TASK

MAX_TASKS = 100
"""Tasks of one request; the limit of ``DescribeTasks``."""
REPEAT_INTERVAL = 5.0
"""Seconds after which a task that runs is asked for again."""
MIN_PAUSE = 5.0
"""Seconds that a cluster is not asked after an error; doubled with each further error."""
MAX_PAUSE = 60.0
"""Seconds that a cluster is not asked at most."""
MAX_CLUSTERS = 200
"""Clusters that are asked; suspects of further ones wait until there are fewer."""
MAX_SEEN = 20_000
"""Tasks that are remembered as seen, so that MISSING says something of them; the oldest are forgotten."""
MAX_REASON = 200
"""Characters of a reason of ECS that are kept."""

_CLUSTER_ARN = re.compile(
    r"arn:(?P<partition>aws|aws-cn|aws-us-gov):ecs:(?P<region>[a-z0-9-]{1,32}):(?P<account>[0-9]{12}):"
    r"cluster/[A-Za-z0-9_-]{1,255}"
)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
# 32 hexadecimal digits; those of before 2018, and moto's, are UUIDs. Any other text would fail the whole request.
_TASK_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Cluster(Struct, frozen=True, order=True):
    """An ECS cluster, by ARN or by name, and the region in which it is asked for."""

    name: str
    region: str


class TaskRef(Struct, frozen=True):
    """An ECS task of a cluster."""

    cluster: Cluster
    task_id: str


class StoppedTask(Struct, frozen=True):
    """A task that has stopped.

    Attributes:
        status: the word of ECS: STOPPED, or MISSING for a task that it knew before.
        reason: why it stopped, in ECS's words; may be empty.
    """

    status: Literal["STOPPED", "MISSING"]
    reason: str


class ClusterFailure(Struct, frozen=True):
    """A cluster that could not be asked for its tasks: why, and since when (monotonic)."""

    cluster: Cluster
    reason: str
    since: float


def task_of(endpoint: Endpoint, default_region: str) -> TaskRef | None:
    """Return the ECS task of an endpoint's instance, or None when its registrar names none that may be asked for."""
    metadata = endpoint.registration.metadata
    name, task_id = metadata.get(ECS_CLUSTER), metadata.get(ECS_TASK, endpoint.registration.instance_id)
    if not isinstance(name, str) or not isinstance(task_id, str) or not _TASK_ID.fullmatch(task_id):
        return None
    cluster = cluster_of(name, default_region)
    return None if cluster is None else TaskRef(cluster, task_id)


def is_ecs_name(name: str) -> bool:
    """Return whether a text may be the name of a cluster or of a service of ECS."""
    return _NAME.fullmatch(name) is not None


def stopped_in_words(ref: TaskRef, stopped: StoppedTask) -> str:
    """Return the word of ECS about a task, as one line for people."""
    cluster = ref.cluster.name.rpartition("/")[2]
    if stopped.status == "MISSING":
        return f"ECS does not know its task {ref.task_id} of the cluster {cluster} any more"
    reason = f": {stopped.reason}" if stopped.reason else ""
    return f"ECS says that its task {ref.task_id} of the cluster {cluster} is STOPPED{reason}"


def cluster_of(name: str, default_region: str) -> Cluster | None:
    """Return the cluster that a registrar names, or None when it is none that may be asked."""
    arn = _CLUSTER_ARN.fullmatch(name)
    if arn is None:
        return Cluster(name, default_region) if default_region and is_ecs_name(name) else None
    partition = partition_of(arn["region"])
    return Cluster(name, arn["region"]) if partition is not None and partition.name == arn["partition"] else None


class EcsTasks:
    """The tasks of suspects, and what ECS has said of each; times are monotonic seconds."""

    def __init__(self) -> None:
        # The tasks of the present suspects, each with the time at which ECS was asked for it last; -inf: never.
        # Written by ``watch`` and by the answers.
        self._asked_at: dict[TaskRef, float] = {}
        # The tasks of suspects that have stopped; forgotten when their endpoints are no suspects any more.
        self._stopped: dict[TaskRef, StoppedTask] = {}
        # Tasks that ECS has described, the oldest first; bounded by MAX_SEEN.
        self._seen: dict[TaskRef, None] = {}
        # By cluster of suspects: when it was asked last.
        self._cluster_asked_at: dict[Cluster, float] = {}
        # Clusters of suspects that have answered.
        self._answering: set[Cluster] = set()
        # Clusters of suspects whose last request failed, and until when each is not asked.
        self._failures: dict[Cluster, ClusterFailure] = {}
        self._pauses: dict[Cluster, tuple[float, float]] = {}

    @property
    def failures(self) -> list[ClusterFailure]:
        """The clusters of suspects that could not be asked, the longest first."""
        return sorted(self._failures.values(), key=lambda failure: failure.since)

    @property
    def watched(self) -> int:
        """The number of suspects' tasks that ECS is asked for."""
        return len(self._asked_at)

    @property
    def stopped_count(self) -> int:
        """The number of them that have stopped."""
        return len(self._stopped)

    def stopped(self, ref: TaskRef) -> StoppedTask | None:
        """Return what ECS said of a task that has stopped, or None when it has not said so."""
        return self._stopped.get(ref)

    def watch(self, refs: Iterable[TaskRef]) -> None:
        """Set the tasks of the present suspects; what was known of others is forgotten."""
        clusters = set(self._cluster_asked_at)
        watched: dict[TaskRef, float] = {}
        for ref in refs:
            if ref.cluster not in clusters and len(clusters) >= MAX_CLUSTERS:
                continue
            clusters.add(ref.cluster)
            watched[ref] = self._asked_at.get(ref, float("-inf"))
        self._asked_at = watched
        self._stopped = {ref: task for ref, task in self._stopped.items() if ref in watched}
        present = {ref.cluster for ref in watched}
        self._cluster_asked_at = {each: self._cluster_asked_at.get(each, float("-inf")) for each in present}
        self._answering &= present
        self._failures = {each: failure for each, failure in self._failures.items() if each in present}
        self._pauses = {each: pause for each, pause in self._pauses.items() if each in present}

    def next_request(self, now: float) -> tuple[Cluster, list[TaskRef]] | None:
        """Return the cluster to ask next and the tasks to ask it for; None when nothing is due.

        Clusters that have answered come first, then the one that was not asked for the longest time, so that names that
        somebody made up do not delay those that there are.
        """
        due: dict[Cluster, list[TaskRef]] = {}
        for ref, asked_at in self._asked_at.items():
            if ref not in self._stopped and now - asked_at >= REPEAT_INTERVAL and not self._pausing(ref.cluster, now):
                due.setdefault(ref.cluster, []).append(ref)
        if not due:
            return None
        cluster = min(due, key=lambda each: (each not in self._answering, self._cluster_asked_at[each], each))
        tasks = sorted(due[cluster], key=lambda ref: self._asked_at[ref])[:MAX_TASKS]
        return cluster, tasks

    def answered(
        self, cluster: Cluster, refs: Iterable[TaskRef], statuses: Mapping[str, tuple[str, str]], now: float
    ) -> bool:
        """Record an answer, and return whether the cluster could not be asked before.

        Args:
            cluster: the cluster that was asked.
            refs: the tasks that it was asked for.
            statuses: for each task's id, its last status or MISSING, and the reason why it stopped.
            now: when the answer came.
        """
        for ref in refs:
            status, reason = statuses.get(ref.task_id, ("", ""))
            # A stopped task stays stopped; MISSING alone may be a wrong cluster.
            if status == "STOPPED" or (status == "MISSING" and ref in self._seen):
                self._stop(ref, StoppedTask("STOPPED" if status == "STOPPED" else "MISSING", printable(reason)))
            if status not in ("", "MISSING"):
                self._seen.pop(ref, None)
                self._seen[ref] = None
            if ref in self._asked_at:
                self._asked_at[ref] = now
        while len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]
        self._note_asked(cluster, now)
        if cluster in self._cluster_asked_at:
            self._answering.add(cluster)
        self._pauses.pop(cluster, None)
        return self._failures.pop(cluster, None) is not None

    def failed(self, cluster: Cluster, reason: str, now: float) -> bool:
        """Record that a cluster could not be asked, and return whether the reason is new."""
        reason = printable(reason)
        before = self._failures.get(cluster)
        if cluster in self._cluster_asked_at:
            pause = min(MAX_PAUSE, 2 * self._pauses[cluster][1]) if cluster in self._pauses else MIN_PAUSE
            self._pauses[cluster] = (now + pause, pause)
            self._failures[cluster] = ClusterFailure(cluster, reason, now if before is None else before.since)
            self._answering.discard(cluster)
        self._note_asked(cluster, now)
        return before is None or before.reason != reason

    def _stop(self, ref: TaskRef, stopped: StoppedTask) -> None:
        if ref in self._asked_at:
            self._stopped[ref] = stopped

    def _note_asked(self, cluster: Cluster, now: float) -> None:
        if cluster in self._cluster_asked_at:
            self._cluster_asked_at[cluster] = now

    def _pausing(self, cluster: Cluster, now: float) -> bool:
        return cluster in self._pauses and now < self._pauses[cluster][0]


def printable(text: str) -> str:
    """Return a text of AWS as one line that may be logged and shown."""
    return "".join(character if character.isprintable() else " " for character in text)[:MAX_REASON].strip()
