"""The bound of the mass-expiry guard, counted on the real clock."""

from collections import Counter
from collections.abc import Collection

from faults.simulation.clock import Clock
from faults.simulation.postgres import Held, Tables
from faults.simulation.rules import HOLD, SLACK
from faults.simulation.violation import Violation

from registry.core.endpoint import Endpoint
from registry.core.expiry_guard import GUARD_WINDOW, SERVICE_SHARE, STRONG_SHARE, TOTAL_SHARE


class Shares:
    """Who lapsed within the window, apart from those whose time as suspects was over.

    ``with_evidence`` says that there are probers, by whose word half of a service may lapse, and the share of all does
    not matter. It is said of the whole history: who lapsed by which word is for its test to say. ``gone`` are the
    instances of which the platform says that they are gone, for which there is no share.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lately: dict[int, tuple[float, str]] = {}
        self._expiry: dict[int, float] = {}
        self.with_evidence = False
        self.gone: set[str] = set()

    def reset(self) -> None:
        """Begin a new window: the database's clock, by which the guard goes, is another one."""
        self._lately.clear()

    def lapsed(self, row: Endpoint, held: Held) -> None:
        """Take note of when the lease of a lapsing endpoint had expired."""
        self._expiry[row.id] = held.expires_at

    def check(self, tables: Tables, lapsing: Collection[Endpoint], now: float) -> None:
        """Compare with the shares; one more than allowed is fair, for who came or left since it was judged."""
        early = [row for row in lapsing if now - self._expiry.get(row.id, now) < HOLD - SLACK]
        early = [row for row in early if row.registration.instance_id not in self.gone]
        if not early:
            return
        moment = self._clock.now
        self._lately = {
            number: told
            for number, told in self._lately.items()
            if told[0] > moment - GUARD_WINDOW
            and (found := tables.endpoints.get(number))
            and found.lapsed_at is not None
        }
        self._lately.update((row.id, (moment, row.service)) for row in early)
        spent = Counter(service for _, service in self._lately.values())
        live = Counter(row.service for row in tables.listed() if row.lapsed_at is None and row.leaving_at is None)
        for service in {row.service for row in early}:
            share = STRONG_SHARE if self.with_evidence else SERVICE_SHARE
            limit = max(1, int(share * (live[service] + spent[service])))
            if spent[service] > limit + 1:
                raise Violation(f"guard: {spent[service]} of {service} lapsed within {GUARD_WINDOW} s, {limit} may")
        if self.with_evidence:
            return
        limit = max(1, int(TOTAL_SHARE * (live + spent).total()))
        if spent.total() > limit + 1:
            raise Violation(f"guard: {spent.total()} of all lapsed within {GUARD_WINDOW} s, {limit} may")
