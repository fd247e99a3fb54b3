"""The askers of an edge: which of them asks for each name, and whether registries refuse them all."""

import asyncio
from collections.abc import Callable, Iterator

from registrar.edge.asker import Asker, Progress
from registrar.edge.entry import Entry, Key
from registrar.registry_client.client import RegistryClient
from wire.node import Node

MAX_ASKERS = 64
"""Questions that are held at a time: one for each node, and for each thousand names of it."""


class Askers:
    """Asks for names, those of each node by questions of their own.

    Args:
        edge: the name of this edge in its questions.
        client: of the edge's own.
        settle: called with each entry whose content, or whose registry's state, may have changed.

    Attributes:
        progress: what became of the questions.
        failed: whether an internal error has ended the tasks of this edge. Written by the edge.
    """

    def __init__(self, edge: str, client: RegistryClient, settle: Callable[[Entry], None]) -> None:
        self.progress = Progress()
        self.failed = False
        self._edge = edge
        self._client = client
        self._settle = settle
        self._askers: list[Asker] = []
        # The asker of each name.
        self._of: dict[Key, Asker] = {}
        # What tasks of askers belong to; None until this edge runs.
        self._group: asyncio.TaskGroup | None = None
        # The task of each asker, once this edge runs.
        self._tasks: dict[Asker, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Return the number of questions that are held at a time."""
        return len(self._askers)

    def run(self, group: asyncio.TaskGroup) -> None:
        """Begin to ask, in tasks of a group."""
        self._group = group
        for asker in self._askers:
            self._start(asker)

    @property
    def refused(self) -> bool:
        """Whether Envoys have to ask the registry themselves.

        The registry answers, and refuses this process everything; or one of its answers is too long. Nothing else would
        bring an Envoy the names of that one, and the others lose nothing by asking the registry.
        """
        return self.failed or any(asker.too_long for asker in self._askers) or self._all_refused

    @property
    def away(self) -> str | None:
        """Why an answer is not taken, why no registry answers or each one refuses.

        None while one of the questions is answered and no answer is too long.
        """
        too_long = next((asker.away for asker in self._askers if asker.too_long), None)
        reasons = [asker.away for asker in self._askers]
        return too_long or (None if None in reasons else next(iter(reasons), None))

    def of(self, entry: Entry) -> Asker:
        """Return the asker of a name that was added."""
        return self._of[entry.key]

    def is_refused(self, entry: Entry) -> bool:
        """Return whether the registry refuses a name, or everything of the node that it is asked for."""
        return entry.refused or self.of(entry).refused

    def names(self) -> Iterator[list[Entry]]:
        """Yield the names of each question."""
        for asker in list(self._askers):
            yield list(asker.entries.values())

    def has_room(self, node: Node) -> bool:
        """Return whether one more name of a node may be asked for."""
        return len(self._askers) < MAX_ASKERS or self._with_room(node) is not None

    def add(self, entry: Entry, node: Node) -> None:
        """Ask for a name, on behalf of a node that there is room for; once it is loaded."""
        asker = self._with_room(node) or self._new(node)
        asker.add(entry)
        self._of[entry.key] = asker

    def move(self, entry: Entry, node: Node) -> None:
        """Ask for a name on behalf of another node that polls for it too, if the first one is refused."""
        asker = self._with_room(node) or self._new(node)
        if asker.refused:
            return
        self.discard(entry)
        asker.add(entry)
        self._of[entry.key] = asker
        asker.wake()

    def note_loaded(self, entry: Entry) -> None:
        """Ask for a name whose file was looked at; one that was forgotten meanwhile is not asked for."""
        asker = self._of.get(entry.key)
        if asker is not None:
            asker.count(entry)
            asker.wake()

    def discard(self, entry: Entry) -> None:
        """Ask for a name no longer; an asker without names ends."""
        asker = self._of.pop(entry.key, None)
        if asker is not None:
            asker.remove(entry)
            if not asker.entries:
                self._end(asker)

    @property
    def _all_refused(self) -> bool:
        return not any(asker.is_served for asker in self._askers) and any(asker.is_refused for asker in self._askers)

    def _with_room(self, node: Node) -> Asker | None:
        for asker in self._askers:
            if (asker.node.id, asker.node.cluster) == (node.id, node.cluster) and not asker.full:
                return asker
        return None

    def _new(self, node: Node) -> Asker:
        asker = Asker(node, self._edge, self._client, self.progress, self._settle)
        if self._all_refused:
            # Until it knows better; /livez would flap with each node that comes otherwise.
            asker.refused, asker.away = True, self.away
        self._askers.append(asker)
        self._start(asker)
        return asker

    def _start(self, asker: Asker) -> None:
        if self._group is not None:
            self._tasks[asker] = self._group.create_task(asker.run(), name="edge questions")

    def _end(self, asker: Asker) -> None:
        self._askers.remove(asker)
        self.progress.troubles.end(asker)
        task = self._tasks.pop(asker, None)
        if task is not None:
            task.cancel()
