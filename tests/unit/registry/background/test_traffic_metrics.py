"""The traffic of pairs in Prometheus' text format."""

import os
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.background.traffic_metrics import TrafficMetrics
from registry.core.traffic_table import TrafficTable
from registry.core.traffic_totals import FAILURE_REASONS, PairTotals
from registry.worker_metrics import VARIABLE, add_up_ended
from wire.traffic_digest import Edge, EdgeCounts, TrafficDigest

PAIR = PairTotals("web", 'eu/a "b"\\\n', "shop", 12, (1, 0, 2, 0, 3), {0: 4, 33: 2})


async def text_of(metrics: TrafficMetrics) -> str:
    """Return the whole text."""
    return b"".join(await metrics.text()).decode()


async def samples(metrics: TrafficMetrics) -> dict[tuple[str, str], float]:
    """Return the values by the name of the series, and by the reason or the bound of it."""
    text = await text_of(metrics)
    return {
        (sample.name.removeprefix("headcount_traffic_"), sample.labels.get("reason", sample.labels.get("le", ""))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def metrics() -> TrafficMetrics:
    """The metrics of one pair."""
    made = TrafficMetrics()
    made.set_source(lambda: [PAIR])
    return made


async def test_a_pair_has_requests_failures_and_latencies(metrics: TrafficMetrics) -> None:
    """As prometheus_client reads them, with a location that needs escaping."""
    found = await samples(metrics)
    assert found["requests_total", ""] == 12
    assert [found["failures_total", reason] for reason in FAILURE_REASONS] == [1, 0, 2, 0, 3]
    assert found["milliseconds_bucket", "1"] == 4
    assert found["milliseconds_bucket", "100"] == 4
    assert found["milliseconds_bucket", "177.8"] == found["milliseconds_bucket", "+Inf"] == 6
    assert found["milliseconds_count", ""] == 6
    assert found["milliseconds_sum", ""] == pytest.approx(4 * 0.5 + 2 * 107.5, rel=0.01)
    assert 'location="eu/a \\"b\\"\\\\\\n"' in await text_of(metrics)


async def test_a_table_without_pairs_has_no_series() -> None:
    """The families are there all the same."""
    text = await text_of(TrafficMetrics())
    assert re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE) == [
        ("headcount_traffic_requests_total", "counter"),
        ("headcount_traffic_failures_total", "counter"),
        ("headcount_traffic_milliseconds", "histogram"),
    ]
    assert [line for line in text.splitlines() if not line.startswith("#")] == []


async def test_a_reader_sees_the_pairs_of_its_services(metrics: TrafficMetrics) -> None:
    """As caller and as callee, and no others."""
    for service, seen in (("web", True), ("shop", True), ("payments", False)):
        text = b"".join(await metrics.text(lambda name, service=service: name == service)).decode()  # type: ignore[misc]
        assert ("headcount_traffic_requests_total{" in text) == seen


async def test_each_worker_has_its_own_series(
    metrics: TrafficMetrics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is scraped has those of the others; they end with their worker."""
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    await metrics.share()
    (own,) = tmp_path.glob("traffic_*.msgpack")
    own.rename(tmp_path / "traffic_1.msgpack")
    text = await text_of(metrics)
    assert len(re.findall(r"^headcount_traffic_requests_total\{.*,worker=\"\d+\"\} 12$", text, re.MULTILINE)) == 2
    add_up_ended(tmp_path, {os.getpid()}, {})
    assert {path.name for path in tmp_path.iterdir()} == {own.name, "lock"}


def test_totals_only_grow_and_go_with_their_pair() -> None:
    """Each digest adds to them, in whatever window it is; a pair that is forgotten has none."""
    table = TrafficTable(100)
    for number in range(3):
        edge = Edge("shop", EdgeCounts(completed=10, failures=2, timeouts=1, healthy=1, total=1), (5, 9))
        table.take(TrafficDigest("web", "i-1", 10.0, number, zone="a", edges=(edge,)), 1000.0 + 700 * number)
        (totals,) = table.totals()
        assert (totals.requests, totals.failures[0], totals.failures[-1]) == (10 * (number + 1), number + 1, number + 1)
        assert (totals.location, dict(totals.buckets)) == ("a", {5: 9 * (number + 1)})
    assert list(table.forget_in_steps(10_000.0))
    assert list(table.totals()) == []
