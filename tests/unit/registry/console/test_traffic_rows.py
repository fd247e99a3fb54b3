"""Words for the figures of pairs, and the data of the map."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.console.traffic_rows import milliseconds, pair_row, percent, rate, traffic_map
from registry.core.traffic import PairFigures, Reasons, Reporting


def figures(caller: str = "web", callee: str = "shop", success: float | None = 1.0, **values: Any) -> PairFigures:
    """Return the figures of 600 requests in a minute, unless values say otherwise."""
    requests = 0 if success is None else 600
    fields: dict[str, Any] = {
        "location": "",
        "requests": requests,
        "requests_per_second": requests / 60,
        "failures": 0 if success is None else round(600 * (1 - success)),
        "p50": None if success is None else 0.5,
        "p95": None if success is None else 20.4,
        "p99": None if success is None else 1234.5,
        "reasons": Reasons(),
        "active": 0,
        "healthy": 3,
        "total": 3,
        "reporting": Reporting(2, 2),
        "age": 3.0,
    }
    return PairFigures(caller, callee, success=success, **(fields | values))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (1.0, "100 %"),
        (0.999999, "99.99 %"),
        (0.9, "90.0 %"),
        (0.0, "0 %"),
        (1 - 0.97, "3.0 %"),
        (0.001, "0.10 %"),
        (1e-7, "< 0.01 %"),
    ],
)
def test_percentages(part: float, words: str) -> None:
    """What is not quite everything is never shown as 100 %, and what is not quite nothing never as 0 %."""
    assert percent(part) == words


@given(st.floats(0, 1))
def test_no_percentage_is_rounded_to_an_end(part: float) -> None:
    """Only a whole is 100 %, within what a double can tell apart."""
    if 1e-9 < part < 1 - 1e-9:
        assert percent(part) not in ("100 %", "0 %", "100.00 %", "0.00 %")


def test_rates_and_latencies_have_the_digits_that_matter() -> None:
    """A small rate is not nothing, and Envoy counts whole milliseconds."""
    assert [rate(number) for number in (0, 0.0167, 0.25, 9.94, 9.96, 12.4, 1234.5)] == [
        "0", "0.017", "0.2", "9.9", "10", "12", "1,234"
    ]  # fmt: skip
    assert [milliseconds(number) for number in (None, 0.5, 12.2, 1234.5)] == ["", "< 1 ms", "12 ms", "1,234 ms"]


async def test_a_callee_that_fails_is_told_from_a_breaker_of_its_caller() -> None:
    """What no other reason explains was answered by the callee, and nothing is counted below nought."""
    half = figures(success=0.5)
    assert pair_row(half, "1m").reasons == ["answered with an error 5.0/s"]
    turned_away = figures(success=0.5, reasons=Reasons(overflows=400))
    assert pair_row(turned_away, "1m").reasons == ["circuit breaker 6.7/s"]
    both = figures(success=0.5, reasons=Reasons(timeouts=60, overflows=120))
    assert pair_row(both, "1m").reasons == ["circuit breaker 2.0/s", "answered with an error 2.0/s"]
    assert "answered with an error 5.0/s" in json.loads((await traffic_map([half], "1m")).data)["pairs"][0][5]
    away = figures(success=0.5, reasons=Reasons(connect_failures=300, retries=900))
    late = figures(success=0.5, reasons=Reasons(timeouts=299, none_healthy=1))
    shown = [await traffic_map([each], "1m") for each in (half, turned_away, away, late)]
    assert [json.loads(each.data)["pairs"][0][4][2] for each in shown] == [
        "errors", "breaker", "no connection", "timed out"
    ]  # fmt: skip


def test_a_pair_without_traffic_has_no_success() -> None:
    """It is neither 100 % nor red."""
    row = pair_row(figures(success=None), "1m")
    assert (row.state, row.success, row.failed, row.rate) == ("no traffic", "no traffic", "", "0")


def test_a_failing_pair_says_why() -> None:
    """Reasons are rates; an outage without any attempt has them, too."""
    reasons = Reasons(timeouts=30, none_healthy=60, retries=600)
    row = pair_row(figures(success=0.5, reasons=reasons, healthy=0, reporting=Reporting(1, 3)), "1m")
    assert (row.state, row.failed) == ("unhealthy", "50.0 % fail")
    assert row.timeouts == "0.5/s"
    assert row.reasons == ["no healthy endpoint 1.0/s", "answered with an error 3.5/s", "retried 10/s"]
    assert (row.healthy, row.reporting) == ("0 of 3", "1 of 3 Envoys")


def test_rates_of_reasons_go_by_the_time_that_is_known() -> None:
    """A process that started 10 s ago knows 10 s of the hour."""
    row = pair_row(figures(requests=600, requests_per_second=60.0, reasons=Reasons(timeouts=10)), "1h")
    assert row.timeouts == "1.0/s"


async def test_the_data_of_the_map() -> None:
    """Nodes by number; an edge has its rate, its state, and the words beside it."""
    pairs = [figures("web", "shop", 0.5), figures("shop", "stock"), figures("batch", "stock", None)]
    shown = await traffic_map(pairs, "1m")
    data = json.loads(shown.data)
    nodes = [name for name, _, _ in data["nodes"]]
    edges = {
        (nodes[caller], nodes[callee]): (number, state, lines)
        for caller, callee, number, state, lines, _ in data["pairs"]
    }
    assert edges == {
        ("web", "shop"): (10, "unhealthy", ["unhealthy", "50.0 % fail", "errors"]),
        ("shop", "stock"): (10, "healthy", ["10/s"]),
        ("batch", "stock"): (0, "no traffic", ["no traffic"]),
    }
    assert (shown.services, shown.pairs_left_out) == (4, 0)


async def test_the_map_keeps_its_order_while_numbers_change() -> None:
    """Else it would be laid out anew every five seconds."""
    orders = []
    for success in (1.0, 0.2):
        pairs = [figures("web", "shop", success), figures("web", "stock"), figures("shop", "stock")]
        data = json.loads((await traffic_map(pairs, "1m")).data)
        orders.append((data["nodes"], [edge[:2] for edge in data["pairs"]]))
    assert orders[0] == orders[1]


async def test_callers_of_each_zone_are_nodes_of_their_own() -> None:
    """One zone that fails is seen beside one that does not."""
    pairs = [figures(location="eu/a"), figures(location="eu/b", success=0.0)]
    data = json.loads((await traffic_map(pairs, "1m")).data)
    assert [node[:2] for node in data["nodes"]] == [["web", "eu/a"], ["shop", ""], ["web", "eu/b"]]
    assert [edge[3] for edge in data["pairs"]] == ["healthy", "unhealthy"]


async def test_names_are_data() -> None:
    """Whatever a service is called, its address is quoted and its name is JSON."""
    name = "evil.~:@-service"
    data = json.loads((await traffic_map([figures(name, "shop")], "1m")).data)
    assert data["nodes"][0] == [name, "", "/ui/services/evil.~%3A%40-service"]
