"""A resource type of the tests that is keyed by name: a note."""

import asyncio
import json
from collections.abc import Callable, Collection, Iterable

from registry.cache.standing_watches import Changed, StandingWatch, StandingWatches
from registry.errors import UnavailableError
from registry.xds.resource_cache import Resource, ResourceCache
from registry.xds.resources import Api, ResourceType
from wire.node import Node

NOTES = ResourceType("notes", order=10, type_urls={"v3": "type.googleapis.com/test.Note"})


class Note(Resource):
    """A note at one version."""

    database_id = "notes"
    version = 0

    def __init__(self, version: int, name: str, text: str) -> None:
        self.version = version
        self._content = {"@type": NOTES.type_urls["v3"], "name": name, "text": text}

    def json(self, _api: Api) -> bytes:
        """Return the note."""
        return json.dumps(self._content).encode()


class _Watch:
    def __init__(
        self, watches: "dict[_Watch, Collection[str]]", names: Collection[str], wake: Callable[[], None]
    ) -> None:
        self._watches = watches
        self.wake = wake
        watches[self] = names

    def cancel(self) -> None:
        self._watches.pop(self, None)


class NoteCache(ResourceCache):
    """All notes; every node may ask for each."""

    database_id = "notes"

    def __init__(self) -> None:
        self.sure = True
        """Whether this process has read the notes. Cleared by tests, set by mark_sure()."""
        self.claims: list[tuple[str, int]] = []
        self._notes: dict[str, Note] = {}
        self._watches: dict[_Watch, Collection[str]] = {}
        self._standing = StandingWatches()

    def put(self, name: str, version: int, text: str) -> None:
        """Replace a note, and wake those who wait for it."""
        self._notes[name] = Note(version, name, text)
        self._standing.note(name)
        for watch, names in list(self._watches.items()):
            if name in names:
                self._wake(watch)

    def mark_sure(self) -> None:
        """Take note that the notes were read, and wake everybody who waits."""
        self.sure = True
        self._standing.note_all()
        for watch in list(self._watches):
            self._wake(watch)

    def find(self, _node: Node, name: str) -> Note | None:
        """Return a note."""
        if not self.sure:
            raise UnavailableError("the notes were not read yet")
        return self._notes.get(name)

    def watch(self, _node: Node, names: Collection[str] | None, wake: Callable[[], None]) -> _Watch:
        """Wait for one of these notes."""
        return _Watch(self._watches, names or (), wake)

    def standing_watch(self, _node: Node, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Watch these notes."""
        return self._standing.add(names, changed)

    def claim_ahead(self, _node: Node, name: str, version: int) -> None:
        """Note a version that this process has not read."""
        self.claims.append((name, version))

    def _wake(self, watch: _Watch) -> None:
        watch.cancel()
        asyncio.get_running_loop().call_soon(watch.wake)
