"""Envoy's statistics as its admin interface writes them."""

import re
from urllib.parse import unquote

import pytest

from registrar.traffic.buckets import BinReader
from registrar.traffic.statistics import MAX_PATTERN, Reading, Statistic, StatisticsReader, target_of

TEXT = b"""cluster.pay.ments|v1.grpc.14: 3
cluster.pay.ments|v1.grpc.2: 1
cluster.pay.ments|v1.membership_healthy: 4
cluster.pay.ments|v1.membership_total: 5
cluster.pay.ments|v1.upstream_cx_connect_fail: 2
cluster.pay.ments|v1.upstream_rq_4xx: 7
cluster.pay.ments|v1.upstream_rq_5xx: 6
cluster.pay.ments|v1.upstream_rq_active: 8
cluster.pay.ments|v1.upstream_rq_active_overflow: 1
cluster.pay.ments|v1.upstream_rq_completed: 100
cluster.pay.ments|v1.upstream_rq_pending_overflow: 2
cluster.other.membership_total: 1
cluster.other.upstream_rq_completed: 9
listener.admin.downstream_cx_total: 17
server.live: 1
server.uptime: 42
vhost.pay.route.all.of-it.upstream_rq_completed: 40
vhost.pay.route.all.of-it.upstream_rq_5xx: 4
cluster.other.upstream_rq_time:
  totals=1,0.1:9
cluster.pay.ments|v1.upstream_rq_time:
  totals=0,0:9, 400,10:1
  intervals=
  summary=P0(0,0)
"""


def read(text: bytes, *names: str) -> Reading:
    """Return a reading."""
    reader = StatisticsReader(set(names), BinReader())
    reader.read(text.splitlines())
    return reader.result()


def test_statistics_are_read_by_the_cluster_whose_they_are() -> None:
    """Names may have dots and bars; those that were not asked for are known by name alone."""
    reading = read(
        TEXT.replace(b"vhost.pay.route.all.of-it.upstream_rq_time: No recorded values\n", b""), "pay.ments|v1"
    )
    row = reading.clusters["pay.ments|v1"]
    assert row[Statistic.COMPLETED] == 100
    assert row[Statistic.GRPC_FAILURES] == 4
    assert row[Statistic.OVERFLOWS] == 3
    assert [row[place] for place in (Statistic.ACTIVE, Statistic.HEALTHY, Statistic.TOTAL)] == [8, 4, 5]
    assert sum(reading.latencies["pay.ments|v1"].values()) == 10
    assert reading.clusters.keys() == reading.latencies.keys() == {"pay.ments|v1"}
    assert reading.names == {"pay.ments|v1", "other"}
    assert reading.routes == {("pay", "all.of-it"): [40, 0, 4]}
    assert (reading.uptime, reading.admin_connections) == (42, 17)


@pytest.mark.parametrize(
    "text", [b"<html>hello: 1", b"server.live: 1\nx: y", b"", b"cluster.a.upstream_rq_completed: 1"]
)
def test_the_answer_of_another_program_is_no_reading(text: bytes) -> None:
    """It would say that there is no traffic."""
    with pytest.raises(ValueError, match=r"server\.live|invalid literal"):
        read(text, "a")


def test_a_restart_is_seen_by_uptime_or_by_the_connections_of_the_registrar() -> None:
    """Uptime is 0 in the first five seconds of an Envoy; each reading is one more connection."""

    def reading(uptime: int, connections: int) -> Reading:
        return read(
            b"server.live: 1\nserver.uptime: %d\nlistener.admin.downstream_cx_total: %d" % (uptime, connections)
        )

    assert reading(0, 3).is_of_later_start(reading(10, 2))
    assert reading(0, 1).is_of_later_start(reading(0, 4))
    assert not reading(20, 5).is_of_later_start(reading(10, 4))


def test_the_pattern_asks_for_nothing_else() -> None:
    """Not for the statistics of zones and of internal requests, which repeat each request, nor for other clusters."""
    pattern = re.compile(unquote(target_of(["pay.ments|v1"]).partition("filter=")[2]))
    assert pattern.search("cluster.pay.ments|v1.upstream_rq_completed")
    assert pattern.search("cluster.pay.ments|v1.grpc.14")
    assert pattern.search("vhost.a.route.b.c.upstream_rq_5xx")
    for name in (
        "cluster.pay.ments|v1.zone.a.b.upstream_rq_completed",
        "cluster.pay.ments|v1.external.upstream_rq_completed",
        "cluster.pay-ments|v1.upstream_rq_completed",
        "cluster.other.upstream_rq_completed",
        "cluster.pay.ments|v1.grpc.0",
        "vhost.a.vcluster.other.upstream_rq_completed",
    ):
        assert not pattern.search(name), name


def test_so_many_clusters_that_they_cannot_be_named_are_all_asked_for() -> None:
    """Envoy takes a request head of 60 kB at most."""
    target = target_of([f"a-rather-long-name-of-a-cluster-{number}" for number in range(2_000)])
    assert len(target) < MAX_PATTERN
    assert "cluster\\.(.*)\\." in unquote(target)
