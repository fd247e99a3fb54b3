"""Figures of pairs, from digests of Envoys that come, go, restart and report to several processes."""

import itertools
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.cooperative import at_once
from registry.core.traffic import PairFigures, Reporting
from registry.core.traffic_figures import AgedImage, Figures, figures_in_steps
from registry.core.traffic_table import TrafficTable
from registry.errors import LimitError
from wire.traffic_digest import MAX_COUNT, Edge, EdgeCounts, Route, RouteCounts, TrafficDigest

_sequence = itertools.count(1)


def digest(
    node: str = "i-1",
    completed: int = 100,
    failures: int = 0,
    seconds: float = 10.0,
    *,
    caller: str = "checkout",
    callee: str = "payments",
    zone: str = "a",
    buckets: tuple[int, ...] = (),
    healthy: int = 3,
    total: int = 3,
    routes: tuple[Route, ...] = (),
    sequence: int | None = None,
    sender: str = "",
) -> TrafficDigest:
    """Return the digest of an Envoy."""
    counts = EdgeCounts(completed=completed, failures=failures, active=1, healthy=healthy, total=total)
    edges = (Edge(callee, counts, buckets),) if completed else ()
    return TrafficDigest(
        caller=caller,
        node=node,
        seconds=seconds,
        sequence=next(_sequence) if sequence is None else sequence,
        sender=sender,
        zone=zone,
        edges=edges,
        routes=routes,
    )


def figures(*tables: TrafficTable, now: float, window: str = "1m", expected: int = 0, **more: bool) -> Figures:
    """Return the figures of some processes at a moment."""
    images = [AgedImage(table.image(now), 0.0) for table in tables]
    return at_once(figures_in_steps(images, window, lambda _: expected, **more))  # type: ignore[arg-type]


def only(pairs: Iterable[PairFigures]) -> PairFigures:
    """Return the only pair."""
    (pair,) = pairs
    return pair


def feed(table: TrafficTable, node: str, times: Iterable[float], completed: int = 100, seconds: float = 10.0) -> None:
    """Add a digest at each of these times."""
    for now in times:
        table.take(digest(node, completed, seconds=seconds), now)


@given(offset=st.floats(0, 10), jitter=st.lists(st.floats(-1.5, 1.5), min_size=20, max_size=20))
def test_the_rate_of_a_steady_envoy_is_its_rate(offset: float, jitter: list[float]) -> None:
    """However its digests fall into slots: 10 requests a second are shown as 10."""
    table, last = TrafficTable(100), 1000.0
    for number, early in enumerate(jitter):
        now = 1010.0 + 10 * number + early
        table.take(digest(completed=round(10 * (now - last)), seconds=now - last), now)
        last = now
    pair = only(figures(table, now=last + offset).pairs())
    assert pair.requests_per_second == pytest.approx(10, rel=0.06)


def test_two_envoys_of_a_service_are_added_up() -> None:
    """One of them in another zone; by location they are two."""
    table = TrafficTable(100)
    for now in range(1010, 1100, 10):
        table.take(digest("i-1", 100), now)
        table.take(digest("i-2", 50, 50, zone="b", healthy=1), now + 3)
    found = figures(table, now=1095.0)
    pair = only(found.pairs())
    assert pair.requests_per_second == pytest.approx(15, rel=0.05)
    assert pair.success == pytest.approx(2 / 3, rel=0.1)
    assert (pair.healthy, pair.total, pair.location) == (1, 3, "")
    assert pair.reporting == Reporting(2, 2)
    near, far = figures(table, now=1095.0, by_location=True).pairs()
    assert (near.location, near.success, near.healthy) == ("a", 1.0, 3)
    assert (far.location, far.success, far.healthy) == ("b", 0.0, 1)
    assert near.requests_per_second + far.requests_per_second == pytest.approx(15, rel=0.05)


def test_a_deploy_does_not_double_the_rate() -> None:
    """Three Envoys are replaced by three others, and the traffic stays the same."""
    table = TrafficTable(100)
    for node in ("a", "b", "c"):
        feed(table, node, range(1010, 1100, 10))
    for node in ("d", "e", "f"):
        feed(table, node, range(1100, 1130, 10))
    pair = only(figures(table, now=1121.0).pairs())
    assert pair.requests_per_second == pytest.approx(30, rel=0.2)


def test_an_envoy_in_its_first_seconds_has_its_rate() -> None:
    """A window is not divided by a minute when ten seconds of it are known."""
    table = TrafficTable(100)
    feed(table, "i-1", [1010.0])
    assert only(figures(table, now=1011.0).pairs()).requests_per_second == pytest.approx(10, rel=0.1)


def test_no_traffic_is_not_success() -> None:
    """A caller that went silent an hour ago, and one that only has requests under way."""
    table = TrafficTable(100)
    feed(table, "i-1", [1010.0])
    feed(table, "i-1", range(1020, 1200, 10), completed=0)
    pair = only(figures(table, now=1195.0).pairs())
    assert (pair.requests, pair.success, pair.p50, pair.requests_per_second) == (0, None, None, 0.0)
    assert pair.reporting == Reporting(1, 1)
    assert only(figures(table, now=1195.0, window="10m").pairs()).success == 1.0


def test_half_of_the_envoys_are_said_to_report() -> None:
    """Of four instances two have an Envoy that reports, and one of these has stopped."""
    table = TrafficTable(100)
    feed(table, "i-1", range(1010, 1100, 10))
    feed(table, "i-2", range(1010, 1060, 10))
    pair = only(figures(table, now=1091.0, expected=4).pairs())
    assert pair.reporting == Reporting(1, 4)
    assert not pair.reporting.complete
    assert only(figures(table, now=1091.0).pairs()).reporting == Reporting(1, 2)
    assert pair.age == pytest.approx(1.0)


def test_a_repetition_counts_once() -> None:
    """A digest that was sent again on a new connection has the number of the one before."""
    table = TrafficTable(100)
    assert table.take(digest(sequence=7), 1000.0)
    assert not table.take(digest(sequence=7), 1001.0)
    assert only(figures(table, now=1002.0).pairs()).requests == 100


def test_processes_are_added_up_whatever_their_clocks_say() -> None:
    """An Envoy whose registrar moved on to another process is one Envoy, and its rate is the same."""
    first, second = TrafficTable(100), TrafficTable(100)
    feed(first, "i-1", range(1010, 1060, 10))
    feed(second, "i-1", range(900_060, 900_100, 10))
    images = [AgedImage(first.image(1060.0), 35.0), AgedImage(second.image(900_095.0), 0.0)]
    pair = only(at_once(figures_in_steps(images, "1m", lambda _: 1)).pairs())
    assert pair.reporting == Reporting(1, 1)
    assert pair.requests_per_second == pytest.approx(10, rel=0.1)
    assert pair.age == pytest.approx(5.0)


def test_pairs_beyond_the_limit_displace_the_least_busy() -> None:
    """And they are counted, so that a map that lacks some can say so."""
    table = TrafficTable(10)
    for number in range(10):
        table.take(digest(completed=10 + number, callee=f"s{number}"), 1000.0)
    table.take(digest(completed=5, callee="new"), 1001.0)
    callees = {pair.callee for pair in figures(table, now=1002.0).pairs()}
    assert callees == {*(f"s{number}" for number in range(1, 10)), "new"}
    assert (len(table), table.take_dropped(), table.take_dropped()) == (10, {("", "checkout"): 1}, {})


def test_what_is_silent_for_an_hour_is_forgotten() -> None:
    """Pairs, routes and Envoys: a service that was deleted does not stay on the map."""
    table = TrafficTable(100)
    routes = (Route("payments", "refund", RouteCounts(4, 0, 1), (3, 4)),)
    table.take(digest(routes=routes), 1000.0)
    assert [each.route for each in figures(table, now=1001.0).routes("payments")] == ["refund"]
    assert list(table.forget_in_steps(1000.0 + 3_500))
    assert len(table) == 1
    assert list(table.forget_in_steps(1000.0 + 3_700))
    assert len(table) == 0
    assert table.image(5000.0).reporters == []
    assert figures(table, now=5000.0).routes("payments") == []


def test_routes_have_figures_of_their_own() -> None:
    """By caller and route, for one callee."""
    table = TrafficTable(100)
    routes = (
        Route("payments", "refund", RouteCounts(40, 0, 10), (33, 40)),
        Route("payments", "pay", RouteCounts(60, 6, 0), (17, 60)),
        Route("users", "get", RouteCounts(1, 0, 0)),
    )
    table.take(digest(routes=routes), 1000.0)
    pay, refund = figures(table, now=1000.0).routes("payments")
    assert (pay.route, pay.success, pay.client_errors) == ("pay", 1.0, 6)
    assert (refund.route, refund.success, refund.requests) == ("refund", 0.75, 40)
    assert refund.p50 == pytest.approx(107.5, rel=0.01)


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(1, 1000), st.integers(0, 1)), max_size=40
    )
)
def test_sums_are_exact(sent: list[tuple[str, str, int, int]]) -> None:
    """Whichever process a digest went to, the requests of a pair are those that were sent."""
    tables = TrafficTable(100), TrafficTable(100)
    plain: dict[tuple[str, str], int] = {}
    for number, (caller, callee, completed, process) in enumerate(sent):
        tables[process].take(digest(caller=caller, callee=callee, completed=completed), 1000.0 + number)
        plain[caller, callee] = plain.get((caller, callee), 0) + completed
    found = {(pair.caller, pair.callee): pair.requests for pair in figures(*tables, now=1050.0).pairs()}
    assert found == plain


def test_absurd_digests_can_be_told_to_other_processes() -> None:
    """The largest numbers of many digests, each with the same callee many times, do not outgrow msgpack's integers."""
    table = TrafficTable(100)
    most = Edge("payments", EdgeCounts(*[MAX_COUNT] * 11), (3, MAX_COUNT))
    for number in range(30):
        absurd = msgspec.structs.replace(digest("i-1"), edges=(most,) * 200)
        table.take(absurd, 1000.0 + number)
    assert msgspec.msgpack.encode(table.image(1030.0))
    assert msgspec.msgpack.encode(list(table.totals()))
    assert only(figures(table, now=1030.0).pairs()).success == 0.0


def test_a_flood_of_names_costs_its_sender_alone() -> None:
    """Of callers, callees, zones, routes and node ids: all is bounded, and what others report stays."""
    table = TrafficTable(40)
    honest = Route("payments", "refund", RouteCounts(4, 0, 1))
    for number in range(400):
        now = 1000.0 + number / 100
        table.take(digest("i-1", completed=1, routes=(honest,)), now, principal="token:shop")
        for caller, callee, zone in ((f"c-{number}", "x", "a"), ("c", f"x-{number}", "a"), ("c", "x", f"z-{number}")):
            routes = (Route("x", f"r-{number}", RouteCounts(1000, 0, 0)),)
            flood = digest(f"n-{number}", 1000, caller=caller, callee=callee, zone=zone, routes=routes)
            table.take(flood, now, principal="token:bad")
    image = table.image(1004.0)
    assert max(len(image.pairs), len(image.routes), len(image.callers)) <= 40
    assert ("checkout", "payments") in {(each.caller, each.callee) for each in image.pairs}
    assert ("checkout", "refund") in {(each.caller, each.route) for each in image.routes}
    assert ("checkout", "a") in {(each.caller, each.location) for each in image.callers}
    assert {principal for principal, _ in table.take_dropped()} == {"token:bad"}
    found = {pair.caller: pair for pair in figures(table, now=1004.0).pairs()}
    assert found["checkout"].requests == 400


def test_envoys_that_are_forged_push_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Envoys that a process remembers are shared as pairs are."""
    monkeypatch.setattr("registry.core.traffic_table.MAX_REPORTERS", 50)
    table = TrafficTable(100)
    table.take(digest("i-1"), 1000.0, principal="token:shop")
    for number in range(200):
        table.take(digest(f"n-{number}", caller="bad"), 1001.0 + number / 100, principal="token:bad")
    reporters = [each.caller for each in table.image(1003.0).reporters]
    assert (reporters.count("checkout"), len(reporters) <= 50) == (1, True)


def test_the_rate_of_digests_is_limited_by_envoy_and_by_principal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many node ids do not give a principal more than its part; others are not refused."""
    monkeypatch.setattr("registry.core.traffic_table.MAX_DIGESTS", 100)
    table = TrafficTable(100)

    def send(principal: str, node: str, sender: str = "") -> None:
        sent = digest(node, sender=sender)
        table.check_rate(sent, principal, 1000.0)
        table.take(sent, 1000.0, principal=principal)

    for _ in range(30):
        send("token:bad", "i-1", "a")
    with pytest.raises(LimitError, match="node i-1 of checkout has sent 30 digests"):
        send("token:bad", "i-1", "a")
    for number in range(70):
        send("token:bad", f"n-{number}")
    with pytest.raises(LimitError, match="token:bad has sent more than its part"):
        send("token:bad", "n-new")
    for number in range(20):
        send("token:shop", f"n-{number}")


def test_envoys_that_share_a_node_id_are_added_up() -> None:
    """As from a copied bootstrap: three Envoys with one id have three times the rate, and are three."""
    table = TrafficTable(100)
    for now in range(1010, 1100, 10):
        for number in range(3):
            sent = digest("copied", 100, sender=f"s-{number}", sequence=now)
            assert table.take(sent, now + number)
            assert not table.take(sent, now + number + 0.5)
    pair = only(figures(table, now=1095.0, expected=3).pairs())
    assert pair.requests_per_second == pytest.approx(30, rel=0.05)
    assert pair.reporting == Reporting(3, 3)


def test_the_work_for_many_envoys_and_pairs_can_be_interrupted() -> None:
    """A step for each of them, so that polls are answered in between."""
    table = TrafficTable(100)
    for number in range(500):
        table.take(digest(f"i-{number}", callee=f"s-{number % 100}"), 1000.0)
    assert sum(1 for _ in table.reporter_images(1001.0)) == 500
    images = [AgedImage(table.image(1001.0), 0.0)]
    assert sum(1 for _ in figures_in_steps(images, "1m", lambda _: 1)) >= 1000
    assert sum(1 for _ in figures(table, now=1001.0).pairs_in_steps(None, None)) >= 100
    assert sum(1 for _ in table.forget_in_steps(1001.0)) >= 600


def test_a_pair_that_begins_to_fail_is_noticed_once() -> None:
    """When 5 % of its last minute have failed; others have been told then, and are told when another one does."""
    table = TrafficTable(100)
    for now in range(1010, 1070, 10):
        table.take(digest(callee="payments"), now)
        table.take(digest("i-2", callee="users"), now)
        assert not at_once(table.begins_to_fail_in_steps())
    table.take(digest(failures=30), 1070.0)
    assert not at_once(table.begins_to_fail_in_steps())
    table.take(digest(failures=100), 1080.0)
    assert at_once(table.begins_to_fail_in_steps())
    at_once(table.note_failing_in_steps(table.image(1081.0)))
    table.take(digest(failures=100), 1090.0)
    assert not at_once(table.begins_to_fail_in_steps())
    table.take(digest("i-2", failures=100, callee="users"), 1090.0)
    assert at_once(table.begins_to_fail_in_steps())
    # It recovers, others are told, and it fails again.
    for now in range(1100, 1190, 10):
        table.take(digest(), now)
    at_once(table.note_failing_in_steps(table.image(1190.0)))
    table.take(digest(failures=100), 1200.0)
    assert at_once(table.begins_to_fail_in_steps())


def test_a_registrar_that_was_restarted_is_one_envoy() -> None:
    """Its digests have another sender after it; the rate is the same at each moment, in one process and in two."""
    for other in (None, TrafficTable(100)):
        table = TrafficTable(100)
        for now in range(1010, 1060, 10):
            table.take(digest("i-1", sender="before"), now)
        for now in range(1070, 1150, 10):
            (other or table).take(digest("i-1", sender="after"), now)
            tables = (table,) if other is None else (table, other)
            pair = only(figures(*tables, now=now + 1.0).pairs())
            assert pair.reporting == Reporting(1, 1)
            assert pair.requests_per_second == pytest.approx(10, rel=0.12)


def test_a_process_that_a_caller_has_left_says_nothing_of_the_callee() -> None:
    """It knows the pair for an hour, and the callee has recovered meanwhile."""
    left, current = TrafficTable(10), TrafficTable(10)
    left.take(digest(healthy=0), 1000.0)
    for number in range(12):
        current.take(digest(), 1010.0 + 10 * number)
    assert only(figures(left, current, now=1021.0).pairs()).healthy == 0
    for tables in ((left, current), (current, left)):
        pair = only(figures(*tables, now=1121.0).pairs())
        assert (pair.healthy, pair.total) == (3, 3)
