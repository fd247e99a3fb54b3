"""The edge: the names that it holds, from the first poll for one until it is forgotten."""

import asyncio
from collections.abc import Callable, Sequence

from registrar.edge.askers import MAX_ASKERS, Askers
from registrar.edge.decision import Poll
from registrar.edge.disk_cache import DiskCache
from registrar.edge.disk_sync import DiskSync
from registrar.edge.entry import Entry, Key, key_of
from registrar.edge.fallback import Fallback, FallbackSync
from registrar.edge.held_polls import NO_RESOURCES, UNAVAILABLE, HeldPolls, Respond
from registrar.edge.polled_types import PolledType
from registrar.edge.subscription import Subscription
from registrar.event_log import EventLogger
from registrar.registry_client.client import RegistryClient
from wire.node import Node

MAX_NAMES = 10_000
"""Names that an edge holds; a poll for one more is answered 503, and again until one is forgotten."""
_NAME_TIMEOUT = 900.0
"""Seconds without a poll after which a name is forgotten."""
_IDLE_TIMEOUT = 30.0
"""Seconds without a poll after which the names of a node give way to another node's, where there is no room."""
_SWEEP_INTERVAL = 15.0
"""Seconds between two looks for names to forget."""
AGE_WARNING = 60.0
"""Seconds without a registry's word after which that is logged."""

log = EventLogger(__name__)


class Edge:
    """The discovery cache of the Envoys beside this process.

    Args:
        name: the name of this edge in its questions: the registrar's instance.
        client: of the edge's own.
        disk: where content outlives this process; None for nowhere.
        fallback: asked for names without content while no registry answers; None for none.

    Attributes:
        entries: what is held, by key.
        askers: ask registries for it.
        held_polls: the polls that wait for an answer.
        disk: as given.
        fallback: as given.
        full: whether a poll was turned away for want of room; until a sweep finds that there is room again.
    """

    def __init__(
        self, name: str, client: RegistryClient, disk: DiskCache | None = None, fallback: Fallback | None = None
    ) -> None:
        self.entries: dict[Key, Entry] = {}
        self.askers = Askers(name, client, self._settle)
        self.held_polls = HeldPolls(self.askers, has_fallback=fallback is not None)
        self.disk = disk
        self.fallback = fallback
        self.full = False
        self._loop = asyncio.get_running_loop()
        self._disk_sync = DiskSync(disk, self.entries, self._note_loaded)
        # Whether the log has said how old the content is.
        self._warned = False

    @property
    def refused(self) -> bool:
        """Whether Envoys have to ask the registry themselves: it refuses this process, or an answer is too long."""
        return self.askers.refused

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
            self.askers.failed = True
            self.release()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self.askers.run(tasks)
            tasks.create_task(self._sweep(), name="edge sweep")
            tasks.create_task(self._disk_sync.run(), name="edge disk")
            if self.fallback is not None:
                sync = FallbackSync(self.fallback, self.entries, self.askers, self._settle)
                tasks.create_task(sync.run(), name="edge fallback")

    def poll(
        self,
        polled: PolledType,
        names: tuple[str, ...],
        brought: str,
        node: Node,
        hold: float,
        respond: Respond,
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
            self.held_polls.answer(UNAVAILABLE if names else NO_RESOURCES, None, respond)
            return _nothing
        subscription = self._note(entries[0], node, address, brought, now) if len(entries) == 1 else None
        confirmations = tuple(entry.confirmations for entry in entries)
        poll = Poll(names, brought, now, now + hold, confirmations, polled.stepped)
        return self.held_polls.add(poll, entries, subscription, respond)

    def release(self) -> None:
        """Answer every poll that is held: this process stops, or Envoys have to ask the registry themselves."""
        self.held_polls.release()

    def forget_idle(self, now: float) -> None:
        """Forget names that no Envoy polls for, and take polls again if that makes room."""
        for entry in list(self.entries.values()):
            if now - entry.polled_at > _NAME_TIMEOUT and not self.held_polls.holds(entry.key):
                self._forget(entry)
        self._note_room()

    def _entries(self, polled: PolledType, names: Sequence[str], node: Node, now: float) -> list[Entry] | None:
        """Return what is held of these names, which are learnt by that; None if there is no room."""
        entries = []
        for name in names:
            entry = self.entries.get(key_of(polled, name, node))
            if entry is None:
                entry = Entry(polled, name, node, now)
                if not self._learn(entry, node):
                    return None
            elif self.askers.of(entry).refused and not self.refused and self._has_askers_for(node):
                # Another node polls for it too, which is not refused.
                self.askers.move(entry, node)
            entry.polled_at = now
            entries.append(entry)
        return entries

    def _learn(self, entry: Entry, node: Node) -> bool:
        """Hold a name from now on, and return True; or False if there is no room."""
        if len(self.entries) >= MAX_NAMES:
            self._make_room()
        if len(self.entries) >= MAX_NAMES or not self._has_askers_for(node):
            self._note_full()
            return False
        self.entries[entry.key] = entry
        self.askers.add(entry, node)
        self._disk_sync.read(entry)
        return True

    def _has_askers_for(self, node: Node) -> bool:
        if not self.askers.has_room(node):
            self._make_room()
        return self.askers.has_room(node)

    def _make_room(self) -> None:
        """Forget what a node polled for that has stopped, as one does that starts again under another id."""
        now = self._loop.time()
        for entries in self.askers.names():
            if all(now - each.polled_at >= _IDLE_TIMEOUT and not self.held_polls.holds(each.key) for each in entries):
                for entry in entries:
                    self._forget(entry)
                return

    def _note_full(self) -> None:
        if not self.full:
            log.warning(
                "edge_full",
                names=len(self.entries),
                max_names=MAX_NAMES,
                questions=len(self.askers),
                max_questions=MAX_ASKERS,
                meanwhile="/livez answers 503, so that Envoys ask the registry themselves",
                fix="give each Envoy one node id that it keeps, or fewer Envoys or clusters to one registrar",
            )
        self.full = True

    def _note_room(self) -> None:
        """Take polls again, where there is room for a while."""
        if self.full and len(self.entries) <= MAX_NAMES // 2 and len(self.askers) <= MAX_ASKERS // 2:
            self.full = False
            log.info("edge_has_room", names=len(self.entries), questions=len(self.askers))

    def _note(self, entry: Entry, node: Node, address: str, brought: str, now: float) -> Subscription:
        """Return the subscription of a poll, which is noted there."""
        key = (node.id, node.cluster, address)
        subscription = entry.subscriptions.get(key)
        if subscription is None:
            subscription = entry.subscriptions[key] = Subscription(node, address)
        before = subscription.state
        subscription.poll(brought, now)
        if before != subscription.state:
            self.askers.of(entry).note_news()
        return subscription

    def _note_loaded(self, entry: Entry) -> None:
        """Go on with a name whose file was looked at; one that was forgotten meanwhile is none of anybody's."""
        if self.entries.get(entry.key) is entry:
            self.askers.note_loaded(entry)
            self.held_polls.decide(entry)

    def _settle(self, entry: Entry) -> None:
        """Decide anew about the polls for an entry, whose content or whose registry's state may have changed."""
        self._disk_sync.write(entry)
        if self.refused:
            self.release()
        self.held_polls.decide(entry)

    async def _sweep(self) -> None:
        """Forget names that no Envoy polls for, and warn of old content."""
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL)
            now = self._loop.time()
            self.forget_idle(now)
            age = self.age(now)
            old = age is not None and age > AGE_WARNING
            if old and not self._warned:
                log.warning("edge_content_old", age_seconds=round(age or 0.0, 1), reason=self.askers.away)
            self._warned = old
            self._disk_sync.wake()

    def _forget(self, entry: Entry) -> None:
        del self.entries[entry.key]
        self._disk_sync.forget(entry.key)
        if self.fallback is not None:
            self.fallback.forget(entry.name)
        self.askers.discard(entry)


def _nothing() -> None:
    """Give up a poll that was answered at once."""
