"""What is listed, counted and measured of open streams."""

import time

from prometheus_client import REGISTRY
from unit.registry.making import endpoint
from unit.registry.streams import RecordedType, ShownStream

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.snapshot import SnapshotDelta
from registry.xds.eds import AssignmentCache
from registry.xds.grpc.observer import Rejection
from registry.xds.grpc.streams import ReportMaker, Streams, label_of, troubled_names
from registry.xds.resource_cache import ServedType
from registry.xds.resources import ENDPOINTS
from wire.node import Node


def cache_of(*names: str) -> SnapshotCache:
    """Return services at version 7, whose last change is 2 s old, and the one before 3 s."""
    cache = SnapshotCache()
    cache.set_database("db")
    cache.mark_ready(0.0)
    now = cache.clock.now()
    for version, age in ((6, 3.0), (7, 2.0)):
        cache.apply(
            SnapshotDelta(name, version, version, listed=[endpoint(version, name)], made_at=now - age) for name in names
        )
    return cache


def streams_of(cache: SnapshotCache) -> Streams:
    """Return the streams of a process that serves these services."""
    return Streams([ServedType(ENDPOINTS, AssignmentCache(cache))], cache.clock)


def sample(name: str, **labels: str) -> float:
    """Return the value of a metric; 0 before it has one."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_open_streams_are_counted_by_method_and_client() -> None:
    """Until they end; one whose first request was not read is none yet."""
    streams = streams_of(cache_of())
    labels = {"method": "StreamEndpoints", "client": "grpc"}
    before = sample("registry_xds_streams", **labels)
    entry = streams.observer("StreamEndpoints", "10.0.0.9", 1.0)
    entry.closed(2.0)
    assert (len(streams), sample("registry_xds_streams", **labels)) == (0, before)
    entry = streams.observer("StreamEndpoints", "10.0.0.9", 1.0)
    entry.opened(ShownStream(Node("i-1"), "gRPC Go", records=[]))
    assert (len(streams), sample("registry_xds_streams", **labels)) == (1, before + 1)
    entry.closed(2.0)
    entry.closed(3.0)
    assert (len(streams), sample("registry_xds_streams", **labels)) == (0, before)
    assert [label_of(name) for name in ("envoy", "gRPC C-core", "", "curl")] == ["envoy", "grpc", "other", "other"]


def test_an_acknowledgement_measures_the_oldest_change_that_it_brings() -> None:
    """A client that held nothing is not measured, and neither is a version of another database."""
    cache = cache_of("shop", "cart")
    entry = streams_of(cache).observer("StreamAggregatedResources", "10.0.0.9", 1.0)
    count, total = ("registry_propagation_seconds_count", "registry_propagation_seconds_sum")
    before = sample(count, way="stream"), sample(total, way="stream")
    for _ in range(2):
        entry.acknowledged(
            ENDPOINTS, {"shop": "db:5", "cart": "db:6", "new": "", "x": "other:1", "y": "?"}, time.monotonic()
        )
    assert sample(count, way="stream") - before[0] == 4
    assert abs(sample(total, way="stream") - before[1] - 10.0) < 1.0


def test_a_rejection_is_counted_and_passed_on() -> None:
    """With the stream that it came on."""
    passed: list[tuple[object, ...]] = []
    cache = cache_of("shop")
    streams = Streams([ServedType(ENDPOINTS, AssignmentCache(cache))], cache.clock, lambda *facts: passed.append(facts))
    entry = streams.observer("StreamEndpoints", "10.0.0.9", 1.0)
    before = sample("registry_xds_nacks_total", type="endpoints")
    rejection = Rejection(3.0, "malformed IP address", {"shop": "db:7"})
    entry.rejected(ENDPOINTS, rejection)
    assert sample("registry_xds_nacks_total", type="endpoints") - before == 1
    assert passed == [(entry, ENDPOINTS, rejection)]


def test_only_names_in_trouble_are_looked_at() -> None:
    """A thousand services that are current cost nothing; an answer that is not acknowledged for long makes some."""
    record = RecordedType({f"s-{number}": "db:7" for number in range(1_000)})
    assert list(troubled_names(record, 100.0)) == []
    record.sent_at, record.unanswered, record.waiting = 90.0, {"s-1": "db:8"}, ["s-2", "gone"]
    assert list(troubled_names(record, 99.0)) == []
    assert sorted(troubled_names(record, 101.0)) == ["s-1", "s-2"]
    record.rejections = {"s-3": Rejection(98.0, "no", {"s-3": "db:7"})}
    assert list(troubled_names(record, 99.0)) == ["s-3"]


def test_a_report_has_what_the_client_has_said() -> None:
    """Its versions as numbers of this database, times by the database's clock."""
    cache = cache_of("shop")
    record = RecordedType({"shop": "db:6", "cart": "", "pay": "other:3"})
    record.sent_at, record.unanswered = 9.0, {"cart": "db:7"}
    record.rejections = {"shop": Rejection(5.0, "bad\x00" * 400, {"shop": "db:7"})}
    record.refusals = {"pay": "no grant"}
    entry = streams_of(cache).observer("StreamEndpoints", "10.0.0.9", 1.0)
    entry.opened(ShownStream(Node("i-1", "web", "za", "1.40.0"), "envoy", delta=True, records=[record]))
    maker = ReportMaker("p:1", cache.clock, lambda: cache.database_id)
    shop, cart, pay = maker.reports(entry, record, ["shop", "cart", "pay"], 10.0)
    assert (shop.node_id, shop.envoy, shop.api, shop.held) == ("i-1", "envoy 1.40.0", "grpc-delta", True)
    assert (shop.version, shop.rejected_version, shop.rejected_at) == (6, 7, cache.clock.at(5.0))
    assert (len(shop.error), shop.offered) == (1_000, None)
    assert (cart.version, cart.offered, cart.answered_at) == (None, 7, cache.clock.at(9.0))
    assert (pay.version, pay.version_info, pay.status, pay.refusal) == (None, "other:3", 403, "no grant")
