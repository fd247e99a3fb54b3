"""The job that advances roll-outs, in the process that sweeps for all.

It looks at what the subscribers of each node.cluster show, and serves what follows from that in one transaction with a
notification. The state of a roll-out is in PostgreSQL, so that any process goes on from it; in memory is only what
would be read or written again at each look. One roll-out that cannot be advanced keeps back no other.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import structlog
from msgspec import Struct
from msgspec.structs import replace

from meshconfig import phases
from meshconfig.phases import Outlook, Phase, View
from meshconfig.resource import NodeResources
from registry.cooperative import cooperatively
from registry.core.mesh import show_version, version_of
from registry.core.rollout import MAX_LAGGARDS, NodeRollout, RolloutKey, RolloutState
from registry.errors import UnavailableError
from registry.metrics import MESH_LEFT_BEHIND, MESH_PAUSED_SECONDS, MESH_ROLLOUT_FAILURES, MESH_ROLLOUTS, MESH_STEPS
from registry.rollout import switching
from registry.rollout.sightings import Observation, Sightings
from registry.rollout.switching import Change, NodeServed
from registry.store import mesh as store
from registry.store import rollouts as rollout_store
from registry.store.database import Database, Session, read_clock
from registry.store.left_out import SHORT_LOCK, StoredApart
from registry.store.mesh import WHOLE
from registry.store.rollouts import RolloutEvent, RolloutRow

log = structlog.get_logger()

LOOK_INTERVAL = 0.5
"""Seconds between two looks at the roll-outs that are under way."""
_IDLE_INTERVAL = 5.0
"""Seconds between two looks while nothing is rolled out and no change of the mesh configuration is heard of."""
_NOTE_INTERVAL = 5.0
"""Seconds after which the state of a roll-out is stored although nobody new is awaited."""
_MAX_CHANGES_PER_TRANSACTION = 20
"""Roll-outs that go on in one transaction; applying a revision waits for as long."""
_MAX_ROLLOUTS_PER_READ = 50
"""Roll-outs whose resources are read together. To free what was read of 500 at once took 5 ms, in which no poll is
answered."""
_STATE_LABELS = ("paused", "refused", "waiting")
"""The states by which roll-outs are counted."""
_ACTOR = "registry"
"""The author of the events of a roll-out's phases."""


_Note = tuple[RolloutRow, RolloutEvent | None]
"""What was seen of a roll-out, and the event of it."""


class _Known(Struct):
    """The part of a roll-out that would be read again at each look.

    Attributes:
        serial: the change that has written what is served, and since when.
        served: what is served.
        wanted: what is wanted.
        state: its state, newer than the stored one.
        noted_at: monotonic time at which it was last stored.
        not_noted: why PostgreSQL did not take its state when it was to be stored last; empty: it did.
    """

    serial: tuple[int, int, float]
    served: NodeServed
    wanted: NodeResources
    state: RolloutState
    noted_at: float
    not_noted: str = ""


class Rollouts:
    """Advances the roll-outs while this process leads.

    Args:
        database: where they are.
        sightings: what is known of the subscribers.
        leads: returns whether this process sweeps for all.
        change: returns the number of the last change of the mesh configuration that was heard of.
        nudge: called when something else is served, so that this process reads it at once.
    """

    def __init__(
        self,
        database: Database,
        sightings: Sightings,
        leads: Callable[[], bool],
        change: Callable[[], int],
        nudge: Callable[[], None],
    ) -> None:
        self._database = database
        self._sightings = sightings
        self._leads = leads
        self._change = change
        self._nudge = nudge
        self._known: dict[RolloutKey, _Known] = {}
        """What was read of the roll-outs under way; emptied while another process leads. Written by advance()."""
        self._looked_at: tuple[float, float] | None = None
        """Monotonic time and the database's time of the last look of this lead; None: there was none."""
        self._idle: tuple[int, float] | None = None
        """The change as of which nothing is rolled out, and the monotonic time of that look; None: something is, or it
        is not known. Each order about roll-outs is a change. Written by advance()."""
        self._failures: dict[RolloutKey, str] = {}
        """Why a roll-out could not be advanced at the last look; each reason is logged once."""
        self._apart = StoredApart[_Note]("rollouts", lambda note: f"{note[0].node_cluster} at {note[0].share:g} %")

    async def advance(self) -> None:
        """Look at all roll-outs once, if this process leads.

        Raises:
            UnavailableError: PostgreSQL is away; the next look goes on.
        """
        if not self._leads():
            self._known.clear()
            self._looked_at = self._idle = None
            self._set_gauges((), 0.0)
            self._note_failures({})
            return
        # Before the look: what is stored meanwhile is heard of after it.
        change, now = self._change(), time.monotonic()
        if self._idle is not None and self._idle[0] == change and now - self._idle[1] < _IDLE_INTERVAL:
            return
        self._idle = None
        async with self._database.session() as connection:
            rows = await rollout_store.read(connection)
            if not rows:
                self._idle = (change, now)
            due = [row for row in rows if row.state is not None and row.state.paused is None]
            await self._read(connection, due)
            shares = await rollout_store.shares(connection, {row.node_cluster for row in due}) if due else {}
            paused = any(row.state is not None and row.state.paused is not None for row in rows)
            database_time = await read_clock(connection) if paused else 0.0
        failures = {row.key: "its state cannot be read" for row in rows if row.state is None}
        readable = []
        async for row in cooperatively(due):
            if row.key in self._known:
                readable.append(row)
            else:
                failures[row.key] = "what it is served or wants cannot be read"
        self._set_gauges(rows, database_time)
        if due:
            await self._advance(readable, shares, failures)
        else:
            self._looked_at = None
        self._note_failures(failures)

    async def _read(self, connection: Session, rows: Sequence[NodeRollout]) -> None:
        """Read what is served and wanted of the roll-outs that have gone on since the last look."""
        self._known = {
            row.key: known
            async for row in cooperatively(rows)
            if (known := self._known.get(row.key)) is not None and known.serial == _serial(row)
        }
        unread = [row for row in rows if row.key not in self._known]
        for begin in range(0, len(unread), _MAX_ROLLOUTS_PER_READ):
            await self._read_some(connection, unread[begin : begin + _MAX_ROLLOUTS_PER_READ])

    async def _read_some(self, connection: Session, unread: Sequence[NodeRollout]) -> None:
        nodes = {row.node_cluster for row in unread}
        wanted = {
            revision: await store.read_contents(connection, revision, nodes)
            for revision in {row.revision for row in unread}
        }
        served = await store.read_served(connection, nodes)
        names = [wanted[row.revision].get(row.node_cluster, {}) for row in unread]
        facts = await switching.read_facts(connection, served, names)
        by_node = await switching.by_node(served)
        async for row, new in cooperatively(zip(unread, names, strict=True)):
            if row.state is None:
                continue
            try:
                own = switching.served_of(by_node.get(row.node_cluster, ()), row.key, facts)
                resources = switching.resources_of(new, facts)
            except LookupError:
                continue
            self._known[row.key] = _Known(_serial(row), own, resources, row.state, 0.0)

    async def _advance(
        self, rows: Sequence[NodeRollout], shares: Mapping[str, float], failures: dict[RolloutKey, str]
    ) -> None:
        services = {row.node_cluster: self._services(row.key) async for row in cooperatively(rows)}
        observation = await self._sightings.observe(services)
        elapsed, step = self._passed(observation)
        ending: dict[RolloutKey, tuple[NodeRollout, Outlook]] = {}
        async for row in cooperatively(rows):
            try:
                known = self._known[row.key]
                view = _view(row, shares.get(row.node_cluster, WHOLE), observation, elapsed, step)
                outlook = phases.advance(
                    known.served.resources, known.wanted, known.state.rollout, known.served.versions, view
                )
            except Exception as error:  # noqa: BLE001  # a defect with one holds back this one alone
                failures[row.key] = repr(error)
                continue
            if outlook.resources is not None:
                ending[row.key] = (row, outlook)
            else:
                known.state = _seen(known.state, outlook)
        going_on = [row for row in rows if row.key not in ending]
        await self._end_phases(ending, failures)
        await self._note(going_on, failures)

    def _services(self, key: RolloutKey) -> set[str]:
        """Return the services whose endpoints subscribers are to show."""
        known = self._known[key]
        clusters = known.served.resources.get("clusters", {})
        return {
            clusters[name].eds_service
            for name in known.state.rollout.fresh
            if name in clusters and clusters[name].eds_service
        }

    def _passed(self, observation: Observation) -> tuple[float, float]:
        """Return the monotonic seconds since the last look, and those by which the database's clock was set."""
        now = time.monotonic()
        last, self._looked_at = self._looked_at, (now, observation.now)
        if last is None:
            return 0.0, 0.0
        elapsed = now - last[0]
        step = observation.now - last[1] - elapsed
        return elapsed, step if abs(step) > 1.0 else 0.0

    async def _end_phases(
        self, ending: dict[RolloutKey, tuple[NodeRollout, Outlook]], failures: dict[RolloutKey, str]
    ) -> None:
        """Serve what follows; where many cannot go on together, each goes on alone.

        What is served is taken out of ``ending``: to free it of five hundred roll-outs at once keeps polls waiting.
        """
        keys = list(ending)
        for begin in range(0, len(keys), _MAX_CHANGES_PER_TRANSACTION):
            part = [ending.pop(key) for key in keys[begin : begin + _MAX_CHANGES_PER_TRANSACTION]]
            try:
                await self._end_together(part)
            except Exception as error:  # whichever it is of, the others go on
                if isinstance(error, UnavailableError) and not await self._database.answers():
                    raise
                for each in part:
                    await self._end_alone(each, failures)
        if keys:
            self._nudge()

    async def _end_alone(self, ending: tuple[NodeRollout, Outlook], failures: dict[RolloutKey, str]) -> None:
        try:
            await self._end_together([ending])
        except Exception as error:  # noqa: BLE001  # it is tried again at the next look
            failures[ending[0].key] = error.cause if isinstance(error, UnavailableError) else repr(error)

    async def _end_together(self, ending: Sequence[tuple[NodeRollout, Outlook]]) -> None:
        """Serve what follows in some roll-outs, in one transaction, unless they have gone on meanwhile."""
        async with self._database.transaction() as connection:
            state = await store.lock(connection)
            # From here on others wait for this transaction, so that it waits for nobody for long.
            await connection.execute(SHORT_LOCK)
            nodes = {row.node_cluster for row, _ in ending}
            stored = {row.key: row for row in await rollout_store.read(connection, nodes)}
            changes = []
            for row, outlook in ending:
                current = stored.get(row.key)
                if current is None or current.state is None or current.state.paused or _serial(current) != _serial(row):
                    continue
                changes.append(_change(row, current.state, outlook))
            await switching.serve(connection, state, changes)
            version = version_of(state.revision, state.step)
            outlooks = {row.key: (row, outlook) for row, outlook in ending}
            await rollout_store.add_events(connection, [_event(*outlooks[change.key]) for change in changes])
            await store.save(connection, state)
        async for change in cooperatively(changes):
            row, outlook = outlooks[change.key]
            self._known.pop(change.key, None)
            MESH_STEPS.labels(_event_kind(outlook)).inc()
            MESH_LEFT_BEHIND.inc(len(outlook.laggards))
            log.info(
                "mesh_step",
                node_cluster=row.node_cluster,
                share=row.share,
                revision=row.revision,
                step=int(change.state.rollout.phase),
                version=show_version(version),
                reason=outlook.reason,
            )

    async def _note(self, rows: Iterable[NodeRollout], failures: dict[RolloutKey, str]) -> None:
        """Store what was seen of roll-outs where it is news, or the stored state is old.

        One that PostgreSQL does not take keeps back no other, and is tried again after a while.
        """
        now = time.monotonic()
        news: list[_Note] = []
        async for row in cooperatively(rows):
            known, stored = self._known.get(row.key), row.state
            if known is None or stored is None:
                continue
            seen = (known.state.reason, known.state.laggards, known.state.rollout.shown_at is None)
            noted = (stored.reason, stored.laggards, stored.rollout.shown_at is None)
            due = now - known.noted_at >= _NOTE_INTERVAL
            if known.not_noted and not due:
                failures[row.key] = known.not_noted
            elif due or seen != noted:
                known.noted_at, known.not_noted = now, ""
                refusal = None
                if known.state.refused and not stored.refused:
                    refusal = _refusal(row, known.state.reason)
                    log.warning(
                        "mesh_refused", node_cluster=row.node_cluster, revision=row.revision, reason=known.state.reason
                    )
                news.append((RolloutRow(row.node_cluster, row.share, row.revision, known.state), refusal))
        for left_out, _ in await self._apart.store(news, lambda some: rollout_store.note(self._database, some)):
            failures[left_out.key] = self._known[left_out.key].not_noted = "PostgreSQL does not take its state"

    def _note_failures(self, failures: Mapping[RolloutKey, str]) -> None:
        for key, reason in failures.items():
            if self._failures.get(key) != reason:
                log.error("mesh_rollout_failed", node_cluster=key[0], share=key[1], reason=reason)
        MESH_ROLLOUT_FAILURES.set(len(failures))
        self._failures = dict(failures)

    def _set_gauges(self, rows: Collection[NodeRollout], now: float) -> None:
        """Count the roll-outs, and measure the oldest pause; ``now`` is the database's time, if any is paused."""
        counts = Counter(_state_label(row.state) for row in rows)
        for label in _STATE_LABELS:
            MESH_ROLLOUTS.labels(label).set(counts[label])
        pauses = [row.state.paused.at for row in rows if row.state is not None and row.state.paused is not None]
        MESH_PAUSED_SECONDS.set(max(0.0, now - min(pauses)) if pauses else 0.0)


def _serial(row: NodeRollout) -> tuple[int, int, float]:
    """Return what changes whenever something else is served or wanted of a roll-out."""
    return (row.revision, 0 if row.state is None else row.state.serial, row.since)


def _state_label(state: RolloutState | None) -> str:
    """Return the label by which a roll-out is counted; one whose state cannot be read waits."""
    if state is None:
        return "waiting"
    if state.paused is not None:
        return "paused"
    return "refused" if state.refused else "waiting"


def _view(row: NodeRollout, share: float, observation: Observation, elapsed: float, step: float) -> View:
    """Return what is known of the subscribers that a roll-out is for."""
    subscribers = observation.subscribers.get(row.node_cluster, ())
    return View(
        [each for each in subscribers if switching.concerns(row, share, each.node_id)],
        observation.now,
        elapsed,
        step,
        observation.watched,
        observation.overlooked,
    )


def _seen(state: RolloutState, outlook: Outlook) -> RolloutState:
    """Return the state of a roll-out whose phase goes on."""
    return replace(
        state,
        rollout=outlook.rollout,
        reason=outlook.reason,
        deadline=None if outlook.refused else outlook.deadline,
        laggards=outlook.laggards[:MAX_LAGGARDS],
        lagging=len({(each.node_id, each.address) for each in outlook.laggards}),
    )


def _change(row: NodeRollout, state: RolloutState, outlook: Outlook) -> Change:
    """Return what is served now that a phase has ended."""
    left_behind = (*state.left_behind, *outlook.laggards)[:MAX_LAGGARDS]
    following = RolloutState(outlook.rollout, 0, phases=state.phases, left_behind=left_behind)
    return Change(row.node_cluster, row.share, row.revision, outlook.resources or {}, following)


def _event_kind(outlook: Outlook) -> str:
    return "mesh_switched" if outlook.rollout.phase is Phase.SWITCH else "mesh_rolled_out"


def _refusal(row: NodeRollout, reason: str) -> RolloutEvent:
    words = f"revision {row.revision} goes no further: {reason}"
    return RolloutEvent(row.node_cluster, "mesh_refused", words, _ACTOR, row.revision)


def _event(row: NodeRollout, outlook: Outlook) -> RolloutEvent:
    part = f" for {row.share:g} % of its Envoys" if row.share else ""
    begun = "routes of" if outlook.rollout.phase is Phase.SWITCH else "all of"
    behind = f"; {len(outlook.laggards)} have not followed" if outlook.laggards else ""
    words = f"{begun} revision {row.revision} served{part}: {outlook.reason}{behind}"
    return RolloutEvent(row.node_cluster, _event_kind(outlook), words, _ACTOR, row.revision)
