"""The statements of ``registry.store`` on a PostgreSQL in memory: they store and find, and decide nothing."""

from array import array
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from faults.simulation.link import Database, Session
from faults.simulation.postgres import Held, Numbers, Postgres, Tables
from faults.simulation.witness import Witness
from msgspec.structs import replace

from registry.core import versions as numbers
from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key, Override
from registry.core.endpoint_change import EndpointChange
from registry.core.endpoint_table import AddressPort
from registry.core.evidence import Statement
from registry.core.expiry_guard import Candidate, Pause
from registry.core.lease import Leases, SweepTime
from registry.core.processes import ProcessReport, StoredReport
from registry.core.snapshot import SnapshotDelta
from registry.store import changeset_writer
from registry.store.leases import Renewed
from registry.store.restored import DatabaseIdentity
from registry.store.service_locks import StoredVersion

Link = Database | Session

_DATABASE_ID = "world"
_REPORTS_KEPT = 60.0
"""Seconds for which the report of a process that is gone stays."""


def _since_2000(seconds: float) -> int:
    return round((seconds - 946_684_800) * 1e6)


class Store:
    """What replaces the functions of the folder ``store``, each under its own name."""

    def __init__(self, postgres: Postgres, witness: Witness, notify: Callable[[str], None]) -> None:
        self._postgres = postgres
        self._witness = witness
        self._notify = notify

    @property
    def _tables(self) -> Tables:
        return self._postgres.tables

    async def renew(self, link: Link, renewals: Collection[tuple[int, int, int]]) -> Renewed:
        """Renew leases by endpoint id, incarnation and change."""
        link.reach(write=True)
        now, renewed = self._postgres.now, set[int]()
        with self._postgres.transaction() as tables:
            for number, incarnation, change in sorted(renewals):
                held = tables.leases.get(number)
                if held is not None and (held.incarnation, held.change) == (incarnation, change):
                    silence = self._witness.silence(tables.endpoints[number])
                    tables.leases[number] = Held(incarnation, now, now + held.ttl, held.ttl, change, silence)
                    renewed.add(number)
        link.database.committed()
        return Renewed(frozenset(renewed))

    async def is_closed(self, session: Session) -> bool:
        """Tell whether PostgreSQL closed a connection."""
        return session.closed

    async def all_leases(self, link: Link, between: Callable[[], Awaitable[None]]) -> Leases:
        """Return every lease, after what is due between two statements of a reading."""
        link.reach()
        await between()
        link.reach()
        rows = sorted(self._tables.leases.items())
        moments = [(_since_2000(one.renewed_at), _since_2000(one.expires_at)) for _, one in rows]
        return Leases(
            array("q", (number for number, _ in rows)),
            array("q", (renewed for renewed, _ in moments)),
            array("q", (expires for _, expires in moments)),
        )

    async def read_clock(self, link: Link) -> float:
        """Return PostgreSQL's time."""
        link.reach()
        return self._postgres.now

    async def try_lead(self, session: Session, silence: float) -> bool:
        """Try to take the advisory lock, for as long as no longer than ``silence`` passes between two statements."""
        session.reach()
        holder = self._postgres.lead
        if holder is None or (isinstance(holder, Session) and holder.idle):
            self._postgres.lead, session.silence = session, silence
        return self._postgres.lead is session

    async def last_sweep(self, link: Link) -> tuple[float, float | None]:
        """Return the database's time, and when any process swept last."""
        link.reach()
        return self._postgres.now, self._tables.last_sweep

    async def credit_all(self, link: Link, last: float, now: float) -> None:
        """Give every lease the time between ``last`` and ``now``."""
        link.reach(write=True)
        if self._tables.last_sweep != last:
            return
        with self._postgres.transaction() as tables:
            tables.last_sweep = now
            waiting = [row for row in tables.listed() if row.unroutable_at is not None]
            refused = {row.service for row in waiting if self._postgres.refused_services.get(row.service) == "services"}
            for name in refused:
                self._witness.passed_over(tables, name)
            waiting = [row for row in waiting if row.service not in refused]
            for name in sorted({row.service for row in waiting}):
                known = self._moved_on(tables, name)
                tables.services[name] = replace(known, change=known.change + 1)
            for row in waiting:
                later = _later(row, last, now)
                tables.endpoints[row.id] = replace(later, change=tables.services[row.service].change)
            for number, held in list(tables.leases.items()):
                row = tables.endpoints[number]
                tables.leases[number] = _credited(held, row, last, now)
            for name in sorted({row.service for row in waiting}):
                self._witness.published(tables, name)
                self._notify(name)

    async def store_sweep_time(self, link: Link, now: float, *, durable: bool = True) -> None:
        """Store the end of the last sweep."""
        link.reach(write=True)
        with self._postgres.transaction() as tables:
            tables.last_sweep = now
        if durable:
            await link.database.fsync()

    async def expired_leases(self, link: Link, now: float) -> list[Candidate]:
        """Return the endpoints that are still served although their lease expired before ``now``."""
        link.reach()
        tables = self._tables
        rows = [(tables.endpoints[number], held) for number, held in tables.leases.items() if held.expires_at < now]
        return [
            Candidate(
                row.id,
                row.service,
                held.expires_at,
                row.suspect_since is not None,
                address=row.address,
                port=row.port,
                incarnation=row.registration.incarnation,
            )
            for row, held in rows
        ]

    async def count_endpoints(self, link: Link, now: float, window: float) -> tuple[Counter[str], Counter[str]]:
        """Return, for each service, how many endpoints have not lapsed, and how many lapsed within ``window``."""
        link.reach()
        recent = now - window
        live, lapsed = Counter[str](), Counter[str]()
        for row in self._tables.endpoints.values():
            live[row.service] += row.removed_at is None and row.lapsed_at is None and row.leaving_at is None
            lapsed[row.service] += row.lapsed_at is not None and row.lapsed_at > recent
        return live, lapsed

    async def services_with_departed(self, link: Link, now: float, delay: float) -> list[str]:
        """Return the services with an endpoint that has left or lapsed and was not routable for ``delay`` seconds."""
        link.reach()
        due = now - delay
        gone = (row for row in self._tables.listed() if row.leaving_at is not None or row.lapsed_at is not None)
        return sorted({row.service for row in gone if row.unroutable_at is not None and row.unroutable_at <= due})

    async def ended_overrides(self, link: Link, now: float) -> list[Key]:
        """Return the overrides whose time was over before ``now``."""
        link.reach()
        return [
            key for key, one in self._tables.overrides.items() if one.expires_at is not None and one.expires_at < now
        ]

    async def endpoints_without_lease(self, link: Link) -> dict[str, list[int]]:
        """Return the ids of the endpoints that are served and have no lease, by service."""
        link.reach()
        found: dict[str, list[int]] = {}
        for row in self._tables.listed():
            if row.lapsed_at is None and row.leaving_at is None and row.id not in self._tables.leases:
                found.setdefault(row.service, []).append(row.id)
        return found

    async def grant_missing(self, link: Link, service: str, ids: Collection[int], now: float) -> list[int]:
        """Give endpoints that have no lease a whole one."""
        link.reach(write=True)
        granted = []
        with self._postgres.transaction() as tables:
            for row in tables.listed(service):
                if row.id not in ids or row.lapsed_at is not None or row.leaving_at is not None:
                    continue
                if row.id not in tables.leases:
                    told, ttl = row.registration, row.registration.ttl or 0.0
                    silence = self._witness.silence_before(row)
                    tables.leases[row.id] = Held(told.incarnation, now, now + ttl, ttl, row.change, silence)
                    granted.append(row.id)
        return granted

    async def prune(self, link: Link, *, tombstones: float, history: float, most_events: int) -> int:
        """Delete tombstones that are older than so many seconds; there is no history here."""
        link.reach(write=True)
        with self._postgres.transaction() as tables:
            for row in list(tables.endpoints.values()):
                if row.removed_at is not None and row.removed_at < self._postgres.now - tombstones:
                    del tables.endpoints[row.id]
                    tables.leases.pop(row.id, None)
                    self._postgres.store_numbers({row.service})
                    known = tables.services[row.service]
                    tables.services[row.service] = replace(known, floor=max(known.floor, row.change))
                    self._witness.forgotten(tables, row)
        return 0

    async def in_force(self, link: Link, now: float | None = None) -> dict[str, Pause]:
        """Return the pauses that end after ``now``, by scope; None stands for PostgreSQL's time."""
        link.reach()
        at = self._postgres.now if now is None else now
        return {scope: one for scope, one in self._tables.pauses.items() if one.until > at}

    async def pause(self, link: Link, scope: str, *, actor: str, reason: str, seconds: float) -> None:
        """Let nothing lapse in ``scope`` for so many seconds."""
        link.reach(write=True)
        now = self._postgres.now
        with self._postgres.transaction() as tables:
            tables.pauses[scope] = Pause(scope, actor, reason, now, now + seconds)

    async def resume(self, link: Link, scope: str) -> None:
        """Let leases lapse again in ``scope``."""
        link.reach(write=True)
        with self._postgres.transaction() as tables:
            tables.pauses.pop(scope, None)

    async def store_report(self, link: Link, report: ProcessReport) -> None:
        """Store a process's report over its last one, and delete those of processes that are long gone."""
        link.reach(write=True)
        now = self._postgres.now
        kept = {one: told for one, told in self._tables.processes.items() if abs(now - told.stored_at) <= _REPORTS_KEPT}
        with self._postgres.transaction() as tables:
            tables.processes = {**kept, report.id: StoredReport(report, now, 0.0)}

    async def delete_report(self, link: Link, process_id: str) -> None:
        """Delete the report of a process that stops."""
        link.reach(write=True)
        with self._postgres.transaction() as tables:
            tables.processes.pop(process_id, None)

    async def replace_statements(self, link: Link, prober: str, statements: Sequence[Statement], now: float) -> None:
        """Store all statements of a prober over its earlier ones; their times are of the clock that reads ``now``."""
        link.reach(write=True)
        stored = tuple(
            replace(one, at=self._aged(one.at, now), reached_at=self._aged(one.reached_at, now)) for one in statements
        )
        with self._postgres.transaction() as tables:
            tables.statements = {**tables.statements, prober: stored}

    def _aged(self, at: float | None, now: float) -> float | None:
        return None if at is None else self._postgres.now - (now - at)

    async def read_statements(self, link: Link, endpoint_ids: Collection[int]) -> list[Statement]:
        """Return the statements about some endpoints."""
        link.reach()
        stored = [one for statements in self._tables.statements.values() for one in statements]
        return [one for one in stored if one.endpoint_id in endpoint_ids]

    async def read_reports(self, link: Link) -> list[StoredReport]:
        """Return the reports of all processes."""
        link.reach()
        return [replace(one, age=self._postgres.now - one.stored_at) for one in self._tables.processes.values()]

    async def read_identity(self, link: Link) -> DatabaseIdentity:
        """Return what tells this database from any other one."""
        link.reach()
        return DatabaseIdentity(_DATABASE_ID, None)

    async def read_state(self, link: Link) -> tuple[str, bool, SweepTime | None]:
        """Return the database's id, whether it refuses writes, and when any process swept last."""
        link.reach()
        last = self._tables.last_sweep
        return _DATABASE_ID, False, None if last is None else SweepTime(last, self._postgres.now - last)

    async def service_versions(self, link: Link) -> dict[str, StoredVersion]:
        """Return version and change of every service."""
        link.reach()
        return {name: StoredVersion(one.version, one.change) for name, one in self._tables.services.items()}

    async def first_version(self, link: Link) -> int:
        """Return the greatest number of any service that was forgotten: here none is."""
        link.reach()
        return 0

    async def unlisted_overrides(self, link: Link) -> dict[Key, Override]:
        """Return the overrides whose endpoint is not listed."""
        link.reach()
        listed = {row.key for row in self._tables.listed()}
        return {key: override for key, override in self._tables.overrides.items() if key not in listed}

    async def steps(self, link: Link, held: Mapping[str, int]) -> list[SnapshotDelta]:
        """Return what became of services since the changes that are held."""
        link.reach()
        return [self._step(name, change) for name, change in sorted(held.items()) if name in self._tables.services]

    def _step(self, name: str, held: int) -> SnapshotDelta:
        known = self._tables.services[name]
        whole = held < known.floor or held == 0
        since = -1 if whole else held
        rows = [row for row in self._tables.endpoints.values() if row.service == name and row.change > since]
        listed = [self._tables.joined(row) for row in rows if row.removed_at is None]
        removed = [] if whole else [((row.address, row.port), row.id) for row in rows if row.removed_at is not None]
        numbers = (name, known.version, known.change)
        lost = [row for row in rows if row.lost_at is not None]
        return SnapshotDelta(*numbers, listed=listed, removed=removed, lost=lost, whole=whole)

    async def raise_above(self, link: Link, service: str, version: int, change: int) -> None:
        """Make a service's numbers greater than ones that were served although the database does not know them."""
        link.reach(write=True)
        self._postgres.store_numbers({service})
        known = self._tables.services.get(service)
        if known is not None and known.version > version and known.change >= change:
            return
        known, step = known or Numbers(), numbers.version_jump()
        above = max(known.change, change) + step
        with self._postgres.transaction() as tables:
            raised = Numbers(max(known.version, version) + step, above, above, self._postgres.timeline)
            tables.services[service] = raised
            self._witness.published(tables, service)
        self._notify(service)

    async def change_at_addresses(
        self,
        link: Link,
        service_names: Collection[str],
        address_ports: Collection[AddressPort],
        decide: Callable[[Changeset], None],
        *,
        creates_services: Collection[str] = (),
        max_new_services: int | None = None,
    ) -> dict[str, StoredVersion]:
        """Let ``decide`` work on all endpoints at ``address_ports``, of any service."""
        link.reach(write=True)
        with self._postgres.transaction() as tables:
            missing = [name for name in creates_services if name not in tables.services]
            for name in missing[:max_new_services]:
                tables.services.setdefault(name, Numbers(timeline=self._postgres.timeline))
            at = [row for row in tables.endpoints.values() if (row.address, row.port) in address_ports]
            names = {*service_names, *(row.service for row in at if row.removed_at is None)}
            locked = self._lock(tables, names)
            rows = [self._tables.joined(row) for row in at if row.service in locked or row.removed_at is None]
            kept = {key: one for key, one in tables.overrides.items() if key[1:] in address_ports}
            changeset = Changeset(self._postgres.now, rows, kept)
            decide(changeset)
            gaining = {endpoint.service for endpoint in changeset.gained}
            if gaining:
                lost = [row for row in tables.endpoints.values() if row.lost_at is not None and row.service in gaining]
                changeset.fill_places(map(tables.joined, lost))
            after = self._save(tables, changeset, locked)
        link.database.committed()
        return after

    async def change_service(
        self,
        link: Link,
        service: str,
        decide: Callable[[Changeset, Collection[int]], None],
        *,
        expiries: Mapping[int, float] | None = None,
        lapsing: Collection[int] = (),
    ) -> dict[str, StoredVersion]:
        """Let ``decide`` work on all listed endpoints of one service."""
        link.reach(write=True)
        now = self._postgres.now
        with self._postgres.transaction() as tables:
            locked = self._lock(tables, {service})
            changeset = Changeset(now, tables.listed_and_lost(service))
            held = tables.leases
            judged = expiries or {}
            assert set(lapsing) <= set(judged)
            decide(
                changeset, {one for one, expired in judged.items() if one in held and held[one].expires_at == expired}
            )
            after = self._save(tables, changeset, locked)
        await link.database.fsync()
        link.database.committed()
        return after

    async def change_unroutable(
        self, link: Link, service: str, decide: Callable[[Changeset], None]
    ) -> dict[str, StoredVersion]:
        """Let ``decide`` work on the endpoints of one service that may not receive traffic, and on one that may."""
        link.reach(write=True)
        now = self._postgres.now
        with self._postgres.transaction() as tables:
            locked = self._lock(tables, {service})
            listed = [row for row in tables.listed_and_lost(service) if row.removed_at is None]
            routable = [row for row in listed if row.unroutable_at is None]
            changeset = Changeset(now, [row for row in listed if row.unroutable_at is not None] + routable[:1])
            decide(changeset)
            after = self._save(tables, changeset, locked)
        await link.database.fsync()
        link.database.committed()
        return after

    async def change_endpoint_by_operator(
        self,
        link: Link,
        key: Key,
        window: float,
        decide: Callable[[Changeset, int, int], None],
        _quarantined: Collection[int] = (),
    ) -> dict[str, StoredVersion]:
        """Let ``decide`` work on one endpoint; it gets how many may receive traffic and were expelled lately, too."""

        def decide_about_all(changeset: Changeset, recent: int) -> None:
            routable = sum(endpoint.unroutable_at is None for endpoint in changeset.all_listed())
            decide(changeset, routable, recent)

        return await self.change_by_operator(link, key[0], window, decide_about_all)

    async def change_by_operator(
        self, link: Link, service: str, window: float, decide: Callable[[Changeset, int], None]
    ) -> dict[str, StoredVersion]:
        """Let ``decide`` work on all listed endpoints of one service; it gets how many were expelled lately."""
        link.reach(write=True)
        now = self._postgres.now
        with self._postgres.transaction() as tables:
            locked = self._lock(tables, {service})
            if not locked:
                return {}
            changeset = Changeset(now, tables.listed_and_lost(service))
            decide(changeset, sum(at > now - window for at in tables.expelled.get(service, ())))
            gone = [now for event in changeset.events if event.kind == "expelled"]
            tables.expelled[service] = (*tables.expelled.get(service, ()), *gone)
            after = self._save(tables, changeset, locked)
        link.database.committed()
        return after

    def _lock(self, tables: Tables, names: Collection[str]) -> dict[str, StoredVersion]:
        found = {name: self._moved_on(tables, name) for name in sorted(names) if name in tables.services}
        return {name: StoredVersion(one.version, one.change) for name, one in found.items()}

    def _moved_on(self, tables: Tables, name: str) -> Numbers:
        """Raise the numbers of a service that was last changed on another timeline."""
        known = tables.services[name]
        if known.timeline != self._postgres.timeline:
            self._postgres.store_numbers({name})
            step = numbers.version_jump() if known.version else 0
            change = known.change + step
            floor = change if known.version else known.floor
            tables.services[name] = Numbers(known.version + step, change, floor, self._postgres.timeline)
            self._witness.published(tables, name)
            self._notify(name)
        return tables.services[name]

    def _save(
        self, tables: Tables, changeset: Changeset, locked: Mapping[str, StoredVersion]
    ) -> dict[str, StoredVersion]:
        changed = list(changeset.changed())
        after = changeset_writer.next_versions(changed, locked, self._postgres.timeline)
        for entry in changed:
            if not entry.after.id:
                entry.stored_as(tables.next_id)
                tables.next_id += 1
            number = after[entry.after.service].change
            tables.endpoints[entry.after.id] = replace(entry.after, change=number, override=None)
        for key, override in changeset.overrides.items():
            if override is None:
                tables.overrides.pop(key, None)
            else:
                tables.overrides[key] = override
        for name, one in after.items():
            if one != locked[name]:
                known = tables.services[name]
                floor = known.floor if known.version else one.change
                tables.services[name] = replace(known, version=one.version, change=one.change, floor=floor)
                self._notify(f"{name} {one.change}")
        self._postgres.store_events({event.service for event in changeset.events})
        self._postgres.store_numbers({name for name in after if after[name] != locked[name]})
        self._witness.committed(tables, changeset, changed, {name for name in after if after[name] != locked[name]})
        self._save_leases(tables, changeset, changed)
        return after

    def _save_leases(self, tables: Tables, changeset: Changeset, changed: Collection[EndpointChange]) -> None:
        for entry in changeset.granted():
            row = tables.endpoints[entry.after.id]
            told, ttl = row.registration, row.registration.ttl or 0.0
            silence = self._witness.silence(row)
            tables.leases[row.id] = Held(told.incarnation, changeset.now, changeset.now + ttl, ttl, row.change, silence)
        for entry in changed:
            number = entry.after.id
            if not entry.leased:
                tables.leases.pop(number, None)
            elif number in tables.leases:
                tables.leases[number] = replace(tables.leases[number], change=tables.endpoints[number].change)


def _credited(held: Held, row: Endpoint, last: float, now: float) -> Held:
    expires_at, renewed_at = held.expires_at, held.renewed_at
    if now <= last:
        expires_at = now + held.ttl if row.suspect_since is None else expires_at + now - last
        renewed_at = min(renewed_at, now)
    elif renewed_at <= now:
        expires_at += now - max(renewed_at, last)
    if renewed_at <= now:
        expires_at = min(expires_at, now + held.ttl)
    return replace(held, expires_at=expires_at, renewed_at=renewed_at, change=row.change)


def _later(row: Endpoint, last: float, now: float) -> Endpoint:
    unroutable_at = row.unroutable_at or 0.0
    if row.lapsed_at is not None:
        return replace(row, lapsed_at=row.lapsed_at + now - last, unroutable_at=unroutable_at + now - last)
    if now > last:
        return replace(row, unroutable_at=unroutable_at + max(now - max(unroutable_at, last), 0))
    return replace(row, unroutable_at=unroutable_at + now - last) if unroutable_at > now else row
