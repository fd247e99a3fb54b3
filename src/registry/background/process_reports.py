"""The loop by which registry processes tell one another that they live, and what they cannot do."""

import os
import secrets
import socket
import time
from contextlib import suppress

from registry.core.abilities import Abilities, AbilityName
from registry.core.processes import CreditForFailures, LivingProcesses, ProcessReport, is_overdue
from registry.errors import UnavailableError
from registry.metrics import CUT_OFF, FAILING
from registry.store import processes as store
from registry.store.database import Database

_KEEP_ALIVE = 3.0
"""Seconds between two reports that say the same."""


class ProcessReports:
    """This process's own report, and those of the others as PostgreSQL has them.

    Args:
        database: where they are exchanged.
        abilities: what this process can do.
        lease: seconds of a lease.
    """

    def __init__(self, database: Database, abilities: Abilities, lease: float) -> None:
        self._database = database
        self._abilities = abilities
        self._lease = lease
        self._id = secrets.token_hex(8)
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._started = time.monotonic()
        self._living = LivingProcesses()
        self._credit = CreditForFailures(lease)
        self._told: list[tuple[AbilityName, bool, str]] | None = None
        self._told_at = 0.0

    def own(self) -> ProcessReport:
        """Return this process's report, from memory."""
        failures = tuple(self._abilities.failures(time.monotonic()))
        started_at = time.time() - (time.monotonic() - self._started)
        return ProcessReport(self._id, self._name, started_at, failures)

    def all(self) -> list[ProcessReport]:
        """Return the reports of all processes that live, this one first; those of the others are a second old."""
        return self._living.reports(self.own(), time.monotonic())

    def credit_reason(self) -> str | None:
        """Return why leases are to be credited now, or None; for whoever sweeps, once a sweep."""
        return self._credit.reason(self.all(), time.monotonic())

    async def exchange(self) -> None:
        """Store this process's report when it says something new or the last one is old, and read the others'."""
        try:
            await self._tell()
        except UnavailableError:
            # Its own sweeper knows it from memory; the others know that it cannot be reached when it stays silent.
            self._told = None
        with suppress(UnavailableError):
            self._living.observe(await store.read_reports(self._database), time.monotonic())
        self._measure()

    async def leave(self) -> None:
        """Delete this process's report, so that the others do not count it any more."""
        with suppress(UnavailableError):
            await store.delete_report(self._database, self._id)

    async def _tell(self) -> None:
        report, now = self.own(), time.monotonic()
        said = [(failure.ability, failure.total, failure.reason) for failure in report.failures]
        if said != self._told or now - self._told_at >= _KEEP_ALIVE:
            await store.store_report(self._database, report)
            self._told, self._told_at = said, now

    def _measure(self) -> None:
        reports = self.all()
        lasting = {failure.ability: failure.seconds for failure in reports[0].failures}
        for ability in ("accept", "renew", "change"):
            FAILING.labels(ability).set(lasting.get(ability, 0.0))
        CUT_OFF.set(sum(any(is_overdue(failure, self._lease) for failure in one.failures) for one in reports))
