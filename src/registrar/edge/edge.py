"""The edge: what it holds, the polls that wait for it, and the tasks that keep it up to date."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial

from msgspec import Struct

from registrar.edge.asker import Asker, Progress
from registrar.edge.decision import Poll, Situation, Verdict, decide
from registrar.edge.disk_cache import DiskCache, Record
from registrar.edge.entry import Entry, Key, Source, key_of
from registrar.edge.fallback import Fallback
from registrar.edge.polled_types import ENDPOINTS, PolledType
from registrar.edge.subscription import Subscription
from registrar.edge.token import NOTHING, Relation, compare, fallback_token, joined
from registrar.event_log import EventLogger
from registrar.registry_client.client import RegistryClient
from registrar.thread_call import call_in_thread
from wire.node import Node

MAX_NAMES = 10_000
"""Names that an edge holds; a poll for one more is answered 503, and again until one is forgotten."""
MAX_ASKERS = 64
"""Questions that are held at a time: one for each node, and for each thousand names of it."""
_NAME_TIMEOUT = 900.0
"""Seconds without a poll after which a name is forgotten."""
_IDLE_TIMEOUT = 30.0
"""Seconds without a poll after which the names of a node give way to another node's, where there is no room."""
_SWEEP_INTERVAL = 15.0
"""Seconds between two looks for names to forget."""
_DISK_TIMEOUT = 1.0
"""Seconds after which a poll no longer waits for the disk."""
_WRITE_INTERVAL = 1.0
"""Seconds between two writes of a name, for each 100 kB of it."""
_BYTES_PER_INTERVAL = 100_000
_TOUCH_INTERVAL = 60.0
"""Seconds between two notes on disk of what the registry has confirmed, so that a restart knows how old it is."""
_FALLBACK_AFTER = 3.0
"""Seconds of silence of the registries after which the fallback is asked."""
_FALLBACK_AT_ONCE = 20
"""Names that the fallback is asked for at a time."""
_FALLBACK_INTERVAL = 10.0
"""Seconds between two requests to the fallback for one name."""
AGE_WARNING = 60.0
"""Seconds without a registry's word after which that is logged."""

log = EventLogger(__name__)


class Answer(Struct, frozen=True):
    """The answer to a poll: 200 with a token and resources, 304, or 503."""

    status: int
    token: str = ""
    resources: Sequence[bytes] = ()


_UNCHANGED = Answer(304)
_UNAVAILABLE = Answer(503)
_NOTHING = Answer(200, NOTHING)


class _Waiting:
    """A poll without an answer yet."""

    __slots__ = ("entries", "poll", "respond", "subscription", "timer")

    def __init__(
        self,
        poll: Poll,
        entries: Sequence[Entry],
        subscription: Subscription | None,
        respond: Callable[[Answer], None],
    ) -> None:
        self.poll = poll
        self.entries = entries
        self.subscription = subscription
        self.respond = respond
        # When to decide again although nothing changed.
        self.timer: asyncio.TimerHandle | None = None


class Edge:
    """The discovery cache of the Envoys beside this process.

    Args:
        name: the name of this edge in its questions: the registrar's instance.
        client: of the edge's own.
        disk: where content outlives this process; None for nowhere.
        fallback: asked for names without content while no registry answers; None for none.

    Attributes:
        entries: what is held, by key.
        progress: what became of the questions.
        disk: as given.
        polls: polls that were answered, by status.
        full: whether a poll was turned away for want of room; until a sweep finds that there is room again.
        failed: whether an internal error has ended the tasks that keep this up to date.
    """

    def __init__(
        self, name: str, client: RegistryClient, disk: DiskCache | None = None, fallback: Fallback | None = None
    ) -> None:
        self.entries: dict[Key, Entry] = {}
        self.progress = Progress()
        self.disk = disk
        self.fallback = fallback
        self.polls = {200: 0, 304: 0, 503: 0}
        self.full = False
        self.failed = False
        self._name = name
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._tasks: asyncio.TaskGroup | None = None
        self._askers: list[Asker] = []
        # The task of each asker, once this edge runs.
        self._tasks_of: dict[Asker, asyncio.Task[None]] = {}
        # The asker of each name.
        self._asker_of: dict[Key, Asker] = {}
        # Polls without an answer, by each of their names.
        self._waiting: dict[Key, dict[_Waiting, None]] = {}
        # Names whose file has to be read, and names whose content has to be written.
        self._to_read: list[Entry] = []
        self._to_write: dict[Key, None] = {}
        self._written_at: dict[Key, float] = {}
        self._disk_wake = asyncio.Event()
        self._warned = False

    @property
    def refused(self) -> bool:
        """Whether Envoys have to ask the registry themselves: it answers, and refuses this process everything."""
        if self.failed:
            return True
        asked = False
        for asker in self._askers:
            if asker.refused:
                asked = True
                continue
            for entry in asker.entries.values():
                if entry.loaded and not entry.refused:
                    return False
                asked = asked or entry.loaded
        return asked

    @property
    def away(self) -> str | None:
        """Why no registry answers, or why each one refuses; None while one answers any of the questions."""
        reasons = [asker.away for asker in self._askers]
        return None if None in reasons else next(iter(reasons), None)

    def is_refused(self, entry: Entry) -> bool:
        """Return whether the registry refuses a name, or everything of the node that it is asked for."""
        return entry.refused or self._asker_of[entry.key].refused

    @property
    def held_polls(self) -> int:
        """The number of polls that wait for an answer."""
        return len({waiting for waitings in self._waiting.values() for waiting in waitings})

    def age(self, now: float) -> float | None:
        """Return the seconds since the registry last vouched for the oldest content; None where there is none."""
        moments = [entry.answered_at for entry in self.entries.values() if entry.answered_at is not None]
        return None if not moments else max(0.0, now - min(moments))

    async def run(self) -> None:
        """Keep what is held up to date, until the end of the process."""
        try:
            await self._run()
        except ExceptionGroup as errors:
            # The app's registration must not end with it.
            log.critical(
                "edge_failed",
                exc_info=errors,
                meanwhile="/livez answers 503, so that Envoys ask the registry themselves",
            )
            self.failed = True
            self.release()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            for asker in self._askers:
                self._start(asker)
            self._tasks.create_task(self._sweep(), name="edge sweep")
            if self.disk is not None:
                self._tasks.create_task(self._use_disk(self.disk), name="edge disk")
            if self.fallback is not None:
                self._tasks.create_task(self._ask_fallback(self.fallback), name="edge fallback")

    def poll(
        self,
        polled: PolledType,
        names: tuple[str, ...],
        brought: str,
        node: Node,
        hold: float,
        respond: Callable[[Answer], None],
        address: str = "",
    ) -> Callable[[], None]:
        """Answer a poll by calling ``respond``, perhaps before this returns.

        Args:
            polled: the type that it is for.
            names: what it names.
            brought: the token that it brings.
            node: the Envoy that polls.
            hold: seconds for which it may be held.
            respond: sends the answer.
            address: the address that the Envoy gives itself, by which the registry tells its subscribers apart.

        Returns:
            A function to call when the Envoy has disconnected; harmless after the answer.
        """
        now = self._loop.time()
        entries = self._entries(polled, names, node, now)
        if entries is None or not names:
            self._answer(_UNAVAILABLE if names else _NOTHING, None, respond)
            return _nothing
        subscription = self._note(entries[0], node, address, brought, now) if len(entries) == 1 else None
        confirmations = tuple(entry.confirmations for entry in entries)
        poll = Poll(names, brought, now, now + hold, confirmations, polled.stepped)
        waiting = _Waiting(poll, entries, subscription, respond)
        for entry in entries:
            self._waiting.setdefault(entry.key, {})[waiting] = None
        self._decide(waiting)
        return partial(self._drop, waiting)

    def release(self) -> None:
        """Answer every poll that waits: this process stops, or Envoys have to ask the registry themselves."""
        for waitings in list(self._waiting.values()):
            for waiting in list(waitings):
                self._end(waiting, _UNCHANGED if waiting.poll.brought else _UNAVAILABLE)

    def _entries(self, polled: PolledType, names: Sequence[str], node: Node, now: float) -> list[Entry] | None:
        """Return what is held of these names, which are learnt by that; None if there is no room."""
        entries = []
        for name in names:
            entry = self.entries.get(key_of(polled, name, node))
            if entry is None:
                entry = self._learn(Entry(polled, name, node, now), node)
                if entry is None:
                    return None
            elif self._asker_of[entry.key].refused and not self.refused:
                self._move(entry, node)
            entry.polled_at = now
            entries.append(entry)
        return entries

    def _learn(self, entry: Entry, node: Node) -> Entry | None:
        if len(self.entries) >= MAX_NAMES:
            self._make_room(entry.learnt_at)
        asker = self._asker_for(node) if len(self.entries) < MAX_NAMES else None
        if asker is None:
            self._note_full()
            return None
        self.entries[entry.key] = entry
        asker.entries[entry.key] = entry
        self._asker_of[entry.key] = asker
        if self.disk is None:
            entry.loaded = True
            asker.wake()
        else:
            self._to_read.append(entry)
            self._disk_wake.set()
            self._loop.call_later(_DISK_TIMEOUT, self._load, entry, None)
        return entry

    def _move(self, entry: Entry, node: Node) -> None:
        """Ask for a name on behalf of another node that polls for it too, because the first one is refused."""
        asker, former = self._asker_for(node), self._asker_of[entry.key]
        if asker is not None and not asker.refused:
            self._leave(former, entry)
            asker.entries[entry.key] = entry
            self._asker_of[entry.key] = asker
            asker.wake()

    def _asker_for(self, node: Node) -> Asker | None:
        for asker in self._askers:
            if (asker.node.id, asker.node.cluster) == (node.id, node.cluster) and not asker.full:
                return asker
        if len(self._askers) >= MAX_ASKERS:
            self._make_room(self._loop.time())
        if len(self._askers) >= MAX_ASKERS:
            return None
        asker = Asker(node, self._name, self._client, self.progress, self._settle)
        if self.refused and self._askers:
            # Until it knows better; /livez would flap with each node that comes otherwise.
            asker.refused, asker.away = True, self.away
        self._askers.append(asker)
        self._start(asker)
        return asker

    def _make_room(self, now: float) -> None:
        """Forget what a node polled for that has stopped, as one does that starts again under another id."""
        for asker in self._askers:
            entries = list(asker.entries.values())
            if all(now - each.polled_at >= _IDLE_TIMEOUT and each.key not in self._waiting for each in entries):
                for entry in entries:
                    self._forget(entry)
                return

    def _note_full(self) -> None:
        if not self.full:
            log.warning(
                "edge_full",
                names=len(self.entries),
                max_names=MAX_NAMES,
                questions=len(self._askers),
                max_questions=MAX_ASKERS,
                meanwhile="/livez answers 503, so that Envoys ask the registry themselves",
                fix="give each Envoy one node id that it keeps, or fewer Envoys or clusters to one registrar",
            )
        self.full = True

    def _note_room(self) -> None:
        """Take polls again, where there is room for a while."""
        if self.full and len(self.entries) <= MAX_NAMES // 2 and len(self._askers) <= MAX_ASKERS // 2:
            self.full = False
            log.info("edge_has_room", names=len(self.entries), questions=len(self._askers))

    def _start(self, asker: Asker) -> None:
        if self._tasks is not None:
            self._tasks_of[asker] = self._tasks.create_task(asker.run(), name="edge questions")

    def _note(self, entry: Entry, node: Node, address: str, brought: str, now: float) -> Subscription:
        """Return the subscription of a poll, which is noted there."""
        key = (node.id, node.cluster, address)
        subscription = entry.subscriptions.get(key)
        if subscription is None:
            subscription = entry.subscriptions[key] = Subscription(node, address)
        before = subscription.state
        subscription.poll(brought, now)
        if before != subscription.state:
            self._asker_of[entry.key].note_news()
        return subscription

    def _settle(self, entry: Entry) -> None:
        """Decide anew about the polls for an entry, whose content or whose registry's state may have changed."""
        if entry.unsaved and self.disk is not None:
            self._to_write[entry.key] = None
            self._disk_wake.set()
        if self.refused:
            self.release()
        for waiting in list(self._waiting.get(entry.key, ())):
            self._decide(waiting)

    def _decide(self, waiting: _Waiting) -> None:
        now = self._loop.time()
        away = any(self._asker_of[entry.key].away is not None for entry in waiting.entries)
        situation = Situation(away, self.refused, self.fallback is not None)
        verdict, again = decide(waiting.poll, waiting.entries, situation, now)
        answer = self._answer_of(verdict, waiting, now)
        if answer is None and verdict is Verdict.CONTENT:
            # It has refused this content: it waits for another one.
            again = waiting.poll.ends
            answer = _UNCHANGED if now >= again else None
        if answer is not None:
            self._end(waiting, answer)
            return
        self._ask_anew(waiting)
        if waiting.timer is not None:
            waiting.timer.cancel()
        waiting.timer = self._loop.call_at(again, self._decide, waiting)

    def _answer_of(self, verdict: Verdict, waiting: _Waiting, now: float) -> Answer | None:
        if verdict is Verdict.CONTENT:
            token = joined(waiting.poll.names, [entry.token for entry in waiting.entries])
            if waiting.poll.stepped and waiting.subscription and waiting.subscription.has_refused(token, now):
                return None
            return Answer(200, token, [entry.resources for entry in waiting.entries if entry.resources])
        answers = {Verdict.NOTHING: _NOTHING, Verdict.UNCHANGED: _UNCHANGED, Verdict.UNAVAILABLE: _UNAVAILABLE}
        return answers.get(verdict)

    def _ask_anew(self, waiting: _Waiting) -> None:
        """Have the registry say what is newest, where a poll brings another database's token."""
        poll = waiting.poll
        if not all(entry.token for entry in waiting.entries):
            return
        ours = joined(poll.names, [entry.token for entry in waiting.entries])
        if ours and compare(poll.brought, ours, stepped=poll.stepped) is not Relation.FOREIGN:
            return
        for entry, before in zip(waiting.entries, poll.confirmations, strict=True):
            if entry.confirmations == before and not entry.ask_anew:
                entry.ask_anew = True
                self._asker_of[entry.key].wake()

    def _end(self, waiting: _Waiting, answer: Answer) -> None:
        self._drop(waiting)
        self._answer(answer, waiting.subscription, waiting.respond)

    def _answer(self, answer: Answer, subscription: Subscription | None, respond: Callable[[Answer], None]) -> None:
        self.polls[answer.status] += 1
        if subscription is not None:
            subscription.answer(answer.token, self._loop.time())
        respond(answer)

    def _drop(self, waiting: _Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        for entry in waiting.entries:
            waitings = self._waiting.get(entry.key)
            if waitings is not None:
                waitings.pop(waiting, None)
                if not waitings:
                    del self._waiting[entry.key]

    def _load(self, entry: Entry, record: Record | None) -> None:
        """Take what was on disk, unless the registry or the time was faster."""
        if entry.loaded and record is None:
            return
        entry.loaded = True
        if record is not None and not entry.token:
            entry.take(record.token, record.resources, Source.DISK)
            entry.received = record.received
            # A clock that was set back makes no content newer than now.
            entry.answered_at = self._loop.time() - max(0.0, time.time() - record.received)
        asker = self._asker_of.get(entry.key)
        if asker is not None:
            asker.wake()
        for waiting in list(self._waiting.get(entry.key, ())):
            self._decide(waiting)

    async def _use_disk(self, disk: DiskCache) -> None:
        """Read and write files, all in one thread at a time."""
        started_at = touched_at = self._loop.time()
        await call_in_thread(disk.remove_unfinished)
        while True:
            await self._disk_wake.wait()
            self._disk_wake.clear()
            if self._loop.time() - touched_at >= _TOUCH_INTERVAL:
                confirmed = [key for key, entry in self.entries.items() if (entry.answered_at or 0.0) > touched_at]
                touched_at = self._loop.time()
                await call_in_thread(partial(disk.touch, confirmed))
                if touched_at - started_at >= _NAME_TIMEOUT:
                    # Earlier, Envoys may not have polled yet for what is theirs.
                    await call_in_thread(partial(disk.prune, list(self.entries)))
            if self._to_read:
                entries, self._to_read = self._to_read, []
                keys = [entry.key for entry in entries]
                records = await call_in_thread(lambda keys=keys: [disk.read(key) for key in keys])  # type: ignore[misc]
                for entry, record in zip(entries, records, strict=True):
                    self._load(entry, record)
            await self._write(disk)

    async def _write(self, disk: DiskCache) -> None:
        """Write what may be written by now; what may not is looked at again when it may."""
        now = self._loop.time()
        records, again = [], []
        for key in self._to_write:
            entry = self.entries.get(key)
            if entry is None:
                continue
            pause = _WRITE_INTERVAL * max(1.0, len(entry.resources) / _BYTES_PER_INTERVAL)
            due = self._written_at.get(key, now - pause) + pause
            if due > now:
                again.append((due, key))
            else:
                records.append(Record(key, entry.token, entry.received, entry.resources))
                self._written_at[key] = now
                entry.unsaved = False
        self._to_write = dict.fromkeys(key for _, key in again)
        if again:
            self._loop.call_at(min(due for due, _ in again), self._disk_wake.set)
        if records:
            written = await call_in_thread(lambda: [disk.write(record) for record in records])
            # A disk that is full now may have room later, although nothing changes.
            failed = [record.key for record, done in zip(records, written, strict=True) if not done]
            self._to_write |= dict.fromkeys(failed)

    async def _ask_fallback(self, fallback: Fallback) -> None:
        """Ask the fallback for names without content, while no registry answers."""
        asked_at: dict[Key, float] = {}
        while True:
            await asyncio.sleep(0.25)
            now = self._loop.time()
            wanted = [entry for entry in self.entries.values() if self._needs_fallback(entry, now)]
            asked_at = {key: moment for key, moment in asked_at.items() if now - moment < _FALLBACK_INTERVAL}
            due = [entry for entry in wanted if entry.key not in asked_at][:_FALLBACK_AT_ONCE]
            asked_at |= {entry.key: now for entry in due}
            for entry, resources in zip(
                due, await asyncio.gather(*(fallback.get(entry.name) for entry in due)), strict=True
            ):
                if resources is not None and not entry.trusted and entry.source is not Source.DISK:
                    entry.take(fallback_token(resources), resources, Source.FALLBACK)
                    self._settle(entry)

    def _needs_fallback(self, entry: Entry, now: float) -> bool:
        if entry.polled is not ENDPOINTS or not entry.loaded or entry.source not in (Source.NOWHERE, Source.FALLBACK):
            return False
        silent = now - max(entry.learnt_at, self.progress.answered_at or 0.0)
        return silent >= _FALLBACK_AFTER and not self.refused and not self.is_refused(entry)

    async def _sweep(self) -> None:
        """Forget names that no Envoy polls for, and warn of old content."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL)
            now = self._loop.time()
            self.forget_idle(now)
            age = self.age(now)
            old = age is not None and age > AGE_WARNING
            if old and not self._warned:
                log.warning("edge_content_old", age_seconds=round(age or 0.0, 1), reason=self.away)
            self._warned = old
            self._disk_wake.set()

    def forget_idle(self, now: float) -> None:
        """Forget names that no Envoy polls for, and take polls again if that makes room."""
        for entry in list(self.entries.values()):
            if now - entry.polled_at > _NAME_TIMEOUT and entry.key not in self._waiting:
                self._forget(entry)
        self._note_room()

    def _forget(self, entry: Entry) -> None:
        del self.entries[entry.key]
        self._written_at.pop(entry.key, None)
        if self.fallback is not None:
            self.fallback.forget(entry.name)
        asker = self._asker_of.pop(entry.key, None)
        if asker is not None:
            self._leave(asker, entry)

    def _leave(self, asker: Asker, entry: Entry) -> None:
        """Have an asker no longer ask for a name; one without names ends."""
        asker.entries.pop(entry.key, None)
        if not asker.entries:
            self._askers.remove(asker)
            task = self._tasks_of.pop(asker, None)
            if task is not None:
                task.cancel()


def _nothing() -> None:
    """Give up a poll that was answered at once."""
