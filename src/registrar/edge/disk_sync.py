"""Keeps what an edge holds on disk, and reads it from there when a name is first polled for."""

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial

from registrar.edge.disk_cache import DiskCache, Record, UnreadableNowError
from registrar.edge.entry import Entry, Key, Source
from registrar.thread_call import call_in_thread

_READ_TIMEOUT = 1.0
"""Seconds after which a poll no longer waits for the disk."""
_READ_INTERVAL = 1.0
"""Seconds between two attempts to read files for which this process had no descriptor or memory."""
_WRITE_INTERVAL = 1.0
"""Seconds between two writes of a name, for each 100 kB of it."""
_BYTES_PER_INTERVAL = 100_000
_TOUCH_INTERVAL = 60.0
"""Seconds between two notes on disk of what the registry has confirmed, so that a restart knows how old it is."""
_PRUNE_AFTER = 900.0
"""Seconds after the start before which no file is removed: Envoys may not have polled yet for what is theirs."""


class DiskSync:
    """Reads and writes the files of names.

    Args:
        disk: the files; None for nowhere.
        entries: the names that are held. Written by the edge.
        note_loaded: called with each name whose file was looked at, and again if its content comes late.
    """

    def __init__(
        self, disk: DiskCache | None, entries: Mapping[Key, Entry], note_loaded: Callable[[Entry], None]
    ) -> None:
        self.disk = disk
        self._entries = entries
        self._note_loaded = note_loaded
        self._loop = asyncio.get_running_loop()
        # Names whose file has to be read, and names whose content has to be written.
        self._to_read: list[Entry] = []
        self._to_write: dict[Key, None] = {}
        self._written_at: dict[Key, float] = {}
        self._wake = asyncio.Event()
        self._started_at = self._touched_at = self._loop.time()

    def read(self, entry: Entry) -> None:
        """Read a name's file soon; where there is no disk, the name is loaded at once."""
        if self.disk is None:
            self._load(entry, None)
            return
        self._to_read.append(entry)
        self._wake.set()
        self._loop.call_later(_READ_TIMEOUT, self._load, entry, None)

    def write(self, entry: Entry) -> None:
        """Write a name's content soon, if it is not on disk."""
        if entry.unsaved and self.disk is not None:
            self._to_write[entry.key] = None
            self._wake.set()

    def forget(self, key: Key) -> None:
        """Note that a name is no longer held; its file stays."""
        self._written_at.pop(key, None)
        if self.disk is not None:
            self.disk.give_up(key)

    def wake(self) -> None:
        """Try again what has failed, and note what was confirmed."""
        self._wake.set()

    async def run(self) -> None:
        """Read and write files, all in one thread at a time."""
        if self.disk is None:
            return
        self._started_at = self._touched_at = self._loop.time()
        await call_in_thread(self.disk.remove_unfinished)
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._touch(self.disk)
            if self._to_read:
                await self._read(self.disk)
            await self._write(self.disk)

    async def _touch(self, disk: DiskCache) -> None:
        now = self._loop.time()
        if now - self._touched_at < _TOUCH_INTERVAL:
            return
        confirmed = [key for key, entry in self._entries.items() if (entry.answered_at or 0.0) > self._touched_at]
        self._touched_at = now
        await call_in_thread(partial(disk.touch, confirmed))
        if now - self._started_at >= _PRUNE_AFTER:
            await call_in_thread(partial(disk.prune, list(self._entries)))

    async def _read(self, disk: DiskCache) -> None:
        entries, self._to_read = self._to_read, []
        records, again = await call_in_thread(partial(_read_each, disk, entries))
        for entry, record in records:
            self._load(entry, record)
        # Whoever polls meanwhile has waited for long enough, and gets the content when it comes.
        self._to_read += [entry for entry in again if self._entries.get(entry.key) is entry]
        if again:
            self._loop.call_later(_READ_INTERVAL, self._wake.set)

    def _load(self, entry: Entry, record: Record | None) -> None:
        """Take what was on disk, unless the registry or the time was faster."""
        if entry.loaded and record is None:
            return
        entry.loaded = True
        if record is not None and not entry.token:
            entry.take(record.token, record.resources, Source.DISK)
            # A clock that was ahead, or was set back since, makes no content newer than now.
            now = time.time()
            entry.received = min(record.received, now)
            entry.answered_at = self._loop.time() - (now - entry.received)
        self._note_loaded(entry)

    async def _write(self, disk: DiskCache) -> None:
        """Write what may be written by now; what may not is looked at again when it may."""
        now = self._loop.time()
        records, again = [], []
        for key in self._to_write:
            entry = self._entries.get(key)
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
            self._loop.call_at(min(due for due, _ in again), self._wake.set)
        if records:
            written = await call_in_thread(lambda: [disk.write(record) for record in records])
            # A disk that is full now may have room later, although nothing changes.
            failed = [record.key for record, done in zip(records, written, strict=True) if not done]
            self._to_write |= dict.fromkeys(failed)


def _read_each(disk: DiskCache, entries: list[Entry]) -> tuple[list[tuple[Entry, Record | None]], list[Entry]]:
    """Return what is on disk of these names, and those that cannot be read now."""
    records, again = [], []
    for entry in entries:
        try:
            records.append((entry, disk.read(entry.key)))
        except UnreadableNowError:
            again.append(entry)
    return records, again
