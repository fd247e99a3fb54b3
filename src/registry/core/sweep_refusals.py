"""Which changes of a sweep were refused, why, and when each is tried again.

One service that PostgreSQL refuses to change must cost the others nothing: it is passed over, remembered here, and
tried again in rounds that take a bounded share of the time.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Literal

from msgspec import Struct

RETRY_SHARE = 0.33
"""The share of the time that tries of what was refused before may take. A service that somebody locks costs a lock
time-out a try: the others wait so long at most, and the service itself twice as long once it is unlocked."""
MAX_PAUSE = 30.0
"""Seconds between two rounds of tries, at most."""
MAX_ROUND = 1.0
"""Seconds after which a round of tries ends; the next one goes on with what it left out."""

Action = Literal["expiry", "removal", "override_end", "missing_lease"]
"""What a sweep does to the endpoints of a service."""


class Task(Struct, frozen=True, order=True):
    """One change that a sweep has to make.

    Attributes:
        service: whose endpoints it changes; ``*`` when the services to change could not be read.
        action: what is done.
        endpoint: the one endpoint that it is about; empty: all that are due in the service.
    """

    service: str
    action: Action
    endpoint: str = ""


class Refusal(Struct, frozen=True):
    """Why a task was not done, and since when; ``since`` and ``tried_at`` are monotonic seconds."""

    task: Task
    reason: str
    since: float
    tried_at: float


class Refusals:
    """The tasks that were refused when they were last tried."""

    def __init__(self) -> None:
        self._refused: dict[Task, Refusal] = {}
        self._spent = 0.0
        self._retry_at = 0.0

    def __iter__(self) -> Iterator[Refusal]:
        """Return the refusals in the order of services."""
        return iter(sorted(self._refused.values(), key=lambda one: one.task))

    def __contains__(self, task: Task) -> bool:
        """Tell whether a task was refused when it was last tried."""
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
        """Tell whether to try a task now: always when it was not refused, else when a round of tries is due."""
        return task not in self._refused or (now >= self._retry_at and self._spent < MAX_ROUND)

    def refuse(self, task: Task, reason: str, began: float, now: float) -> bool:
        """Remember a refusal; return whether it is news, and not the same again.

        Args:
            task: what was tried.
            reason: why it was refused.
            began: when the try began.
            now: when it ended.
        """
        known = self._refused.get(task)
        self._refused[task] = Refusal(task, reason, began if known is None else known.since, now)
        if known is not None:
            self._spent += now - began
        return known is None or known.reason != reason

    def accept(self, task: Task) -> bool:
        """Forget the refusal of a task that is done; return whether there was one."""
        return self._refused.pop(task, None) is not None

    def end_sweep(self, pending: Collection[Task], now: float) -> None:
        """Forget what is not to be done any more, and set the time of the next round of tries."""
        self._refused = {task: refusal for task, refusal in self._refused.items() if task in pending}
        if self._spent:
            self._retry_at = now + min(MAX_PAUSE, self._spent * (1 / RETRY_SHARE - 1))
            self._spent = 0.0
