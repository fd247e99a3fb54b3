"""Who sees every commit, and says what must not have happened in it."""

from collections import defaultdict
from collections.abc import Collection
from typing import Protocol

from faults.simulation.clock import Clock
from faults.simulation.editions import Editions
from faults.simulation.postgres import Held, Tables
from faults.simulation.rules import BLAME, HOLD, LEASE_REPLACED, REMOVAL_DELAY, SLACK
from faults.simulation.shares import Shares
from faults.simulation.violation import Violation
from msgspec.structs import replace

from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key
from registry.core.endpoint_change import EndpointChange
from wire.model import Registration, Report


class Owner(Protocol):
    """What the witness knows of a registrar: more than the registry can."""

    number: int

    @property
    def silence(self) -> float:
        """Seconds so far in which it could not, or would not, be heard, by no fault of the registry."""

    @property
    def leaves(self) -> bool:
        """Whether it drains, or has deregistered."""


class Witness:
    """The truth about who is alive, and the real times of what the database's clock says otherwise.

    ``operated`` holds what an operator drained or deregistered, ``moved`` when an address was last given to a start of
    an instance, and ``interruptions`` the seconds of all that were too short to be credited.
    ``refused_services`` are those of which PostgreSQL refused something, and ``shut_until`` is the moment until which
    some process may be known not to take heartbeats.
    """

    def __init__(self, clock: Clock) -> None:
        self.owners: dict[tuple[Key, str, int], Owner] = {}
        self.operated: set[Key] = set()
        self.editions = Editions()
        self.shares = Shares(clock)
        self.moved: defaultdict[tuple[str, int], float] = defaultdict(float)
        self.interruptions = 0.0
        self.refused_services: set[str] = set()
        self.shut_until = 0.0
        self._clock = clock
        self._robbed: dict[int, float] = {}
        self.leaseless_until: dict[int, float] = {}
        self._unroutable: dict[int, float] = {}
        self._lapsed: dict[int, float] = {}

    def owner(self, row: Endpoint) -> Owner | None:
        """Return the registrar that a row comes from."""
        return self.owners.get((row.key, row.registration.instance_id, row.registration.incarnation))

    def left_by_newer(self, key: Key, instance_id: str, incarnation: int) -> bool:
        """Tell whether a newer start of an instance leaves, which takes what an older one published along.

        For the registry the older one is dead, and its lease may outlive it: a newer one that is told to stop before it
        has published anything drains what is listed. An older one that still runs is a clone, and the newer one wins.
        """
        return any(
            owner.leaves
            for (place, instance, number), owner in self.owners.items()
            if (place, instance) == (key, instance_id) and number > incarnation
        )

    def silence(self, row: Endpoint) -> float:
        """Return its registrar's silence so far; it is kept with each renewal, and is lost with it."""
        owner = self.owner(row)
        return self.interruptions + (0.0 if owner is None else owner.silence)

    def published(self, tables: Tables, service: str) -> None:
        """Take note of what a service's version stands for."""
        rows = [tables.joined(row) for row in tables.listed(service)]
        numbers = tables.services[service]
        self.editions.published(service, numbers.version, numbers.change, rows)

    def forgotten(self, tables: Tables, row: Endpoint) -> None:
        """A tombstone was pruned; it refuses nobody any more, unless there is another of the same owner."""
        name = row.key, row.registration.instance_id
        if any((one.key, one.registration.instance_id) == name for one in tables.endpoints.values()):
            return
        for known in (tables.left, tables.owner, tables.lost):
            known.pop(name, None)

    def robbed(self, row: Endpoint) -> None:
        """Take note that the lease of an endpoint was deleted by hand, as it stood."""
        self._robbed[row.id] = self.silence(row)
        self.leaseless_until[row.id] = self._clock.now + LEASE_REPLACED

    def silence_before(self, row: Endpoint) -> float:
        """Return its registrar's silence when its lease was deleted: a lease that replaces it is no heartbeat."""
        self.leaseless_until[row.id] = self._clock.now
        return self._robbed.get(row.id, self.silence(row))

    def passed_over(self, tables: Tables, service: str | None = None) -> None:
        """Forget since when endpoints of a service wait for their removal: they were not given a gap."""
        for row in tables.listed(service):
            if row.unroutable_at is not None:
                self._unroutable[row.id] = float("-inf")
            if row.lapsed_at is not None:
                self._lapsed[row.id] = float("-inf")

    def failed_over(self, tables: Tables) -> None:
        """Real times of what was lost mean nothing any more."""
        self.passed_over(tables)
        self.shares.reset()
        for place in self.moved:
            self.moved[place] = self._clock.now

    def committed(
        self, tables: Tables, changeset: Changeset, changed: Collection[EndpointChange], moved: Collection[str]
    ) -> None:
        """Look at a transaction; its endpoints are stored, its leases are as they were before."""
        causes = {
            (event.service, event.address, event.port, event.instance_id): event.kind for event in changeset.events
        }
        for entry in changed:
            row = entry.after
            if (*row.key, row.registration.instance_id) not in causes:
                assert _only_its_place(entry), "only the place of a lost endpoint is filled without an event of its own"
                continue
            self._note_left(tables, row)
            cause = causes[(*row.key, row.registration.instance_id)]
            if cause in ("registered", "taken_over"):
                self.moved[row.address, row.port] = self._clock.now
                self._judge_owner(tables, row)
            if cause == "lapsed":
                self._judge_lapse(row, tables.leases.get(row.id), changeset.now)
            self._judge_end(entry, cause)
            if cause == "removed":
                self._judge_removal(tables, row)
            self._note_times(entry)
        self.shares.check(tables, [entry.after for entry in changed if causes_lapse(entry)], changeset.now)
        self._check_owners(tables, {(entry.after.address, entry.after.port) for entry in changed})
        for service in moved:
            self.published(tables, service)

    def acknowledged(self, tables: Tables, key: Key, told: Registration, now: float) -> None:
        """I6: what is answered 200 is stored, and its lease is whole."""
        row = next((one for one in tables.listed(key[0]) if one.key == key), None)
        held = None if row is None else tables.leases.get(row.id)
        if row is None or held is None or row.leaving_at is not None or row.lapsed_at is not None:
            raise Violation(f"I6: {key} was acknowledged and is not stored: {row}")
        known = row.registration
        same = (known.instance_id, known.health) == (told.instance_id, told.health)
        if not same or known.incarnation < told.incarnation or (told.draining and not known.draining):
            raise Violation(f"I6: {key} was acknowledged as {told} and is stored as {known}")
        if held.expires_at < now + held.ttl - SLACK / 10:
            raise Violation(f"I6: {key} was granted {held.ttl} s and has {held.expires_at - now} s")

    def refused(self, tables: Tables, key: Key, told: Registration) -> None:
        """I1: only who has left, or is not the owner, is told so."""
        mine = [
            row
            for row in tables.endpoints.values()
            if row.key == key and row.registration.instance_id == told.instance_id
        ]
        left = tables.left.get((key, told.instance_id), 0) >= told.incarnation
        newer = any(row.registration.incarnation > told.incarnation for row in mine)
        if not left and not newer:
            raise Violation(f"I1: {told.instance_id} was refused at {key}, and had not left it")

    def _judge_owner(self, tables: Tables, row: Endpoint) -> None:
        """Of two starts of one instance, the one that lost an address does not get it again.

        It may do so once, by exceeding the other, if it has never had an answer (``registrar.endpoint.lease``).
        """
        owner, name = self.owner(row), (row.key, row.registration.instance_id)
        if owner is None:
            return
        before = tables.owner.get(name, owner.number)
        if before != owner.number:
            tables.lost[name] = (*tables.lost.get(name, ()), before)
        if tables.lost.get(name, ()).count(owner.number) > 1:
            raise Violation(f"fencing: start {owner.number} of {row.registration.instance_id} owns {row.key} once more")
        tables.owner[name] = owner.number

    def _judge_lapse(self, row: Endpoint, held: Held | None, now: float) -> None:
        before = self._robbed.get(row.id) if held is None else held.silence
        if self.owner(row) is None or before is None:
            raise Violation(f"I1: {row.key} lapsed and held no lease of a registrar: {row}")
        silent = self.silence(row) - before
        # A refusal that no sweep met, because it ended just before the lease did, and one after which no process could
        # take the heartbeats: see docs/reliability.md.
        unmet = (held is not None and now - held.expires_at < SLACK) or self._clock.now < self.shut_until
        unmet = unmet and row.service in self.refused_services
        if silent < BLAME and not unmet:
            raise Violation(
                f"I1: {row.key} of {row.registration.instance_id} lapsed although its registrar was silent for only "
                f"{silent:.1f} s since its lease was renewed"
            )
        if held is not None:
            self.shares.lapsed(row, held)

    def _judge_end(self, entry: EndpointChange, cause: str) -> None:
        before, row = entry.before, entry.after
        if before is None or before.removed_at is not None or not before.routable:
            return
        if row.removed_at is None and row.routable:
            return
        owner = self.owner(row)
        asked = row.key in self.operated or (owner is not None and owner.leaves)
        told = row.registration
        reported = told.health is Report.UNHEALTHY
        left = asked or self.left_by_newer(row.key, told.instance_id, told.incarnation)
        fair = {
            "deregistered": left,
            "expelled": asked,
            "drained": left,
            "health": reported,
            "lapsed": True,
            "overridden": row.override is not None and row.override.drain,
            "registered": asked or reported,
            "taken_over": True,
        }
        if not fair.get(cause, False):
            raise Violation(f"I1: {row.key} was routable and is {row.status} because of {cause}")

    def _judge_removal(self, tables: Tables, row: Endpoint) -> None:
        shown = self._clock.now - self._unroutable.get(row.id, float("-inf"))
        if shown < REMOVAL_DELAY - SLACK:
            raise Violation(f"two phases: {row.key} was left out after {shown:.1f} s of not being routable")
        by_contact = row.leaving_at is None and not row.registration.draining
        if by_contact and not any(tables.joined(one).routable for one in tables.listed(row.service)):
            gone = self._clock.now - self._lapsed.get(row.id, float("-inf"))
            if gone < HOLD - SLACK:
                raise Violation(
                    f"I3: {row.key}, of the last of {row.service}, was left out {gone:.1f} s after it lapsed"
                )

    def _note_times(self, entry: EndpointChange) -> None:
        row, before = entry.after, entry.before
        if row.routable:
            self._unroutable.pop(row.id, None)
        elif before is None or before.routable:
            self._unroutable[row.id] = self._clock.now
        if row.lapsed_at is None:
            self._lapsed.pop(row.id, None)
        elif before is None or before.lapsed_at is None:
            self._lapsed[row.id] = self._clock.now

    def _note_left(self, tables: Tables, row: Endpoint) -> None:
        told = row.registration
        if told.draining or row.leaving_at is not None:
            who = (row.key, told.instance_id)
            tables.left[who] = max(told.incarnation, tables.left.get(who, 0))

    def _check_owners(self, tables: Tables, places: Collection[tuple[str, int]]) -> None:
        owners: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        keys = set()
        for row in tables.listed():
            if (row.address, row.port) not in places:
                continue
            told = row.registration
            if row.leaving_at is None:
                owners[row.address, row.port].add(told.instance_id)
            if row.key in keys:
                raise Violation(f"one row: {row.key} is listed twice")
            keys.add(row.key)
            if row.routable and told.incarnation <= tables.left.get((row.key, told.instance_id), 0):
                raise Violation(f"no resurrection: {told.instance_id} {told.incarnation} had left {row.key}")
        for place, found in owners.items():
            if len(found) > 1:
                raise Violation(f"one owner: {place} belongs to {sorted(found)}")


def causes_lapse(entry: EndpointChange) -> bool:
    """Tell whether a transaction let an endpoint lapse."""
    return entry.after.lapsed_at is not None and (entry.before is None or entry.before.lapsed_at is None)


def _only_its_place(entry: EndpointChange) -> bool:
    before, after = entry.before, entry.after
    if before is None:
        return False
    return after == replace(before, lost_at=after.lost_at, lost_reason=after.lost_reason, spare_since=after.spare_since)
