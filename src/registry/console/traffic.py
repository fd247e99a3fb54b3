"""The page of traffic: who calls whom, as a map and as a table of all pairs."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from registry.console.listing import Page, matches, page_of
from registry.console.page import Framed
from registry.console.traffic_rows import pair_row, traffic_map
from registry.cooperative import cooperatively, in_order
from registry.core.traffic import PairFigures, Window
from registry.core.traffic_map import PairState, rank, state_of
from registry.http.dependencies import READY, Reader, TrafficPart

router = APIRouter(dependencies=[READY])

Sort = Literal["state", "caller", "callee", "requests", "success", "p99", "timeouts"]
_Key = Callable[[PairFigures], tuple[float | str, ...]]
_SORTS: dict[Sort, _Key] = {
    "caller": lambda pair: (pair.caller, pair.location, pair.callee),
    "callee": lambda pair: (pair.callee, pair.caller, pair.location),
    "requests": lambda pair: (-pair.requests_per_second, *_names(pair)),
    # What has no traffic has neither success nor latency, and comes last.
    "success": lambda pair: (2.0 if pair.success is None else pair.success, *_names(pair)),
    "p99": lambda pair: (-(pair.p99 or 0), *_names(pair)),
    "timeouts": lambda pair: (-pair.reasons.timeouts, *_names(pair)),
}
"""By the column that a table is sorted by; ``state`` is the order of ``rank``."""


@router.get("/traffic")
async def show_traffic(  # noqa: PLR0913  # the parts of the page, and one argument a filter
    traffic: TrafficPart,
    reader: Reader,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    window: Window = "1m",
    by: Literal["", "zone"] = "",
    sort: Sort = "state",
    page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """Show the pairs that the reader may see, those that fail first."""
    figures = await traffic.pairs(reader, window, by_location=by == "zone")
    pairs = figures.pairs
    # Discovery goes on in between: there may be thousands of pairs.
    states: Counter[PairState] = Counter()
    matching = []
    async for pair in cooperatively(pairs):
        states[state_of(pair.success)] += 1
        if matches(q, pair.caller, pair.callee, pair.location):
            matching.append(pair)
    ordered = await in_order(matching, rank)
    map_ = await traffic_map(ordered, window)
    shown = page_of(ordered if sort == "state" else await in_order(matching, _SORTS[sort]), page)
    rows = Page([pair_row(pair, window) for pair in shown.items], shown.total, shown.number, shown.last)
    return frame.page(
        "traffic.html",
        headline=_headline(states, len(pairs)),
        map=map_,
        rows=rows,
        total=len(pairs),
        states=states,
        complete=figures.complete,
        dropped=figures.dropped,
        q=q,
        window=window,
        by=by,
        sort=sort,
    )


def _names(pair: PairFigures) -> tuple[str, str, str]:
    return pair.caller, pair.callee, pair.location


def _headline(states: Mapping[PairState, int], total: int) -> str:
    """Return the state of all pairs that the reader may see, as a sentence."""
    if not total:
        return "No Envoy reports traffic"
    unhealthy, degraded = states["unhealthy"], states["degraded"]
    if unhealthy and degraded:
        return f"{unhealthy + degraded} of {total} pairs fail: {unhealthy} unhealthy, {degraded} degraded"
    if unhealthy or degraded:
        state = "unhealthy" if unhealthy else "degraded"
        return f"{unhealthy or degraded} of {total} {'pair is' if total == 1 else 'pairs are'} {state}"
    if states["healthy"] > 1:
        return f"All {states['healthy']} pairs with traffic are healthy"
    return "The pair with traffic is healthy" if states["healthy"] else "No pair has traffic"
