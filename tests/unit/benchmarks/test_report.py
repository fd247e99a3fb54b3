"""What the benchmarks make of their measurements: ratios, bars, and the page."""

import io

import pytest
from rich.console import Console

from benchmarks import page
from benchmarks.machine import this_machine
from benchmarks.report import Part
from benchmarks.rounds import interleaved, percentile


@pytest.fixture
def part() -> Part:
    """A report that has nothing in it yet."""
    return Part("speed", "Speed", this_machine())


def test_sides_take_turns_and_none_is_always_first() -> None:
    """In each round each side runs once; the round after begins with the next side."""
    assert list(interleaved("abc", 3)) == list("abc" + "bca" + "cab")


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """It is never interpolated, and the largest at most."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [51, 100, 100]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_a_ratio_is_taken_round_by_round(part: Part) -> None:
    """A machine that gets slower from round to round does not change who is faster."""
    bar = part.ratio("ours", [100, 50, 10], [50, 25, 5], at_least=2)
    assert bar.values == [2, 2, 2]
    assert bar.met


@pytest.mark.parametrize(
    ("values", "met"),
    [([9.0, 10.0, 99.0], True), ([9.0, 9.5, 99.0], False), ([], None)],
    ids=["median within", "median below", "nothing measured"],
)
def test_a_bar_judges_the_median(part: Part, values: list[float], met: bool | None) -> None:
    """One good round does not meet a bar, and what was not measured neither meets nor misses it."""
    assert part.bar("polls", values, "x", at_least=10).met is met


def test_an_upper_bar_is_missed_above_it(part: Part) -> None:
    """A bar may be an upper one."""
    assert part.bar("lag", [15.0], "ms", at_most=15).met
    assert part.bar("lag", [15.1], "ms", at_most=15).met is False


def test_a_column_that_a_table_does_not_have_is_refused(part: Part) -> None:
    """A misspelt figure would be lost without a word."""
    with pytest.raises(ValueError, match="rats"):
        part.table("speed", rate="polls/s").add("registry", rats=1)


def test_the_page_has_ranges_bars_and_what_was_left_out(
    part: Part, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to read the numbers to find a missed bar, or the name of a peer that was not there."""
    table = part.table("a hundred", rate="polls/s")
    for rate in (52_800, 47_400, 50_000):
        table.add("registry", rate=rate)
    part.ratio("against nginx", table.values("registry", "rate"), [100_000, 100_000, 100_000], at_least=0.6, goal=1)
    part.ratio("against etcd", table.values("registry", "rate"), table.values("etcd", "rate"), at_least=1)
    part.leave_out("etcd", "it is not installed")
    monkeypatch.setattr(page, "PAGE", tmp_path_factory.mktemp("page") / "RESULTS.md")
    page.write([part], {})
    text = page.PAGE.read_text()
    assert "| registry | 50,000 (47,400 to 52,800) |" in text
    assert "| against nginx | 0.5 (0.474 to 0.528) x | ≥ 0.6 x | 1 x | **missed** |" in text
    assert "| against etcd | - | ≥ 1 x |  | not measured |" in text
    assert "Left out: etcd: it is not installed" in text
    assert str(part.machine) in text


def test_the_terminal_says_the_same(part: Part) -> None:
    """Who runs a benchmark need not open the page."""
    part.bar("lag", [20.0], "ms", at_most=15)
    said = io.StringIO()
    page.show(Console(file=said, width=120), part)
    assert "missed  lag: 20 ms, bar ≤ 15 ms" in said.getvalue()
