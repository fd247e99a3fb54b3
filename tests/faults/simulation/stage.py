"""The seams at which the registry meets the outside, and what stands there in a simulation."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
import structlog
from faults.simulation.clock import Clock
from faults.simulation.store import Store

from registrar import jitter
from registry import changes, directory, expulsion, heartbeats, numbers, registrations, sweeper
from registry.store import feed, leases, pauses
from registry.xds import discovery

_STATEMENTS: dict[Any, tuple[str, ...]] = {
    leases: (
        "renew",
        "all_leases",
        "lead",
        "last_sweep",
        "credit_all",
        "swept",
        "expired",
        "population",
        "departing",
        "ended_overrides",
        "prune",
    ),
    pauses: ("in_force",),
    feed: ("database_id", "numbers", "steps", "raise_above"),
    changes: ("clock",),
    heartbeats: ("is_closed",),
    registrations: ("change_places",),
    expulsion: ("change_by_operator",),
    sweeper: ("change_places", "change_service", "clock"),
}


class Stage:
    """Puts a world's clock, dice and store where the real code looks for its own; one world at a time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store: Store | None = None
        self.random = Random(0)

    def monotonic(self) -> float:
        """Return virtual seconds, as the module ``time`` does."""
        return self.clock.now

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
        for module in (changes, directory, discovery, sweeper):
            patch.setattr(module, "time", built)
        patch.setattr(jitter, "_dice", built)
        patch.setattr(numbers, "_dice", built)
        patch.setattr(heartbeats, "_SECONDS", _Silent())
        # Batches of one, which nothing but real time would keep apart.
        patch.setattr(heartbeats, "_APART", 0.0)
        known = structlog.get_config()
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=False
        )
        try:
            yield built
        finally:
            structlog.configure(**known)


def _statement(built: Stage, name: str) -> Any:
    async def ask(*given: Any, **named: Any) -> Any:
        return await getattr(built.store, name)(*given, **named)

    return ask


class _Silent:
    """A metric that keeps nothing."""

    def observe(self, _value: float) -> None:
        """Forget."""
