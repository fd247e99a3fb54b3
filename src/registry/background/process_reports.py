"""The loop by which registry processes report to one another that they live, and which abilities they lack."""

import os
import secrets
import socket
import time
from contextlib import suppress

from registry.core.abilities import Abilities, AbilityName
from registry.core.processes import CreditForFailures, LivingProcesses, ProcessReport, SilentProcess, is_overdue
from registry.errors import UnavailableError
from registry.metrics import CUT_OFF, FAILING
from registry.store import processes as store
from registry.store.database import Database

_REPORT_INTERVAL = 3.0
"""Seconds after which a report is stored again although it has not changed."""


class ProcessReports:
    """This process's own report, and the reports of the others as PostgreSQL has them.

    The rules are in ``registry.core.processes``, the statements in ``registry.store.processes``.

    Args:
        database: the database through which reports are exchanged.
        abilities: the abilities of this process.
        lease: seconds of a lease.
    """

    def __init__(self, database: Database, abilities: Abilities, lease: float) -> None:
        self._database = database
        self._abilities = abilities
        self._lease = lease
        # The identity of this process, drawn at its start and never changed.
        self._id = secrets.token_hex(8)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._started = time.monotonic()
        # The reports of all processes as of the last exchange, and the credit that they have used up.
        self._living = LivingProcesses()
        self._credit = CreditForFailures(lease)
        # The failures that were stored last, and the monotonic time; None: none, or they could not be stored.
        self._published: list[tuple[AbilityName, bool, str]] | None = None
        self._published_at = 0.0

    @property
    def process_id(self) -> str:
        """The random id of this process, drawn at its start."""
        return self._id

    def own(self) -> ProcessReport:
        """Return this process's report, from memory."""
        failures = tuple(self._abilities.failures(time.monotonic()))
        started_at = time.time() - (time.monotonic() - self._started)
        return ProcessReport(self._id, self._name, started_at, failures)

    def all(self) -> list[ProcessReport]:
        """Return the reports of all living processes, this one first; those of the others are up to a second old."""
        return self._living.reports(self.own(), time.monotonic())

    def silent(self) -> list[SilentProcess]:
        """Return the processes whose reports have stopped although they did not say that they stop."""
        return self._living.silent(self.own(), time.monotonic())

    def credit_reason(self) -> str | None:
        """Return why leases are to be credited now, or None; the sweeper calls it once a sweep."""
        return self._credit.reason(self.all(), time.monotonic())

    async def exchange(self) -> None:
        """Store this process's report when it has changed or the stored one is old, and read the others."""
        try:
            await self._publish()
        except UnavailableError:
            # This process's sweeper has the report in memory, and the others notice that it is missing.
            self._published = None
        with suppress(UnavailableError):
            self._living.observe(await store.read_reports(self._database), time.monotonic())
        self._set_metrics()

    async def leave(self) -> None:
        """Delete this process's report, so that the others no longer count it as living."""
        with suppress(UnavailableError):
            await store.delete_report(self._database, self._id)

    async def _publish(self) -> None:
        report, now = self.own(), time.monotonic()
        failures = [(failure.ability, failure.total, failure.reason) for failure in report.failures]
        if failures != self._published or now - self._published_at >= _REPORT_INTERVAL:
            await store.store_report(self._database, report)
            self._published, self._published_at = failures, now

    def _set_metrics(self) -> None:
        reports = self.all()
        seconds = {failure.ability: failure.seconds for failure in reports[0].failures}
        for ability in ("accept", "renew", "change"):
            FAILING.labels(ability).set(seconds.get(ability, 0.0))
        CUT_OFF.set(sum(any(is_overdue(failure, self._lease) for failure in report.failures) for report in reports))
