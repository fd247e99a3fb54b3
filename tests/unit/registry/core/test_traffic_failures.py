"""The pairs whose requests fail now: those that alerts are for, of all processes together."""

import itertools

import pytest

from registry.cooperative import at_once
from registry.core.traffic_failures import FailingPair, failing_pairs_in_steps, severity
from registry.core.traffic_table import TrafficTable
from wire.traffic_digest import Edge, EdgeCounts, TrafficDigest

_sequence = itertools.count(1)
NOW = 1000.0


def table(*edges: tuple[str, EdgeCounts], caller: str = "web", zone: str = "a", at: float = NOW) -> TrafficTable:
    """Return the table of a process that got one digest."""
    made = TrafficTable(100)
    add(made, *edges, caller=caller, zone=zone, at=at)
    return made


def add(made: TrafficTable, *edges: tuple[str, EdgeCounts], caller: str = "web", zone: str = "a", at: float) -> None:
    """Add a digest to a table."""
    sent = tuple(Edge(callee, counts, ()) for callee, counts in edges)
    made.take(
        TrafficDigest(caller=caller, node=zone, seconds=10.0, sequence=next(_sequence), zone=zone, edges=sent), at
    )


def failing(own: TrafficTable, *others: TrafficTable, now: float = NOW) -> list[FailingPair]:
    """Return the pairs that fail, with the tables of other processes."""
    found = at_once(failing_pairs_in_steps(own, [other.image(now).pairs for other in others], now))
    return sorted(found, key=severity)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (EdgeCounts(completed=0), False),
        (EdgeCounts(completed=100), False),
        (EdgeCounts(completed=2, failures=2), False),
        (EdgeCounts(completed=3, failures=3), True),
        (EdgeCounts(completed=300, failures=3), True),
        (EdgeCounts(completed=301, failures=3), False),
        (EdgeCounts(completed=9000, failures=1, overflows=1), True),
        (EdgeCounts(completed=9000, failures=1, none_healthy=1), True),
        # Retries healed these: users saw no failure, and neither do the alerts.
        (EdgeCounts(completed=9000, overflows=9, none_healthy=9, retries=18), False),
    ],
)
def test_a_pair_fails_by_the_bounds_of_the_alerts(counts: EdgeCounts, told: bool) -> None:
    """One percent of the requests and three of them, or a single one without endpoint or with an open breaker."""
    assert [pair.callee for pair in failing(table(("shop", counts)))] == (["shop"] if told else [])
    assert len(failing(TrafficTable(9), table(("shop", counts)))) == told


def test_what_leaves_the_window_fails_no_more() -> None:
    """A minute and a slot after the last failure the pair is well, although it is listed for an hour."""
    own = table(("shop", EdgeCounts(completed=10, failures=10)))
    assert failing(own, now=NOW + 60)
    assert not failing(own, now=NOW + 71)
    add(own, ("shop", EdgeCounts(completed=10)), at=NOW + 71)
    assert not failing(own, now=NOW + 71)


def test_processes_and_zones_are_added_up() -> None:
    """A pair that fails at one process alone fails by all of its requests; the one with the most failures is first."""
    own = table(("shop", EdgeCounts(completed=900)), ("cart", EdgeCounts(completed=100, failures=40)))
    add(own, ("shop", EdgeCounts(completed=50)), zone="b", at=NOW)
    other = table(("shop", EdgeCounts(completed=50, failures=50)), zone="b")
    expected = [("shop", 1000, 50), ("cart", 100, 40)]
    assert [(pair.callee, pair.requests, pair.failures) for pair in failing(own, other)] == expected
    assert [(pair.callee, pair.requests, pair.failures) for pair in failing(other, own)] == expected
    diluted = table(("shop", EdgeCounts(completed=99_000)))
    assert [pair.callee for pair in failing(own, other, diluted)] == ["cart"]


def test_other_pairs_are_not_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing fails no sums are made, so that it may be asked often."""
    own = table(*((f"callee-{number}", EdgeCounts(completed=10)) for number in range(50)))
    monkeypatch.setattr("registry.core.traffic_pair.PairTraffic.counts_of_last_minute", lambda *_: pytest.fail("added"))
    assert failing(own) == []
