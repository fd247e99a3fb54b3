"""A changeset holds the endpoints of one transaction, and every rule of registration, ownership and departure.

It is made of the rows that a transaction has locked, at the database's time, and its methods are the only ways in which
an endpoint changes. It does no I/O: ``registry.store.transaction`` loads the rows and stores what has changed.

The design is that of a unit of work (Fowler, Patterns of Enterprise Application Architecture). Which incarnations are
refused is in ``registry.core.fencing``.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from msgspec.structs import replace

from registry.core.admission import Admission
from registry.core.endpoint import Endpoint, Key, Override
from registry.core.endpoint_change import EndpointChange
from registry.core.event import Event, EventKind, calendar_time, describe_override, describe_setting, describe_update
from registry.core.fencing import Fences, has_left
from registry.core.history import TAKEN_FOR
from registry.core.presence import MAX_LOST, is_staying, pair, spare_for
from registry.core.silence import status_for_people
from registry.errors import NotFoundError, UnknownEndpointError
from wire.address import format_endpoint
from wire.model import Registration

LAPSED = "its registrar went silent, and its lease expired"
"""Why an endpoint is lost: the reason of a lapse."""
TAKEN_AWAY = "its registrar went silent, and another service got its address"
"""Why an endpoint is lost: while the guard kept it, its address was given away."""


class Changeset:
    """The endpoints that a transaction has locked, and their changes.

    Args:
        now: the database's time.
        rows: every endpoint that the transaction may change, listed ones and tombstones.
        kept: the stored overrides. That of an endpoint that is not listed applies when the same instance registers it
            again.
    """

    def __init__(self, now: float, rows: Iterable[Endpoint], kept: Mapping[Key, Override] | None = None) -> None:
        self.now = now
        self.unadmitted_services: frozenset[str] = frozenset()
        """Services that do not exist and may not be created; set by the store before the rules run."""
        self._kept = kept or {}
        # The number of endpoints that this transaction lists anew.
        self._entering = 0
        self.entries: list[EndpointChange] = []
        """All listed endpoints, as they were loaded and as they are now; the store writes those that changed."""
        self.events: list[Event] = []
        """The events of the changes so far, in their order."""
        self.overrides: dict[Key, Override | None] = {}
        """The overrides to store; None: the override of the key is deleted."""
        # The endpoints that are listed now, after all changes so far.
        self._listed: dict[Key, EndpointChange] = {}
        # All entries by address and port, whatever their services.
        self._at: defaultdict[tuple[str, int], list[EndpointChange]] = defaultdict(list)
        # Rows of lost endpoints by their ids, listed ones and tombstones.
        self._lost: dict[int, EndpointChange] = {}
        # Keys whose endpoint has left on purpose lately: what registers there next is its successor, and not one more.
        self._left: set[Key] = set()
        self._fences = Fences(now)
        for row in rows:
            self._open(row)

    def _open(self, row: Endpoint) -> None:
        entry = EndpointChange(row, row)
        if row.removed_at is None:
            self._list(entry)
        else:
            self._add_tombstone(row)
        if row.lost_at is not None:
            self._lost[row.id] = entry
            if row.removed_at is not None:
                self.entries.append(entry)

    def _list(self, entry: EndpointChange) -> None:
        row = entry.after
        self.entries.append(entry)
        self._listed[row.key] = entry
        self._at[row.address, row.port].append(entry)

    @property
    def gained(self) -> list[Endpoint]:
        """The endpoints that services have gained, which may fill the places of lost ones."""
        return [entry.after for entry in self._gained()]

    def _gained(self) -> list[EndpointChange]:
        return [entry for entry in self.entries if entry.gained and entry.after.removed_at is None]

    def fill_places(self, lost: Iterable[Endpoint]) -> None:
        """Let the endpoints that services have gained fill the places of lost ones, the last of the rules.

        Args:
            lost: rows of lost endpoints of these services, the oldest and those of the same instances; those that the
                changeset has already are skipped.
        """
        for row in lost:
            if row.id not in self._lost:
                entry = self._lost[row.id] = EndpointChange(row, row)
                self.entries.append(entry)
        for service in {endpoint.service for endpoint in self.gained}:
            entered = [entry for entry in self._gained() if entry.after.service == service]
            gone = [entry.after for entry in self._lost.values() if entry.after.service == service]
            filled, spare = pair([entry.after for entry in entered], gone, self.now)
            for position, row in filled:
                self._replace_lost(self._lost[row.id], entered[position].after)
            for position in spare:
                entered[position].after = replace(entered[position].after, spare_since=self.now)

    def _replace_lost(self, entry: EndpointChange, new: Endpoint) -> None:
        if new.key == entry.after.key:
            # Its registration is the event.
            entry.after = _without_loss(entry.after)
        else:
            words = f"{new.name} of instance {new.registration.instance_id} fills its place"
            self._put(entry, _without_loss(entry.after), "replaced", words, "registry")

    def acknowledge(self, keys: Collection[Key] | None, actor: str, reason: str) -> list[Endpoint]:
        """Take lost endpoints off the list of those that people miss, and return them.

        Args:
            keys: of these endpoints; None: all.
            actor: the operator.
            reason: why, for the history; empty: none was given.
        """
        words = f"the loss was acknowledged{reason and ': '}{reason}"
        acknowledged = []
        for entry in list(self._lost.values()):
            lost = entry.after.lost_at is not None and (keys is None or entry.after.key in keys)
            if lost:
                acknowledged.append(entry.after)
                self._put(entry, _without_loss(entry.after), "lost_acknowledged", words, actor)
        return acknowledged

    def listed(self, key: Key) -> Endpoint | None:
        """Return the endpoint with all changes so far, or None if it is not listed."""
        entry = self._listed.get(key)
        return entry.after if entry else None

    def all_listed(self) -> list[Endpoint]:
        """Return every listed endpoint with all changes so far."""
        return [entry.after for entry in self._listed.values()]

    def register(
        self,
        key: Key,
        registration: Registration,
        actor: str,
        *,
        fenced: bool = True,
        admission: Admission | None = None,
        owner: str = "",
        check_owner: Callable[[Endpoint], None] | None = None,
    ) -> Endpoint:
        """Register or update an instance's endpoint, and grant it a lease.

        Args:
            key: service, address and port.
            registration: the full state, its ttl filled in.
            actor: the principal or client, for the history.
            fenced: False for the drop-in contracts, whose clients have no incarnation and are never fenced.
            admission: the limits for new endpoints; None: there are none.
            owner: the identity that registers it; empty: the endpoint keeps the owner that it has.
            check_owner: refuses to change or to take an endpoint, by its owner; None: every one may be.

        Raises:
            NotOwnerError: ``check_owner`` refused.
            FencedError: a newer incarnation is known, this one has left, or another instance took over.
            InadmissibleError: the limits do not allow it, or the incarnation is too far in the future.
            LimitError: there are too many endpoints.
        """
        entry = self._listed.get(key)
        if check_owner is not None:
            for held in self._at[key[1:]]:
                if held.after.removed_at is None:
                    check_owner(held.after)
        if fenced:
            self._fences.check_registration(key, registration, None if entry is None else entry.after)
        if admission is not None:
            if key[0] in self.unadmitted_services:
                raise admission.service_limit_error(key[0])
            entering = 0 if entry is not None else self._entering + 1
            admission.check(key[1], registration, _same(entry, registration), entering)
        self._entering += entry is None
        self._evict_elsewhere(key, registration, actor, owner)
        succeeds = False
        if entry is not None and entry.after.registration.instance_id != registration.instance_id:
            # The successor of an endpoint that was not lost is not one more.
            succeeds = entry.after.lost_at is None
            self._take_over(entry, registration, actor, owner)
            entry = None
        if entry is None:
            entry = self._enter(key, registration, actor, owner)
            entry.gained = not succeeds and (key not in self._left or self._lost_at(key))
        else:
            self._update(entry, registration, actor, owner or entry.after.owner)
        entry.granted = True
        return entry.after

    def _lost_at(self, key: Key) -> bool:
        return any(entry.after.key == key and entry.after.lost_at is not None for entry in self._lost.values())

    def drain(
        self,
        key: Key,
        instance_id: str | None,
        incarnation: int | None,
        actor: str,
        check_owner: Callable[[Endpoint], None] | None = None,
    ) -> Endpoint:
        """Take an endpoint out of rotation for the rest of its incarnation.

        Raises:
            NotFoundError: it is not listed.
            NotOwnerError: ``check_owner`` refused.
            FencedError: an instance or incarnation is named and is not the owner's.
        """
        entry = self._owned(key, instance_id, incarnation, check_owner)
        drained = replace(_leaving_as(entry.after, incarnation), draining=True)
        if drained != entry.after.registration:
            after = replace(_without_loss(entry.after), registration=drained, drained_by=self._signed(actor))
            self._put(entry, after, "drained", "drain asked for", actor)
        return entry.after

    def deregister(
        self,
        key: Key,
        instance_id: str | None,
        incarnation: int | None,
        actor: str,
        *,
        lapsed_too: bool = True,
        check_owner: Callable[[Endpoint], None] | None = None,
    ) -> Endpoint:
        """Give the lease back; the endpoint is removed once it was not routable for the removal delay.

        Raises:
            NotFoundError: it is not listed, or has left already; with ``lapsed_too`` off also when it lapsed.
            NotOwnerError: ``check_owner`` refused.
            FencedError: an instance or incarnation is named and is not the owner's.
        """
        entry = self._owned(key, instance_id, incarnation, check_owner)
        if entry.after.lapsed_at is not None and not lapsed_too:
            raise _left_already(entry.after)
        return self._leave(entry, "deregistered", "deregistration asked for", actor, incarnation)

    def deregister_by_operator(self, key: Key, reason: str, actor: str) -> Endpoint:
        """Deregister an endpoint for an operator, whichever instance owns it.

        Raises:
            NotFoundError: it is not listed, or has left already.
        """
        return self._leave(
            self._owned(key, None, None), "expelled", f"an operator deregistered it{reason and ': '}{reason}", actor
        )

    def override(self, key: Key, override: Override, actor: str) -> Endpoint:
        """Set an operator's override of an instance's endpoint.

        Raises:
            NotFoundError: it is not listed.
        """
        entry = self._owned(key, None, None)
        before = entry.after.override
        override = replace(override, instance_id=entry.after.registration.instance_id)
        self.overrides[key] = override
        words = describe_override(override)
        if before is not None and before.drain and not override.drain:
            words += f"; this ends the drain: {describe_setting(before)}"
        self._put(entry, replace(entry.after, override=override), "overridden", words, actor)
        return entry.after

    def change_override(
        self, key: Key, change: Callable[[Override | None, float], Override | None], actor: str, reason: str = ""
    ) -> None:
        """Change or clear an operator's override, by the override that is in force in this transaction.

        Args:
            key: service, address and port.
            change: gets the override in force and the database's time; returns the new override, or None for none.
            actor: the operator.
            reason: why, for the history of an override of which no part is left.

        Raises:
            NotFoundError: the endpoint is not listed, or there is nothing to take back.
        """
        before = self._owned(key, None, None).after.override
        after = change(None if before is None or before.ended(self.now) else before, self.now)
        if after is None:
            self.clear_override(key, actor, reason)
        else:
            self.override(key, after, actor)

    def clear_override(self, key: Key, actor: str, reason: str = "") -> None:
        """Clear an override, also that of an endpoint that is no longer listed.

        Args:
            key: service, address and port.
            actor: the operator.
            reason: why it is cleared; empty: none was given.

        Raises:
            NotFoundError: nothing is set.
        """
        entry = self._listed.get(key)
        override = entry.after.override if entry is not None else self._kept_override(key)
        if override is None:
            raise NotFoundError(f"no override is set for {format_endpoint(*key[1:])} of {key[0]}")
        self.overrides[key] = None
        if entry is not None:
            taken_back = f"taken back: {reason}" if reason else "taken back"
            words = f"{taken_back}; {describe_setting(override)}"
            self._put(entry, replace(entry.after, override=None), "override_cleared", words, actor)

    def end_override(self, key: Key) -> None:
        """Clear an override whose time is over; one that was set anew meanwhile stays."""
        entry = self._listed.get(key)
        override = entry.after.override if entry is not None else self._kept_override(key)
        if override is None or not override.ended(self.now):
            return
        self.overrides[key] = None
        if entry is not None:
            after = replace(entry.after, override=None)
            words = f"the time of the override is over; {describe_setting(override)}"
            self._put(entry, after, "override_cleared", words, "sweeper")

    def suspect(self, key: Key, reason: str) -> None:
        """Mark an endpoint whose lease expired, and that the guard or a pause keeps served, as a suspect."""
        entry = self._listed.get(key)
        if entry is None or entry.after.suspect_since is not None or entry.after.lapsed_at is not None:
            return
        after = replace(entry.after, suspect_since=self.now, suspect_reason=reason)
        self._put(entry, after, "suspected", f"its lease expired, and it is kept in the answers: {reason}", "sweeper")

    def lapse(self, key: Key, expired_at: float, evidence: str = "") -> None:
        """Publish TIMEOUT for an endpoint whose lease expired.

        Args:
            key: service, address and port.
            expired_at: when its lease expired.
            evidence: the evidence that it is dead, in words; empty: there is none.
        """
        entry = self._listed.get(key)
        if entry is None or entry.after.lapsed_at is not None:
            return
        ttl = entry.after.registration.ttl or 0.0
        silent = max(0.0, self.now - expired_at) + ttl
        reason = f"no heartbeat for {silent:.1f} s; the lease of {ttl:g} s expired"
        if evidence:
            reason += f"; {evidence}"
        after = replace(_trusted(entry.after), lapsed_at=self.now)
        if after.draining:
            reason += "; it was drained before"
        elif (spare := spare_for(after, expired_at - ttl, self.all_listed())) is not None:
            filling = self._listed[spare.key]
            filling.after = replace(filling.after, spare_since=None)
            reason += f"; {spare.name} of instance {spare.registration.instance_id} has filled its place"
        elif len(self._lost) < MAX_LOST:
            after = replace(after, lost_at=self.now, lost_reason=LAPSED)
            self._lost[after.id] = entry
        self._put(entry, after, "lapsed", reason, "sweeper")

    def remove(self, key: Key) -> None:
        """Remove an endpoint from the answers; its row stays as a tombstone that fences late heartbeats."""
        entry = self._listed.pop(key, None)
        if entry is not None:
            why = "deregistered" if entry.after.leaving_at is not None else "lapsed"
            reason = f"{why}, and not routable for the removal delay"
            self._put(entry, replace(entry.after, removed_at=self.now), "removed", reason, "sweeper")

    def _evict_elsewhere(self, key: Key, registration: Registration, actor: str, owner: str) -> None:
        """Take an address from another instance that holds it for another service, since an address has one owner."""
        for entry in self._at[key[1:]]:
            row = entry.after
            holds = row.service != key[0] and row.leaving_at is None and row.removed_at is None
            if holds and row.registration.instance_id != registration.instance_id:
                reason = f"instance {registration.instance_id}{TAKEN_FOR}{key[0]}"
                after = replace(row, leaving_at=self.now)
                if row.suspect_since is not None and is_staying(row):
                    # It was silent, and its service has not replaced it.
                    after = replace(after, lost_at=self.now, lost_reason=TAKEN_AWAY)
                self._put(entry, after, "taken_over", reason, actor, owner)
                self._add_tombstone(entry.after)

    def _take_over(self, entry: EndpointChange, registration: Registration, actor: str, owner: str) -> None:
        reason = f"instance {registration.instance_id} registered the address"
        gone = replace(entry.after, leaving_at=self.now, removed_at=self.now)
        self._put(entry, gone, "taken_over", reason, actor, owner)
        self._add_tombstone(gone)
        del self._listed[gone.key]

    def _enter(self, key: Key, registration: Registration, actor: str, owner: str) -> EndpointChange:
        service, address, port = key
        kept = self._kept_override(key)
        reason = f"first registration as {registration.health.value}"
        if kept is not None and kept.instance_id not in ("", registration.instance_id):
            # Addresses are assigned again. An override of one instance must not apply to the next one.
            reason += f"; the override of instance {kept.instance_id} ends here: {describe_setting(kept)}"
            self.overrides[key] = kept = None
        new = Endpoint(0, service, address, port, registration, self.now, self.now, override=kept, owner=owner)
        entry = EndpointChange(None, new)
        self._list(entry)
        self._put(entry, new, "registered", reason, actor)
        return entry

    def _kept_override(self, key: Key) -> Override | None:
        """Return the override of an endpoint that is not listed, as loaded or as this transaction left it."""
        return self.overrides.get(key, self._kept.get(key))

    def _update(self, entry: EndpointChange, registration: Registration, actor: str, owner: str) -> None:
        row, current = entry.after, entry.after.registration
        if registration.incarnation > current.incarnation or row.leaving_at is not None:
            after = replace(
                _trusted(row),
                registration=registration,
                leaving_at=None,
                lapsed_at=None,
                registered_at=self.now,
                owner=owner,
                drained_by=self._signed(actor) if registration.draining else "",
            )
            reason = f"incarnation {registration.incarnation} of the same instance"
            if row.registration.draining and row.drained_by and not registration.draining:
                reason += f"; this ends the drain by {row.drained_by}"
            self._put(entry, after, "registered", reason, actor, owner)
            return
        draining = registration.draining or current.draining
        registration = replace(registration, draining=draining, incarnation=current.incarnation)
        after = replace(_trusted(row), registration=registration, lapsed_at=None, owner=owner)
        if draining and not current.draining:
            after = replace(after, drained_by=self._signed(actor))
        if after != row:
            self._put(entry, after, *describe_update(row, registration, owner), actor, owner)

    def _signed(self, actor: str) -> str:
        """Return an actor with the time, for the event at which a drain ends."""
        return f"{actor} at {calendar_time(self.now)}"

    def _owned(
        self,
        key: Key,
        instance_id: str | None,
        incarnation: int | None,
        check_owner: Callable[[Endpoint], None] | None = None,
    ) -> EndpointChange:
        entry = self._listed.get(key)
        if entry is None:
            raise UnknownEndpointError(key[0], format_endpoint(*key[1:]))
        if check_owner is not None:
            check_owner(entry.after)
        self._fences.check_departure(entry.after, instance_id, incarnation)
        return entry

    def _leave(
        self, entry: EndpointChange, kind: EventKind, reason: str, actor: str, incarnation: int | None = None
    ) -> Endpoint:
        if entry.after.leaving_at is not None:
            raise _left_already(entry.after)
        registration = _leaving_as(entry.after, incarnation)
        left = replace(_without_loss(entry.after), registration=registration, leaving_at=self.now)
        self._put(entry, left, kind, reason, actor)
        return entry.after

    def _put(  # the facts of a change
        self, entry: EndpointChange, after: Endpoint, kind: EventKind, reason: str, actor: str, owner: str | None = None
    ) -> None:
        """Change an endpoint, and note the event; ``owner`` is the identity that gets it or its address."""
        former = entry.after.owner
        changes_owner = bool(former) and owner is not None and owner != former
        if changes_owner:
            # In front, because some reasons end with the name of a service.
            reason = f"owner {former} to {owner or 'none'}: {reason}"
        if after.routable:
            after = replace(after, unroutable_at=None)
        elif after.unroutable_at is None:
            after = replace(after, unroutable_at=self.now)
        entry.after = replace(after, changed_at=self.now)
        self.events.append(
            Event(
                after.service,
                after.address,
                after.port,
                after.registration.instance_id,
                kind,
                reason,
                actor,
                status_for_people(after) if after.removed_at is None else "REMOVED",
                changes_owner,
            )
        )

    def _add_tombstone(self, row: Endpoint) -> None:
        self._fences.add(row)
        if has_left(row) and row.lost_at is None:
            self._left.add(row.key)

    def changed(self) -> Iterator[EndpointChange]:
        """Return the changes that have to be stored."""
        return (entry for entry in self.entries if entry.changed)

    def granted(self) -> Iterator[EndpointChange]:
        """Return the endpoints that were granted a lease and may still hold it."""
        return (entry for entry in self.entries if entry.granted and entry.leased)


def _same(entry: EndpointChange | None, registration: Registration) -> Endpoint | None:
    """Return the endpoint if it is owned by the registering instance, and has not left."""
    if entry is None or entry.after.leaving_at is not None:
        return None
    return entry.after if entry.after.registration.instance_id == registration.instance_id else None


def _left_already(row: Endpoint) -> NotFoundError:
    return NotFoundError(f"{row.name} of {row.service} has left already")


def _leaving_as(row: Endpoint, incarnation: int | None) -> Registration:
    """Return an endpoint's registration under the incarnation that leaves.

    A drain may overtake the first heartbeat of its incarnation, which must not undo the drain when it arrives.
    """
    registration = row.registration
    return replace(registration, incarnation=max(registration.incarnation, incarnation or 0))


def _trusted(row: Endpoint) -> Endpoint:
    """Return an endpoint that is no longer a suspect, and not lost."""
    return replace(_without_loss(row), suspect_since=None, suspect_reason="")


def _without_loss(row: Endpoint) -> Endpoint:
    """Return an endpoint that is not lost, or not any more."""
    return replace(row, lost_at=None, lost_reason="") if row.lost_at is not None else row
