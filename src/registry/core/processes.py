"""The registry processes that live, their failures, and the rule by which leases are credited for failures.

Processes report to one another through PostgreSQL (``registry.background.process_reports``). Whether a process lives is
decided by this process's monotonic clock: a stored time that differs is a new report, whatever time it is. Times are
arguments.
"""

from collections.abc import Collection, Iterable

from msgspec import Struct
from msgspec.structs import replace

from registry.core.abilities import Failure

PROCESS_TIMEOUT = 10.0
"""Seconds without a report after which a process no longer counts as living; it reports every three."""

MAX_READING_GAP = 5.0
"""Seconds between two readings of the reports, which come every second, after which nothing is said of silence."""

MAX_CLOCK_DIFFERENCE = 2.0
"""Seconds by which a process's clock may differ from PostgreSQL's."""

MAX_CREDITED_LEASES = 2.0
"""Lease times for which the failure of one process credits leases; after that an alert names the process."""


class ProcessReport(Struct, frozen=True):
    """A report of a registry process about itself.

    Attributes:
        id: a random id of the process, drawn at its start.
        name: host and process id, for people; not unique, since containers of one host may share both.
        started_at: seconds since 1970, by its own wall clock.
        failures: the abilities that it lacks now.
    """

    id: str
    name: str
    started_at: float
    failures: tuple[Failure, ...] = ()

    @property
    def host(self) -> str:
        """Its host, as its name has it."""
        return self.name.rpartition(":")[0]

    @property
    def cut_off(self) -> bool:
        """Whether the process stores no heartbeats at all, not even those that only renew a lease."""
        return any(failure.total and failure.ability != "change" for failure in self.failures)


class StoredReport(Struct, frozen=True):
    """A report as PostgreSQL has it, with the time at which it was stored and its age, by PostgreSQL's clock."""

    report: ProcessReport
    stored_at: float
    age: float


class SilentProcess(Struct, frozen=True):
    """A process whose reports have stopped, and that has not said that it stops.

    Attributes:
        name: its host and process id.
        started_at: seconds since 1970, by its own wall clock.
        seconds: since its last report.
    """

    name: str
    started_at: float
    seconds: float


class LivingProcesses:
    """The processes whose reports this process has read."""

    def __init__(self) -> None:
        # The monotonic times of the last reading, and of the first of those without a gap up to it; None: none yet.
        self._read_at: float | None = None
        self._reading_since = 0.0
        # By process id: its last report, and the monotonic time of that report.
        self._heard: dict[str, tuple[StoredReport, float]] = {}

    def observe(self, reports: Iterable[StoredReport], now: float) -> None:
        """Record all reports that PostgreSQL has."""
        if self._read_at is None or now - self._read_at > MAX_READING_GAP:
            self._reading_since = now
        self._read_at = now
        heard = {}
        for stored in reports:
            before = self._heard.get(stored.report.id)
            if before is not None and before[0].stored_at == stored.stored_at:
                heard[stored.report.id] = before
            elif before is not None:
                heard[stored.report.id] = (stored, now)
            else:
                heard[stored.report.id] = (stored, now - max(0.0, stored.age))
        self._heard = heard

    def reports(self, own: ProcessReport, now: float) -> list[ProcessReport]:
        """Return the reports of all living processes, with ``own`` from memory, as it may not be stored."""
        living = [own]
        for stored, heard_at in self._heard.values():
            age = now - heard_at
            if stored.report.id != own.id and age <= PROCESS_TIMEOUT:
                aged = tuple(replace(failure, seconds=failure.seconds + age) for failure in stored.report.failures)
                living.append(replace(stored.report, failures=aged))
        return living

    def silent(self, own: ProcessReport, now: float) -> list[SilentProcess]:
        """Return the processes whose reports have stopped while this process went on reading, the newest first.

        A process that says that it stops deletes its report. One on whose host another has started since was replaced.
        """
        if self._read_at is None or now - self._read_at > MAX_READING_GAP:
            return []
        living = self.reports(own, now)
        silent = []
        for stored, heard_at in self._heard.values():
            report = stored.report
            if report.id == own.id or now - max(heard_at, self._reading_since) <= PROCESS_TIMEOUT:
                continue
            replaced = any(
                other.host == report.host and other.started_at > stored.stored_at - MAX_CLOCK_DIFFERENCE
                for other in living
            )
            if not replaced:
                silent.append(SilentProcess(report.name, report.started_at, now - heard_at))
        return sorted(silent, key=lambda process: (process.seconds, process.name))


def is_overdue(failure: Failure, lease: float) -> bool:
    """Return whether a failure has lasted for so long that it credits no leases and people have to act."""
    return failure.seconds > MAX_CREDITED_LEASES * lease


class CreditForFailures:
    """The rule by which leases are credited while registry processes fail.

    Leases are credited while no living process stores heartbeats, for as long as that lasts, because then the silence
    of an instance proves nothing. While other processes work, a failure credits leases for two lease times, in which
    registrars find another process; after that the leases of cut-off registrars expire, behind the guard. All failures
    together credit two lease times for each process until none has occurred for a lease time, so that a process that is
    restarted again and again, and fails each time under a new id, does not stop expiry.

    Args:
        lease: seconds of a lease.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        # Seconds that failures of some processes have credited since the last lease time without any.
        self._credited = 0.0
        # Monotonic time at which a failure was last seen; None: never.
        self._seen_at: float | None = None

    def reason(self, reports: Collection[ProcessReport], now: float) -> str | None:
        """Return why leases are credited now; None: they are not."""
        if reports and all(report.cut_off for report in reports):
            names = "this process" if len(reports) == 1 else f"all {len(reports)} processes"
            return f"{names} cannot take heartbeats: {_first(reports).reason}"
        recent = [
            (report, failure)
            for report in reports
            for failure in report.failures
            if not is_overdue(failure, self._lease)
        ]
        if not recent:
            return None
        self._count_time(now)
        if self._credited > MAX_CREDITED_LEASES * self._lease * len(reports):
            return None
        process, failure = recent[0]
        return f"{process.name} cannot {failure.ability}: {failure.reason}"

    def _count_time(self, now: float) -> None:
        passed = self._lease if self._seen_at is None else now - self._seen_at
        self._credited = 0.0 if passed >= self._lease else self._credited + passed
        self._seen_at = now


def _first(reports: Collection[ProcessReport]) -> Failure:
    return next(failure for report in reports for failure in report.failures if failure.total)
