"""The exchange of traffic between processes: when a process stores its table, and what it reads of the others."""

import contextlib
import itertools
import zlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from structlog.testing import capture_logs

from registry.background import traffic_exchange
from registry.background.traffic_exchange import TrafficExchange
from registry.cooperative import at_once
from registry.core.endpoint_attempts import ServiceImage
from registry.core.traffic import Attempts
from registry.core.traffic_table import TrafficTable
from registry.errors import UnavailableError
from registry.store.database import Database
from registry.store.traffic import TrafficRow
from wire.traffic_digest import Edge, EdgeCounts, EdgeEndpoint, EndpointAttempts, Route, RouteCounts, TrafficDigest


class Rows:
    """The rows of all processes, and the clock of the test."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.away = False
        self.rows: dict[str, tuple[int, float, bytes, bytes]] = {}
        self.stored: list[tuple[str, float]] = []
        self.tried = 0
        self.read = 0

    async def store(self, _: Database, process_id: str, number: int, pairs: bytes, endpoints: bytes) -> None:
        """Store a row."""
        self.tried += 1
        if self.away:
            raise UnavailableError("away")
        self.stored.append((process_id, self.now))
        self.rows[process_id] = (number, self.now, pairs, endpoints)

    async def read_new(
        self, _: Database, process_id: str, known: Mapping[str, int]
    ) -> tuple[list[TrafficRow], set[str]]:
        """Return the rows of others that are not known."""
        if self.away:
            raise UnavailableError("away")
        others = {process: row for process, row in self.rows.items() if process != process_id}
        new = [
            TrafficRow(process, number, self.now - at, pairs, endpoints)
            for process, (number, at, pairs, endpoints) in others.items()
            if known.get(process) != number
        ]
        self.read += len(new)
        return new, set(others)

    def times(self, process_id: str) -> list[float]:
        """Return when a process stored its table."""
        return [at for process, at in self.stored if process == process_id]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    """PostgreSQL in memory."""
    made = Rows()
    monkeypatch.setattr(traffic_exchange, "store_traffic", made.store)
    monkeypatch.setattr(traffic_exchange, "read_traffic", made.read_new)
    monkeypatch.setattr(traffic_exchange, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def exchange(process_id: str) -> TrafficExchange:
    """Return the exchange of a process."""
    return TrafficExchange(cast("Database", None), TrafficTable(100), process_id)


async def two(rows: Rows) -> tuple[TrafficExchange, TrafficExchange]:
    """Return the exchanges of two processes that know each other."""
    one, other = exchange("one"), exchange("other")
    for process in (one, other, one, other):
        rows.now += 1.5
        await process.exchange()
    assert (one.processes, other.processes) == (2, 2)
    return one, other


def is_complete(process: TrafficExchange) -> bool:
    """Return whether a process has the figures of the others."""
    return process.complete


def digest(number: int, failures: int = 0) -> TrafficDigest:
    """Return the digest of an Envoy."""
    edges = (Edge("payments", EdgeCounts(100, failures=failures, healthy=3, total=3), (5, 100)),)
    routes = (Route("payments", "refund", RouteCounts(4, 0, 1), (3, 4)),)
    return TrafficDigest("shop", "i-1", 10.0, number, sender="s", zone="a", edges=edges, routes=routes)


async def test_a_pair_that_begins_to_fail_is_told_within_two_passes_and_a_look(rows: Rows) -> None:
    """Figures that go on as they were are told each five seconds; the moment of a failure does not wait for that."""
    one, other = exchange("one"), exchange("other")
    fails_at, red_at = 0.0, 0.0
    for second in range(60):
        rows.now = 1_000.0 + second
        if second % 10 == 0:
            # From the fourth on, in the middle of the interval between two tables.
            failing = second >= 30
            one.table.take(digest(second, 90 if failing else 0), rows.now)
            fails_at = fails_at or (rows.now if failing else 0.0)
        await one.exchange()
        await other.exchange()
        pairs = [pair for image in await other.images() for pair in image.image.pairs]
        if not red_at and pairs and pairs[0].windows[0].counts[2]:
            red_at = rows.now
    assert 0 <= red_at - fails_at <= 3
    before = [at for at in rows.times("one") if at < fails_at]
    assert min(late - early for early, late in itertools.pairwise(before)) >= 5
    images = await other.images()
    assert [route.route for image in images for route in image.image.routes] == ["refund"]
    assert [(each.node, each.sender) for image in images for each in image.image.reporters] == [("i-1", "s")]
    assert [each.milliseconds[2] for image in images for each in image.image.callers] == [60_000]


async def test_what_came_after_an_image_is_stored_with_the_next_row(rows: Rows) -> None:
    """An image that answered a question a moment ago is not taken for the table of now."""
    one, other = await two(rows)
    rows.now += 10
    await one.images()
    one.table.take(digest(1), rows.now)
    rows.now += 0.5
    await one.exchange()
    rows.now += 2
    await other.exchange()
    assert sum(len(each.image.pairs) for each in await other.images()) == 1


async def test_attempts_at_endpoints_are_stored_as_a_version_before_reads_them(rows: Rows) -> None:
    """They are encoded and decoded in parts, which the bytes do not show."""
    one, other = await two(rows)
    attempts = (EdgeEndpoint("10.0.0.5:80", EndpointAttempts(9, 2)),)
    edges = (Edge("payments", EdgeCounts(10, healthy=3, total=3), (), attempts),)
    watched = {"payments": lambda _endpoint: True}
    one.table.take(TrafficDigest("shop", "i-1", 10.0, 1, sender="s", edges=edges), rows.now, watched)
    rows.now += 6
    await one.exchange()
    rows.now += 2
    await other.exchange()
    counts = await other.endpoint_counts("payments", 60)
    assert counts.endpoints == {"10.0.0.5:80": Attempts(9, 2)}
    packed = zlib.decompress(rows.rows["one"][3])
    images = at_once(one.table.endpoints.images_in_steps(rows.now - 2))
    assert msgspec.msgpack.decode(packed, type=tuple[int, list[ServiceImage]]) == (traffic_exchange.FORMAT, images)


async def test_postgresql_away_costs_no_image_each_second(rows: Rows) -> None:
    """The table is made ready as often as before, and told soon when PostgreSQL is back."""
    one, _ = await two(rows)
    rows.away = True
    before = rows.tried
    for number in range(60):
        rows.now += 1
        one.table.take(digest(number, failures=90), rows.now)
        with contextlib.suppress(UnavailableError):
            await one.exchange()
    assert not is_complete(one)
    assert rows.tried - before <= 60 / traffic_exchange.PUBLISH_INTERVAL + 1
    rows.away = False
    back = rows.now
    while not is_complete(one) or rows.times("one")[-1] < back:
        rows.now += 1
        await one.exchange()
    assert rows.now - back <= traffic_exchange.PUBLISH_INTERVAL + 1


async def test_an_exchange_succeeds_only_when_postgresql_is_back(rows: Rows) -> None:
    """Also one in which nothing is due: the log would say each second or third that the job has recovered."""
    one, _ = await two(rows)
    rows.away = True
    while one.complete:
        rows.now += 1
        with contextlib.suppress(UnavailableError):
            await one.exchange()
    for _ in range(10):
        rows.now += 1
        with pytest.raises(UnavailableError):
            await one.exchange()
    rows.away = False
    await one.exchange()
    assert is_complete(one)


async def test_a_row_of_another_version_is_fetched_once_and_named_once(rows: Rows) -> None:
    """It is in the way of nothing; the figures lack that process."""
    one, _ = await two(rows)
    rows.rows["older"] = (7, rows.now, b"garbage", b"")
    with capture_logs() as logged:
        for _ in range(10):
            rows.now += 3
            await one.exchange()
    assert [each["process_id"] for each in logged if each["event"] == "traffic_of_process_unreadable"] == ["older"]
    assert rows.read <= 4
    assert (one.complete, one.processes) == (True, 2)
