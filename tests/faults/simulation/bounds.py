"""What must be so after a while: who is well is routable, and who is dead is not."""

from typing import TYPE_CHECKING

from faults.simulation.postgres import Tables
from faults.simulation.registrar import Registrar
from faults.simulation.rules import HANDOVER, HEALED, HOLD, REMOVAL_DELAY, SHORT, SLACK, SLOW_WRITES, TTL
from faults.simulation.violation import Violation

from registry.core.endpoint import Endpoint
from registry.core.lease import WRITE_WINDOW
from wire.model import Report

if TYPE_CHECKING:
    from faults.simulation.world import World

_EVERY = 0.5


class Bounds:
    """Looks at the whole world twice a second.

    ``calm_since`` is the moment since which sweeps go on undisturbed, ``writable_since`` the one since which some
    registry can store heartbeats; None when that is not so.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self.calm_since = 0.0
        self._removal_calm_since = 0.0
        self._calm_of: dict[str, float] = {}
        self.writable_since: float | None = None
        self._slow_until, self._allowance = 0.0, 0.0
        world.soon(_EVERY, self._look)

    def disturb(self, seconds: float) -> None:
        """Take note that sweeps are not what they should be for so long, or that the clock was moved."""
        self.calm_since = max(self.calm_since, self._world.clock.now + seconds)

    def slow_down(self, write: float, seconds: float) -> None:
        """Take note that each write takes ``write`` seconds for so long: leases lapse later by a multiple of it."""
        self._slow_until = self._world.clock.now + seconds + WRITE_WINDOW
        self._allowance = max(self._allowance, SLOW_WRITES * write)

    def disturb_service(self, service: str, seconds: float) -> None:
        """Take note that nothing may be stored of one service for so long; all others are swept as ever."""
        self._calm_of[service] = max(self._calm_of.get(service, 0.0), self._world.clock.now + seconds)

    def disturb_removal(self, seconds: float) -> None:
        """Take note that nothing may be left out of the answers for so long; leases lapse as ever."""
        self._removal_calm_since = max(self._removal_calm_since, self._world.clock.now + seconds)

    def interrupt(self, seconds: float) -> None:
        """Take note that for so long there may be nobody who stores heartbeats or sweeps."""
        self.disturb(seconds + HANDOVER)
        if seconds <= SHORT:
            self._world.witness.interruptions += seconds

    async def _look(self) -> None:
        world = self._world
        world.soon(_EVERY, self._look)
        self._note_writable()
        tables = world.postgres.tables
        listed = {row.key: row for row in tables.listed()}
        for row in listed.values():
            self._check_dead(row)
        if self._writable_for() > HEALED:
            for registrar in world.registrars:
                self._check_well(tables, registrar, listed.get(registrar.key))

    def _note_writable(self) -> None:
        world = self._world
        if world.postgres.away or world.postgres.unwritable or not any(one.stores for one in world.replicas):
            self.writable_since = None
        elif self.writable_since is None:
            self.writable_since = world.clock.now

    def _writable_for(self) -> float:
        return 0.0 if self.writable_since is None else self._world.clock.now - self.writable_since

    def _check_well(self, tables: Tables, registrar: Registrar, row: Endpoint | None) -> None:
        """I1: who is alive, connected and passes its checks is routable within an interval of when it can be."""
        if registrar.unwell_since is not None:
            return
        endpoint, now = registrar.endpoint, self._world.clock.now
        refused = endpoint.lease.problem is not None and not endpoint.lease.accepted
        if refused:
            # It came to an address that is another's, and only asks for it.
            return
        witness = self._world.witness
        since = max(registrar.well_since, registrar.overtaken_at, witness.moved[registrar.key[1:]])
        if now - since < HEALED:
            return
        if registrar.leaves or registrar.key in witness.operated or endpoint.report is Report.UNHEALTHY:
            return
        if witness.left_by_newer(registrar.key, registrar.instance_id, endpoint.lease.incarnation):
            return
        if row is not None and witness.owner(row) is not registrar:
            # It has yet to hear that it lost the address; it asks four times in that while.
            raise Violation(f"fencing: {registrar.name} goes on although {row.registration.instance_id} owns {row.key}")
        row = None if row is None else tables.joined(row)
        kept = row is not None and row.override is not None and row.override.drain
        if row is None or not (row.routable or kept):
            raise Violation(f"I1: {registrar.name} is well since {since:.1f} and is {row}")

    def _check_dead(self, row: Endpoint) -> None:
        """I2: whose registrar is silent is not routable after its lease, or as a suspect for the hold at most."""
        owner = self._world.witness.owners.get((row.key, row.registration.instance_id, row.registration.incarnation))
        if not isinstance(owner, Registrar) or owner.unwell_since is None:
            return
        allowance = self._allowance if self._world.clock.now < self._slow_until else 0.0
        silent_for = (
            self._world.clock.now
            - allowance
            - max(
                owner.unwell_since,
                owner.heard_at,
                self.calm_since,
                self._calm_of.get(row.service, 0.0),
                self._world.witness.leaseless_until.get(row.id, 0.0),
            )
        )
        routable = self._world.postgres.tables.joined(row).routable
        if routable and silent_for > TTL + 1 + SLACK and row.suspect_since is None:
            raise Violation(f"I2: {row.key} is served {silent_for:.1f} s after the end of {owner.name}: {row}")
        if routable and silent_for > TTL + HOLD + SLACK:
            raise Violation(f"I2: {row.key} is a suspect {silent_for:.1f} s after the end of {owner.name}: {row}")
        last = TTL + HOLD + HOLD + REMOVAL_DELAY + SLACK
        if min(silent_for, self._world.clock.now - self._removal_calm_since) > last and row.lapsed_at is not None:
            raise Violation(
                f"no immortals: {row.key} is listed {silent_for:.1f} s after the end of {owner.name}: {row}"
            )
