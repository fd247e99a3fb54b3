"""The traffic that all processes know: each tells the others of its own through PostgreSQL, and reads theirs.

A process stores one row with its whole table. Rows have ages, and a reader dates them by its own monotonic clock, so no
clock has to agree with another one. Without PostgreSQL a process goes on with its own digests, and says so.
"""

import asyncio
import time
import zlib
from typing import TypeVar

import msgspec
import structlog
from msgspec import Struct

from registry import metrics
from registry.cooperative import cooperatively
from registry.core.endpoint_attempts import ServiceImage, endpoint_counts
from registry.core.shared_table import Owner, most_dropped
from registry.core.traffic import EndpointCounts
from registry.core.traffic_figures import AgedImage
from registry.core.traffic_images import TrafficImage
from registry.core.traffic_table import TrafficTable
from registry.errors import UnavailableError
from registry.store.database import Database
from registry.store.traffic import RETENTION, TrafficRow, read_traffic, store_traffic

log = structlog.get_logger()

EXCHANGE_INTERVAL = 1.0
"""Seconds between two passes; most of them have nothing to do."""
PUBLISH_INTERVAL = 5.0
"""Seconds between two images of the table, and between two readings of those of others, while no shift runs."""
_RENEW_INTERVAL = 20.0
"""Seconds after which a table is stored again that got no digest, since its windows empty, or that no other reads."""
_FORGET_INTERVAL = 60.0
_NOTE_INTERVAL = 60.0
"""Seconds between two log events about what was dropped."""
_NAMED = 3
"""Callers that such an event names."""
_MAX_SHARE = 0.03
"""The part of the time in which images are made: a full table does not keep the process busy."""
_OVERDUE = 15.0
"""Seconds without an exchange after which other processes' figures count as missing."""
_IMAGE_AGE = 1.0
"""Seconds for which an image of the own table answers questions."""
FORMAT = 1
"""The version of the images in rows; rows of another one are left out."""

Image = TypeVar("Image")


class _Stored(Struct, array_like=True, frozen=True):
    format: int
    image: msgspec.Raw


class _Other(Struct, frozen=True):
    """Another process: the number of its row, its images, and the monotonic time at which they were made."""

    number: int
    made_at: float
    pairs: TrafficImage
    endpoints: list[ServiceImage]


_stored = msgspec.msgpack.Decoder(_Stored)
_pairs = msgspec.msgpack.Decoder(TrafficImage)
_services = msgspec.msgpack.Decoder(list[ServiceImage])


class TrafficExchange:
    """This process's table of traffic, and the images of the tables of the others.

    Args:
        database: through which processes tell each other.
        table: the table of this process.
        process_id: the random id of this process.
    """

    def __init__(self, database: Database, table: TrafficTable, process_id: str) -> None:
        self.table = table
        self._database = database
        self._process_id = process_id
        self._others: dict[str, _Other] = {}
        """By process id: what the others know. Written by exchange()."""
        self._unreadable: set[str] = set()
        """Processes whose rows this version cannot read; each is logged once."""
        self._number = 0
        """The number of the row that was stored last."""
        self._published = 0
        """The digests that were in the table when it was stored last."""
        self._publish_due = 0.0
        """Monotonic time before which the table is not stored again, since an image of it takes long."""
        self._published_at = 0.0
        """Monotonic time at which it was stored last."""
        self._read_due = 0.0
        """Monotonic time from which the rows of others are read again."""
        self._read_at: float | None = None
        """Monotonic time of the last reading; None before the first, and while PostgreSQL is away."""
        self._read_before: float | None = None
        """Monotonic time of the last reading, also while PostgreSQL is away."""
        self._forget_due = 0.0
        self._dropped: dict[Owner, int] = {}
        """By owner: the entries that it lost since the last log event about them."""
        self._note_due = 0.0
        """Monotonic time from which another one may be written."""
        self.dropped = 0
        """Pairs, routes and Envoys of the table that were dropped because there were too many, since the start."""
        self._image = AgedImage(TrafficImage(), 0.0)
        """The last image of the own table; its age is the monotonic time at which it was made."""
        self._imaged = 0
        """The digests that were in the table when this image was begun; later ones may lack in it."""
        self._imaging = asyncio.Lock()
        """Held while the own table is imaged, so that many questions at once make one image."""

    @property
    def complete(self) -> bool:
        """Whether the figures have those of the other processes, as of a few seconds ago."""
        return self._read_at is not None and time.monotonic() - self._read_at < _OVERDUE

    @property
    def processes(self) -> int:
        """The processes whose figures are known, this one included."""
        return 1 + len(self._others)

    async def exchange(self) -> None:
        """Store the own table when it has changed and is due, and read those of the others.

        Raises:
            UnavailableError: PostgreSQL is away; the own figures stay.
        """
        now = time.monotonic()
        if now >= self._forget_due:
            self._forget_due = now + _FORGET_INTERVAL
            async for _ in cooperatively(self.table.forget_in_steps(now)):
                pass
            self.table.endpoints.forget(now)
        metrics.TRAFFIC_PAIRS.set(len(self.table))
        self._note_dropped(now)
        try:
            await self._exchange(now)
        except UnavailableError:
            self._read_at = None
            raise

    def _note_dropped(self, now: float) -> None:
        """Count what was dropped, and name those who lost it once a minute."""
        for owner, number in self.table.take_dropped().items():
            self._dropped[owner] = self._dropped.get(owner, 0) + number
            self.dropped += number
            metrics.TRAFFIC_DROPPED.inc(number)
        if self._dropped and now >= self._note_due:
            self._note_due = now + _NOTE_INTERVAL
            log.warning(
                "traffic_dropped",
                number=sum(self._dropped.values()),
                callers=[
                    {"caller": caller, "principal": principal, "number": number}
                    for (principal, caller), number in most_dropped(self._dropped, _NAMED)
                ],
                meaning="more pairs, routes or Envoys than fit; those who have the most lost them. Raise "
                "REGISTRY_TRAFFIC_PAIRS if they are real",
            )
            self._dropped.clear()

    async def _exchange(self, now: float) -> None:
        soon = EXCHANGE_INTERVAL if self._shifting(now) else PUBLISH_INTERVAL
        changed = self.table.digests != self._published
        # The first row says that this process is there; without others nobody waits for the next ones.
        interval = soon if changed and self._others else _RENEW_INTERVAL
        due = now >= max(self._publish_due, self._published_at + interval)
        if not self._number or (due and (changed or len(self.table))):
            await self._publish()
        if now >= self._read_due:
            self._read_due = now + soon
            await self._read()

    async def images(self) -> list[AgedImage]:
        """Return the tables of all processes; the own one is at most a second old."""
        now = time.monotonic()
        others = [AgedImage(other.pairs, now - other.made_at) for other in self._others.values()]
        own, made_at = await self._own_image()
        return [AgedImage(own, now - made_at), *others]

    def endpoint_counts(self, service: str, within: float) -> EndpointCounts:
        """Return the attempts at a service's endpoints in the last seconds, by all processes."""
        now = time.monotonic()
        others = [(now - other.made_at, other.endpoints) for other in self._others.values()]
        return endpoint_counts([(0.0, self.table.endpoints.image_of(service, now, within)), *others], service, within)

    def _shifting(self, now: float) -> bool:
        """Return whether any process counts endpoints for a shift, which cannot wait long for the others."""
        return self.table.endpoints.in_use(now) or any(
            service.callers and min(seen[2] for seen in service.callers) + now - other.made_at < _OVERDUE
            for other in self._others.values()
            for service in other.endpoints
        )

    async def _own_image(self) -> tuple[TrafficImage, float]:
        async with self._imaging:
            now, digests = time.monotonic(), self.table.digests
            if now - self._image.age >= _IMAGE_AGE:
                pairs = [each async for each in cooperatively(self.table.pair_images(now))]
                routes = [each async for each in cooperatively(self.table.route_images(now))]
                callers = [each async for each in cooperatively(self.table.caller_images(now))]
                reporters = [each async for each in cooperatively(self.table.reporter_images(now))]
                self._image = AgedImage(TrafficImage(pairs, routes, callers, reporters), now)
                self._imaged = digests
            return self._image.image, self._image.age

    async def _publish(self) -> None:
        begun = time.monotonic()
        image, _ = await self._own_image()
        digests = self._imaged
        endpoints = self.table.endpoint_images(begun)
        pairs = await asyncio.to_thread(_pack, image)
        await store_traffic(self._database, self._process_id, self._number + 1, pairs, _pack(endpoints))
        self._number += 1
        self._published = digests
        self._published_at = begun
        self._publish_due = begun + (time.monotonic() - begun) / _MAX_SHARE

    async def _read(self) -> None:
        before = self._read_before
        known = {process: other.number for process, other in self._others.items()}
        rows, living = await read_traffic(self._database, self._process_id, known)
        now = time.monotonic()
        for row in rows:
            other = await asyncio.to_thread(_unpack, row)
            if other is None:
                self._note_unreadable(row.process_id)
                continue
            # PostgreSQL's clock may step: a row that was not there at the last reading is younger than that.
            oldest = RETENTION if before is None or row.process_id not in known else now - before
            age = min(max(row.age, 0.0), oldest)
            self._others[row.process_id] = _Other(row.number, now - age, *other)
        self._others = {
            process: other
            for process, other in self._others.items()
            if process in living and now - other.made_at < RETENTION
        }
        self._read_at = self._read_before = now

    def _note_unreadable(self, process_id: str) -> None:
        if process_id not in self._unreadable:
            self._unreadable.add(process_id)
            log.warning(
                "traffic_of_process_unreadable",
                process_id=process_id,
                meaning="figures lack the digests that it got; another version of the registry runs there",
            )


def _pack(image: object) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(_Stored(FORMAT, msgspec.Raw(msgspec.msgpack.encode(image)))), 1)


def _unpack(row: TrafficRow) -> tuple[TrafficImage, list[ServiceImage]] | None:
    """Return the images of a row; None if another version of the registry wrote it, or it is broken."""
    try:
        return _read_image(row.pairs, _pairs), _read_image(row.endpoints, _services)
    except (msgspec.DecodeError, zlib.error, ValueError):
        return None


def _read_image(packed: bytes, decoder: msgspec.msgpack.Decoder[Image]) -> Image:
    stored = _stored.decode(zlib.decompress(packed))
    if stored.format != FORMAT:
        raise ValueError(f"format {stored.format} is not {FORMAT}")
    return decoder.decode(stored.image)
