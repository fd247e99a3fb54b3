"""Pairs of callers and callees as the console shows them: words, rows, and the data of the map."""

import math
from collections.abc import Sequence
from urllib.parse import quote

from msgspec import Raw, Struct
from msgspec.json import encode

from registry.cooperative import cooperatively, in_order, in_turns
from registry.core.traffic import WINDOW_SECONDS, PairFigures, Window
from registry.core.traffic_map import Node, PairState, ends, rank, select_in_steps, state_of

_MAX_NEIGHBOURS = 20
"""Callers and callees that the page of a service shows, each."""
_COMMON = 0.1
"""Rates from which one decimal is enough."""
_MANY = 9.95
"""Rates from which no decimal is needed."""


class PairRow(Struct, frozen=True):
    """A pair in words; what is not known is empty.

    Attributes:
        figures: the numbers.
        state: the pair's state.
        rate: completed requests a second.
        success: the percentage of them that did not fail; "no traffic" without requests.
        latencies: p50, p95 and p99.
        timeouts: requests a second that timed out, which are in no latency.
        reasons: the other reasons of failures, with their rates.
        healthy: the endpoints that may be sent to, of those that the Envoys know.
        reporting: how many of the Envoys of the caller report; empty: all do.
    """

    figures: PairFigures
    state: PairState
    rate: str
    success: str
    latencies: tuple[str, str, str]
    timeouts: str
    reasons: Sequence[str]
    healthy: str
    reporting: str

    @property
    def failed(self) -> str:
        """The percentage of requests that failed, where that is more than is healthy."""
        success = self.figures.success
        return "" if success is None or self.state == "healthy" else f"{percent(1 - success)} fail"


class TrafficMap(Struct, frozen=True):
    """The map: its data for the script, and the numbers of what it shows and leaves out."""

    data: str
    pairs: int
    services: int
    pairs_left_out: int
    services_left_out: int


class Neighbours(Struct, frozen=True):
    """The callers and the callees of one service, those that fail first, and the numbers of those not shown."""

    callers: Sequence[PairRow]
    callees: Sequence[PairRow]
    more_callers: int
    more_callees: int


async def neighbours(callers: Sequence[PairFigures], callees: Sequence[PairFigures]) -> Neighbours:
    """Return what the page of a service shows of its traffic in the last minute; discovery goes on in between."""
    shown = [
        [pair_row(figures, "1m") for figures in (await in_order(pairs, rank))[:_MAX_NEIGHBOURS]]
        for pairs in (callers, callees)
    ]
    return Neighbours(
        shown[0], shown[1], max(0, len(callers) - _MAX_NEIGHBOURS), max(0, len(callees) - _MAX_NEIGHBOURS)
    )


def pair_row(figures: PairFigures, window: Window) -> PairRow:
    """Return a pair in words."""
    reasons, reporting = figures.reasons, figures.reporting
    # A process that started within the window knows less of it; the rate of the requests says how much.
    known = figures.requests / figures.requests_per_second if figures.requests_per_second else WINDOW_SECONDS[window]
    counted = (
        ("no healthy endpoint", reasons.none_healthy),
        ("circuit breaker", reasons.overflows),
        ("connection failed", reasons.connect_failures),
        ("answered with an error", figures.answered_with_an_error),
        ("retried", reasons.retries),
        ("4xx", reasons.client_errors),
    )
    return PairRow(
        figures,
        state_of(figures.success),
        rate(figures.requests_per_second),
        "no traffic" if figures.success is None else percent(figures.success),
        (milliseconds(figures.p50), milliseconds(figures.p95), milliseconds(figures.p99)),
        f"{rate(reasons.timeouts / known)}/s" if reasons.timeouts else "none",
        [f"{words} {rate(count / known)}/s" for words, count in counted if count],
        f"{figures.healthy} of {figures.total}",
        "" if reporting.complete else f"{reporting.reported} of {reporting.expected} Envoys",
    )


def rate(number: float) -> str:
    """Return a rate with as many digits as matter, so that a small one is not nothing."""
    if number == 0:
        return "0"
    if number >= _MANY:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= _COMMON else f"{number:.2g}"


def percent(part: float) -> str:
    """Return a part of 1 in percent, never rounded up to a hundred or down to nothing."""
    # What is left of 1 - 0.99 is a little more or less than a hundredth.
    hundreds = round(part * 100, 9)
    digits = 0 if hundreds in (0, 100) else 2 if hundreds > 99 or hundreds < 1 else 1
    rounded = math.floor(hundreds * 10**digits) / 10**digits
    return "< 0.01 %" if hundreds > 0 and rounded == 0 else f"{rounded:.{digits}f} %"


def milliseconds(number: float | None) -> str:
    """Return a latency; Envoy counts whole milliseconds, and below one there is nothing to tell."""
    if number is None:
        return ""
    return "< 1 ms" if number < 1 else f"{number:,.0f} ms"


async def traffic_map(pairs: Sequence[PairFigures], window: Window) -> TrafficMap:
    """Return the map of the first pairs, which are those that fail and the busiest ones.

    Its order is that of the names, so that a pair whose numbers change stays where it is. Discovery goes on in between:
    between 60 services there may be 3,600 pairs.
    """
    selection = await in_turns(select_in_steps(pairs))
    shown = await in_order(selection.pairs, ends)
    nodes: dict[Node, int] = {}
    edges = []
    async for pair in cooperatively(shown):
        caller, callee = (nodes.setdefault(end, len(nodes)) for end in ends(pair))
        row = pair_row(pair, window)
        edge = (caller, callee, pair.requests_per_second, row.state, _label(row), _words(row))
        edges.append(Raw(encode(edge)))
    data = {"nodes": [(name, place, f"/ui/services/{quote(name)}") for name, place in nodes], "pairs": edges}
    return TrafficMap(
        encode(data).decode(), len(shown), selection.services, selection.pairs_left_out, selection.services_left_out
    )


def _label(row: PairRow) -> tuple[str, ...]:
    """Return the lines beside an edge: its requests, or the state and reason of its failures."""
    if row.state == "healthy":
        return (f"{row.rate}/s",)
    return (row.state, row.failed, _cause(row.figures)) if row.failed else (row.state,)


def _cause(figures: PairFigures) -> str:
    """Return the reason of most failures in a word or two."""
    reasons = figures.reasons
    counted = {
        "errors": figures.answered_with_an_error,
        "breaker": reasons.overflows,
        "timed out": reasons.timeouts,
        "no endpoint": reasons.none_healthy,
        "no connection": reasons.connect_failures,
    }
    return max(counted, key=lambda words: counted[words])


def _words(row: PairRow) -> str:
    """Return what an edge says when it is pointed at."""
    figures = row.figures
    place = f" in {figures.location}" if figures.location else ""
    parts = [f"{figures.caller}{place} to {figures.callee}: {row.state}", f"{row.rate} requests/s"]
    if figures.success is not None:
        parts.append(f"success {row.success}")
    if row.latencies[2]:
        parts.append(f"99 % within {row.latencies[2]}")
    return ", ".join([*parts, f"timeouts {row.timeouts}", *row.reasons, f"{row.healthy} endpoints healthy"])
