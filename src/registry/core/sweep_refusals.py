"""The changes of sweeps that PostgreSQL refused, and the times at which they are tried again.

A service that cannot be changed must not delay the others. It is skipped, remembered here, and tried again in rounds
that take a bounded share of the time.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Literal

from msgspec import Struct

RETRY_SHARE = 0.33
"""The share of the time that retries may take.

A service that is locked costs a lock timeout a try. The others wait for so long at most, and the service itself for
twice as long once it is unlocked.
"""
MAX_RETRY_INTERVAL = 30.0
"""Seconds between two rounds of retries, at most."""
MAX_RETRY_ROUND = 1.0
"""Seconds after which a round of retries ends; the next round begins with the tasks that it left out."""

Action = Literal["expiry", "removal", "override_end", "missing_lease"]
"""The kinds of changes that a sweep makes to the endpoints of a service."""


class Task(Struct, frozen=True, order=True):
    """One change that a sweep has to make.

    Attributes:
        service: the service whose endpoints are changed; ``*`` when the services to change could not be read.
        action: the kind of change.
        endpoint: the endpoint to change; empty: all that are due in the service.
    """

    service: str
    action: Action
    endpoint: str = ""


class Refusal(Struct, frozen=True):
    """A task that was refused, with the reason; ``since`` and ``tried_at`` are monotonic seconds."""

    task: Task
    reason: str
    since: float
    tried_at: float


class Refusals:
    """The tasks that PostgreSQL refused when they were last tried."""

    def __init__(self) -> None:
        # The refusals by task; a task leaves when it succeeds or is no longer pending.
        self._refused: dict[Task, Refusal] = {}
        # Seconds that retries have taken in the round under way.
        self._retry_seconds = 0.0
        # Monotonic time of the next round of retries.
        self._retry_at = 0.0

    def __iter__(self) -> Iterator[Refusal]:
        """Return the refusals in the order of services."""
        return iter(sorted(self._refused.values(), key=lambda refusal: refusal.task))

    def __contains__(self, task: Task) -> bool:
        """Return whether a task was refused when it was last tried."""
        return task in self._refused

    def __len__(self) -> int:
        return len(self._refused)

    @property
    def services(self) -> frozenset[str]:
        """The services that some task was refused for."""
        return frozenset(task.service for task in self._refused)

    def ordered(self, tasks: Iterable[Task]) -> list[Task]:
        """Return tasks in the order in which to try them: new ones, then the refused ones, longest untried first."""
        refused = self._refused
        return sorted(tasks, key=lambda task: (refused[task].tried_at if task in refused else float("-inf"), task))

    def is_due(self, task: Task, now: float) -> bool:
        """Return whether to try a task now; a refused one waits for the next round of retries."""
        return task not in self._refused or (now >= self._retry_at and self._retry_seconds < MAX_RETRY_ROUND)

    def refuse(self, task: Task, reason: str, began: float, now: float) -> bool:
        """Remember a refusal; return whether it is new or has another reason than before.

        Args:
            task: the task that was refused.
            reason: the reason.
            began: the monotonic time at which the try began.
            now: the monotonic time at which it ended.
        """
        earlier = self._refused.get(task)
        self._refused[task] = Refusal(task, reason, began if earlier is None else earlier.since, now)
        if earlier is not None:
            self._retry_seconds += now - began
        return earlier is None or earlier.reason != reason

    def accept(self, task: Task) -> bool:
        """Forget the refusal of a task that is done, and return whether there was one."""
        return self._refused.pop(task, None) is not None

    def end_sweep(self, pending: Collection[Task], now: float) -> None:
        """Forget refusals of tasks that are no longer pending, and set the time of the next round of retries."""
        self._refused = {task: refusal for task, refusal in self._refused.items() if task in pending}
        if self._retry_seconds:
            self._retry_at = now + min(MAX_RETRY_INTERVAL, self._retry_seconds * (1 / RETRY_SHARE - 1))
            self._retry_seconds = 0.0
