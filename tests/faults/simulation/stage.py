"""The seams at which the registry meets the outside, and what stands there in a simulation."""

import asyncio
import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from random import Random
from typing import Any, Never

import asyncpg
import pytest
import structlog
from faults.simulation.clock import Clock
from faults.simulation.store import Store

from registrar import jitter
from registrar.registry_client import registries as targets
from registry.background import change_feed, evidence, prober, process_reports, sweeper
from registry.cache import snapshot_cache as cache
from registry.core import versions as numbers
from registry.errors import RegistryError
from registry.store import change_feed as feed
from registry.store import leases, pauses, processes, pruning
from registry.usecases import lease_renewal, operator_deregistration
from registry.usecases import registration as registrations
from registry.xds import discovery

_STATEMENTS: dict[Any, tuple[str, ...]] = {
    leases: (
        "renew",
        "all_leases",
        "try_lead",
        "last_sweep",
        "credit_all",
        "store_sweep_time",
        "expired_leases",
        "count_endpoints",
        "services_with_departed",
        "ended_overrides",
        "endpoints_without_lease",
        "grant_missing",
    ),
    pruning: ("prune",),
    pauses: ("in_force",),
    evidence: ("read_statements",),
    prober: ("replace_statements",),
    processes: ("store_report", "delete_report", "read_reports"),
    feed: (
        "read_state",
        "service_versions",
        "first_version",
        "unlisted_overrides",
        "steps",
        "raise_above",
    ),
    change_feed: ("read_clock", "read_identity"),
    lease_renewal: ("is_closed",),
    registrations: ("change_at_addresses",),
    operator_deregistration: ("change_by_operator", "change_endpoint_by_operator"),
    sweeper: ("change_at_addresses", "change_service", "change_unroutable", "read_clock"),
}


class Stage:
    """Puts a world's clock, dice and store where the real code looks for its own; one world at a time.

    ``broken`` is the first violation, or defect of ours, that came up below the real code: it is not to be swallowed
    by what handles the errors of PostgreSQL there.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.store: Store | None = None
        self.random = Random(0)
        self.broken: BaseException | None = None

    def note(self, error: BaseException) -> None:
        """Take note of an error, unless it is one that PostgreSQL or a rule of the registry may raise."""
        expected = isinstance(error, RegistryError | asyncpg.PostgresError | asyncio.CancelledError)
        if not expected and self.broken is None:
            self.broken = error

    def logged(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> Never:
        """Take note of the error that a line of the log tells of, and write nothing."""
        told = event.get("exc_info")
        error = sys.exc_info()[1] if told is True else told
        if isinstance(error, BaseException):
            self.note(error)
        raise structlog.DropEvent

    def monotonic(self) -> float:
        """Return virtual seconds, as the module ``time`` does."""
        return self.clock.now

    perf_counter = monotonic

    def time(self) -> float:
        """Return what the clock on the wall of a registry says."""
        return self.clock.now

    def token_hex(self, size: int) -> str:
        """Return a name by the history's dice, as the module ``secrets`` does."""
        return self.random.randbytes(size).hex()

    def uniform(self, least: float, most: float) -> float:
        """Return a number by the history's dice."""
        return self.random.uniform(least, most)


@contextmanager
def stage() -> Iterator[Stage]:
    """Prepare the modules of registry and registrar for simulations."""
    built = Stage()
    with pytest.MonkeyPatch.context() as patch:
        for module, names in _STATEMENTS.items():
            for name in names:
                patch.setattr(module, name, _statement(built, name))
        patch.setattr(prober, "uniform", built.uniform)
        for module in (
            evidence,
            prober,
            change_feed,
            cache,
            discovery,
            lease_renewal,
            process_reports,
            registrations,
            sweeper,
        ):
            patch.setattr(module, "time", built)
        # Addresses of a name are in an order that is the history's own.
        patch.setattr(targets, "hash", lambda told: Random(str(told)).random(), raising=False)
        patch.setattr(jitter, "_random", built)
        patch.setattr(numbers, "_dice", built)
        patch.setattr(process_reports, "secrets", built)
        patch.setattr(lease_renewal, "_SECONDS", _Silent())
        # Batches of one, which nothing but real time would keep apart.
        patch.setattr(lease_renewal, "_BATCH_INTERVAL", 0.0)
        registrar_log = logging.getLogger("registrar")
        patch.setattr(registrar_log, "handlers", [_RegistrarLog(built)])
        patch.setattr(registrar_log, "propagate", False)
        known = structlog.get_config()
        structlog.configure(
            processors=[built.logged],
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            cache_logger_on_first_use=False,
        )
        try:
            yield built
        finally:
            structlog.configure(**known)


def _statement(built: Stage, name: str) -> Any:
    async def ask(link: Any, *given: Any, **named: Any) -> Any:
        try:
            link.database.check(name)
            answer = await getattr(built.store, name)(link, *given, **named)
            await link.database.stall(name)
        except BaseException as error:
            built.note(error)
            raise
        return answer

    return ask


class _RegistrarLog(logging.Handler):
    """Takes note of the errors that registrars log, and writes nothing."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            self._stage.note(record.exc_info[1])


class _Silent:
    """A metric that keeps nothing."""

    def observe(self, _value: float) -> None:
        """Forget."""
