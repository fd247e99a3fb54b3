"""The registry processes that live, which of them are cut off from endpoints, and what that credits.

Processes report to one another through PostgreSQL. Whether one lives is judged by this process's monotonic clock: a
report that comes again is a new one, whatever the times in it say. Times are arguments.
"""

from collections.abc import Collection, Iterable

from msgspec import Struct
from msgspec.structs import replace

from registry.core.abilities import Failure

PROCESS_TIMEOUT = 10.0
"""Seconds without a report after which a process does not count as living any more; it reports every three."""

MAX_CREDITED_LEASES = 2.0
"""Lease times for which one process's failure credits leases. After that an alert says who is cut off."""


class ProcessReport(Struct, frozen=True):
    """What a registry process says of itself.

    Attributes:
        id: drawn at its start.
        name: host and process id, for people; not unique, since containers of one host may share both.
        started_at: seconds since 1970, by its own clock.
        failures: what it cannot do now.
    """

    id: str
    name: str
    started_at: float
    failures: tuple[Failure, ...] = ()

    @property
    def cut_off(self) -> bool:
        """Whether no heartbeat that only renews gets through this process."""
        return any(failure.total and failure.ability != "change" for failure in self.failures)


class StoredReport(Struct, frozen=True):
    """A report as PostgreSQL has it, when it was stored, and how many seconds ago that was by PostgreSQL's clock."""

    report: ProcessReport
    stored_at: float
    age: float


class LivingProcesses:
    """The processes that this one has heard of."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[StoredReport, float]] = {}

    def observe(self, stored: Iterable[StoredReport], now: float) -> None:
        """Take note of all reports that PostgreSQL has."""
        known = {}
        for one in stored:
            before = self._known.get(one.report.id)
            if before is not None and before[0].stored_at == one.stored_at:
                known[one.report.id] = before
            elif before is not None:
                known[one.report.id] = (one, now)
            else:
                known[one.report.id] = (one, now - max(0.0, one.age))
        self._known = known

    def reports(self, own: ProcessReport, now: float) -> list[ProcessReport]:
        """Return the reports of all processes that live; ``own`` from memory, because it may not have been stored."""
        living = [own]
        for one, heard_at in self._known.values():
            age = now - heard_at
            if one.report.id != own.id and age <= PROCESS_TIMEOUT:
                aged = tuple(replace(failure, seconds=failure.seconds + age) for failure in one.report.failures)
                living.append(replace(one.report, failures=aged))
        return living


def is_overdue(failure: Failure, lease: float) -> bool:
    """Tell whether a failure has lasted for longer than it may: somebody has to be told."""
    return failure.seconds > MAX_CREDITED_LEASES * lease


class CreditForFailures:
    """Decides whether leases are credited now because registry processes fail.

    They are while no living process lets heartbeats through, however long that takes: nobody is heard, so silence
    proves nothing. While others work, the failure of one credits leases for two lease times, in which registrars find
    another process; after that those that it cuts off expire, behind the guard. So that a process that is started again
    and again, and fails each time under a new name, does not stop expiry, all together get two lease times a process
    until nothing has failed for a lease time.

    Args:
        lease: seconds of a lease.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._spent = 0.0
        # When a failure of some processes was last seen, and whether it was the last that was asked.
        self._seen_at: float | None = None

    def reason(self, reports: Collection[ProcessReport], now: float) -> str | None:
        """Return why leases are credited now, or None: they are not."""
        if reports and all(one.cut_off for one in reports):
            names = "this process" if len(reports) == 1 else f"all {len(reports)} processes"
            return f"{names} cannot take heartbeats: {_first(reports).reason}"
        recent = [(one, failure) for one in reports for failure in one.failures if not is_overdue(failure, self._lease)]
        if not recent:
            return None
        self._spend(now)
        if self._spent > MAX_CREDITED_LEASES * self._lease * len(reports):
            return None
        process, failure = recent[0]
        return f"{process.name} cannot {failure.ability}: {failure.reason}"

    def _spend(self, now: float) -> None:
        passed = self._lease if self._seen_at is None else now - self._seen_at
        self._spent = 0.0 if passed >= self._lease else self._spent + passed
        self._seen_at = now


def _first(reports: Collection[ProcessReport]) -> Failure:
    return next(failure for one in reports for failure in one.failures if failure.total)
