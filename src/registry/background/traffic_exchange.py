"""The traffic that all processes know: each tells the others of its own through PostgreSQL, and reads theirs.

A process stores one row with its whole table. Rows have ages, and a reader dates them by its own monotonic clock, so no
clock has to agree with another one. Without PostgreSQL a process goes on with its own digests, and says so.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import msgspec
import structlog
from msgspec import Raw, Struct
from msgspec.structs import astuple

from registry import metrics
from registry.cooperative import cooperatively, in_turns
from registry.core.endpoint_attempts import EndpointImage, ServiceImage, endpoint_counts_in_steps
from registry.core.shared_table import Owner, most_dropped
from registry.core.traffic import WINDOW_SECONDS, EndpointCounts
from registry.core.traffic_figures import AgedImage
from registry.core.traffic_images import CallerImage, PairImage, ReporterImage, RouteImage, TrafficImage
from registry.core.traffic_table import TrafficTable
from registry.errors import UnavailableError
from registry.store.database import Database
from registry.store.traffic import RETENTION, read_traffic, store_traffic

log = structlog.get_logger()

EXCHANGE_INTERVAL = 1.0
"""Seconds between two passes; most of them have nothing to do."""
PUBLISH_INTERVAL = 5.0
"""Seconds between two images of the table, while no shift runs and no pair begins to fail."""
READ_INTERVAL = 2.0
"""Seconds between two looks at what others have stored, while no shift runs; most of them find nothing new."""
_RENEW_INTERVAL = 20.0
"""Seconds after which a table is stored again that got no digest, since its windows empty, or that no other reads."""
_FORGET_INTERVAL = 60.0
_NOTE_INTERVAL = 60.0
"""Seconds between two log events about what was dropped."""
_NAMED = 3
"""Callers that such an event names."""
_MAX_SHARE = 0.03
"""The part of the time in which images are made: a full table does not keep the process busy."""
_MAX_URGENT_SHARE = 0.1
"""The same while pairs begin to fail, which others are to know within seconds."""
_OVERDUE = 15.0
"""Seconds without an exchange after which other processes' figures count as missing."""
_IMAGE_AGE = 1.0
"""Seconds for which an image of the own table answers questions."""
FORMAT = 2
"""The version of the images in rows; rows of another one are left out."""
_CHUNK = 50
"""Items that are encoded and decoded at once."""

Item = TypeVar("Item")


class _StoredImage(Struct, array_like=True, frozen=True):
    """The image of a table as it is stored: each list in chunks of encoded items."""

    format: int
    pairs: list[bytes]
    routes: list[bytes]
    callers: list[bytes]
    reporters: list[bytes]


class _StoredService(Struct, array_like=True, frozen=True):
    """A ``ServiceImage`` as it is stored, which is encoded and decoded in parts."""

    service: str
    endpoints: list[Raw]
    callers: list[Raw]


class _StoredEndpoints(Struct, array_like=True, frozen=True):
    format: int
    services: list[_StoredService]


class _Other(Struct, frozen=True):
    """Another process: the number of its row, its images, and the monotonic time at which they were made."""

    number: int
    made_at: float
    pairs: TrafficImage
    endpoints: list[ServiceImage]


_encode = msgspec.msgpack.Encoder().encode
_stored_image = msgspec.msgpack.Decoder(_StoredImage)
_stored_endpoints = msgspec.msgpack.Decoder(_StoredEndpoints)
_pairs = msgspec.msgpack.Decoder(list[PairImage])
_routes = msgspec.msgpack.Decoder(list[RouteImage])
_callers = msgspec.msgpack.Decoder(list[CallerImage])
_endpoint = msgspec.msgpack.Decoder(EndpointImage)
_caller = msgspec.msgpack.Decoder(tuple[str, str, float, float])
_reporters = msgspec.msgpack.Decoder(list[ReporterImage])


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
        self._unreadable: dict[str, int] = {}
        """By process: the number of its last row, which this version cannot read; each process is logged once."""
        self._number = 0
        """The number of the row that was stored last."""
        self._published = 0
        """The digests that were in the table when it was stored last."""
        self._publish_due = 0.0
        """Monotonic time before which the table is not stored again, since an image of it takes long."""
        self._urgent_due = 0.0
        """The same for a table in which a pair has begun to fail."""
        self._urgent = False
        """Whether a pair has begun to fail since the table was stored last."""
        self._tried_at = 0.0
        """Monotonic time at which it was made ready last, and stored unless PostgreSQL was away."""
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
            async for _ in cooperatively(self.table.endpoints.forget_in_steps(now)):
                pass
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
        due = now >= max(self._publish_due, self._tried_at + interval)
        self._urgent = await in_turns(self.table.begins_to_fail_in_steps()) or self._urgent
        urgent = (not self._number or (self._urgent and self._others)) and now >= self._urgent_due
        if urgent or (due and (changed or len(self.table))):
            await self._publish()
        # While PostgreSQL is away each exchange asks it, and fails: one that asks nothing would seem to have recovered.
        if self._read_at is None or now >= self._read_due:
            self._read_due = now + min(soon, READ_INTERVAL)
            await self._read()

    async def images(self) -> list[AgedImage]:
        """Return the tables of all processes; the own one is at most a second old."""
        now = time.monotonic()
        others = [AgedImage(other.pairs, now - other.made_at) for other in self._others.values()]
        own, made_at = await self._own_image()
        return [AgedImage(own, now - made_at), *others]

    def pairs_of_others(self) -> list[list[PairImage]]:
        """Return the pairs of the other processes, but of those whose last word is older than the last minute."""
        now = time.monotonic()
        minute = WINDOW_SECONDS["1m"]
        return [other.pairs.pairs for other in self._others.values() if now - other.made_at < minute]

    async def endpoint_counts(self, service: str, within: float) -> EndpointCounts:
        """Return the attempts at a service's endpoints in the last seconds, by all processes."""
        now = time.monotonic()
        others = [(now - other.made_at, other.endpoints) for other in self._others.values()]
        own = await in_turns(self.table.endpoints.image_of_in_steps(service, now, within))
        return await in_turns(endpoint_counts_in_steps([(0.0, own), *others], service, within))

    def _shifting(self, now: float) -> bool:
        """Return whether any process counts endpoints for a shift, which cannot wait long for the others."""
        return self.table.endpoints.in_use(now) or any(
            service.callers and min(seen[2] for seen in service.callers) + now - other.made_at < _OVERDUE
            for other in self._others.values()
            for service in other.endpoints
        )

    async def _own_image(self, *, complete: bool = False) -> tuple[TrafficImage, float]:
        """Return an image of the own table, and when it was made.

        Args:
            complete: make another one if digests came since the last one, however young it is.
        """
        async with self._imaging:
            now, digests = time.monotonic(), self.table.digests
            if now - self._image.age >= _IMAGE_AGE or (complete and digests != self._imaged):
                pairs = [each async for each in cooperatively(self.table.pair_images(now))]
                routes = [each async for each in cooperatively(self.table.route_images(now))]
                callers = [each async for each in cooperatively(self.table.caller_images(now))]
                reporters = [each async for each in cooperatively(self.table.reporter_images(now))]
                self._image = AgedImage(TrafficImage(pairs, routes, callers, reporters), now)
                self._imaged = digests
            return self._image.image, self._image.age

    async def _publish(self) -> None:
        begun = time.monotonic()
        image, _ = await self._own_image(complete=True)
        digests = self._imaged
        pairs = await _pack_image(image)
        endpoints = await _pack_endpoints(await in_turns(self.table.endpoints.images_in_steps(begun)))
        taken = time.monotonic() - begun
        # Set before it is stored: while PostgreSQL is away, the table is not made ready again in each pass.
        self._tried_at = begun
        self._publish_due = begun + min(taken / _MAX_SHARE, _RENEW_INTERVAL)
        self._urgent_due = begun + PUBLISH_INTERVAL
        await store_traffic(self._database, self._process_id, self._number + 1, pairs, endpoints)
        self._urgent_due = begun + min(taken / _MAX_URGENT_SHARE, _RENEW_INTERVAL)
        self._number += 1
        self._published = digests
        self._urgent = False
        await in_turns(self.table.note_failing_in_steps(image))

    async def _read(self) -> None:
        before = self._read_before
        known = self._unreadable | {process: other.number for process, other in self._others.items()}
        rows, living = await read_traffic(self._database, self._process_id, known)
        now = time.monotonic()
        for row in rows:
            try:
                pairs = await _unpack_image(row.pairs)
                endpoints = await _unpack_endpoints(row.endpoints)
            except (msgspec.DecodeError, zlib.error, ValueError):
                # Another version of the registry wrote it, or it is broken.
                self._note_unreadable(row.process_id, row.number)
                continue
            # PostgreSQL's clock may step: a row that was not there at the last reading is younger than that.
            oldest = RETENTION if before is None or row.process_id not in known else now - before
            age = min(max(row.age, 0.0), oldest)
            self._others[row.process_id] = _Other(row.number, now - age, pairs, endpoints)
        self._others = {
            process: other
            for process, other in self._others.items()
            if process in living and now - other.made_at < RETENTION
        }
        self._unreadable = {process: number for process, number in self._unreadable.items() if process in living}
        self._read_at = self._read_before = now

    def _note_unreadable(self, process_id: str, number: int) -> None:
        known = process_id in self._unreadable
        self._unreadable[process_id] = number
        if not known:
            log.warning(
                "traffic_of_process_unreadable",
                process_id=process_id,
                meaning="figures lack the digests that it got; another version of the registry runs there",
            )


async def _pack_image(image: TrafficImage) -> bytes:
    """Return an image as it is stored, with others served in between: at once 5,000 pairs take 14 ms."""
    lists = [[chunk async for chunk in _encode_chunks(items)] for items in astuple(image)]
    return await asyncio.to_thread(_pack, _StoredImage(FORMAT, *lists))


async def _encode_chunks(items: Sequence[Struct]) -> AsyncIterator[bytes]:
    """Yield items in chunks, which a reader can decode one by one."""
    async for start in cooperatively(range(0, len(items), _CHUNK)):
        yield _encode(items[start : start + _CHUNK])


async def _unpack_image(packed: bytes) -> TrafficImage:
    """Return the image that another process has stored, with others served in between.

    Raises:
        msgspec.DecodeError, zlib.error, ValueError: it cannot be read.
    """
    stored = _stored_image.decode(await asyncio.to_thread(zlib.decompress, packed))
    _check_format(stored.format)
    return TrafficImage(
        [each async for each in _decode_chunks(stored.pairs, _pairs)],
        [each async for each in _decode_chunks(stored.routes, _routes)],
        [each async for each in _decode_chunks(stored.callers, _callers)],
        [each async for each in _decode_chunks(stored.reporters, _reporters)],
    )


async def _decode_chunks(chunks: Sequence[bytes], decoder: msgspec.msgpack.Decoder[list[Item]]) -> AsyncIterator[Item]:
    async for chunk in cooperatively(chunks):
        for item in decoder.decode(chunk):
            yield item


def _pack(stored: Struct) -> bytes:
    return zlib.compress(_encode(stored), 1)


async def _pack_endpoints(services: Sequence[ServiceImage]) -> bytes:
    """Return the attempts at endpoints as they are stored, with others served in between."""
    stored = [
        _StoredService(
            service.service,
            [Raw(_encode(each)) async for each in cooperatively(service.endpoints)],
            [Raw(_encode(each)) async for each in cooperatively(service.callers)],
        )
        for service in services
    ]
    return await asyncio.to_thread(_pack, _StoredEndpoints(FORMAT, stored))


async def _unpack_endpoints(packed: bytes) -> list[ServiceImage]:
    """Return the attempts at endpoints that another process has stored, with others served in between.

    Raises:
        msgspec.DecodeError, zlib.error, ValueError: they cannot be read.
    """
    stored = _stored_endpoints.decode(await asyncio.to_thread(zlib.decompress, packed))
    _check_format(stored.format)
    return [
        ServiceImage(
            service.service,
            [_endpoint.decode(each) async for each in cooperatively(service.endpoints)],
            [_caller.decode(each) async for each in cooperatively(service.callers)],
        )
        for service in stored.services
    ]


def _check_format(number: int) -> None:
    if number != FORMAT:
        raise ValueError(f"format {number} is not {FORMAT}")
