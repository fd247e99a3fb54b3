"""The errand `top`: what taps saw, added up by method and path."""

import asyncio
import re
from collections.abc import Iterable

from registrar.errands.admin import ErrandAdmin
from registrar.errands.tap import choose_filter, tapped
from wire.errand import MAX_TRACES, Grouping, Top, TopResult, TopRow, Trace, printable

MAX_ROWS = 100
"""Rows of a result."""
MAX_REQUESTS = 2000
"""Requests that are added up at most."""
_MAX_SEGMENTS = 8
"""Segments of a path that are told apart."""
_FAILED_GRPC = frozenset({"2", "4", "8", "12", "13", "14", "15"})
"""The gRPC statuses that are failures of the service, as Envoy's figures count them."""
_ID = re.compile(
    r"^(?:[0-9]+|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|(?=.*[0-9])[0-9a-fA-F]{8,}|(?=.*[0-9])[A-Za-z0-9_~=%.+-]{16,}"
    r"|[^/]{33,}|.*@.*)$"
)
"""Segments of a path that name one thing of many: numbers, UUIDs, hashes, tokens, addresses."""


async def look(admin: ErrandAdmin, wanted: Top, callee: str) -> TopResult:
    """Return the requests of a while, added up, from one tap behind the other: Envoy ends each after 50 requests.

    Raises:
        EnvoyAdminError, RefusedError: as those of a tap.
    """
    loop = asyncio.get_running_loop()
    config_id = await choose_filter(admin, wanted, callee)
    began = loop.time()
    traces: list[Trace] = []
    while (left := round(wanted.seconds - (loop.time() - began))) >= 1 and len(traces) < MAX_REQUESTS:
        traces += await tapped(admin, wanted, callee, config_id, MAX_TRACES, left)
    rows = add_up(traces, wanted.by)
    seconds = round(loop.time() - began, 1)
    left_out = max(0, len(rows) - MAX_ROWS)
    return TopResult(printable(config_id), seconds, wanted.percent, rows[:MAX_ROWS], left_out)


def add_up(traces: Iterable[Trace], by: Grouping) -> list[TopRow]:
    """Return a row for each method and path, or for each method, those with the most requests first."""
    groups: dict[tuple[str, str], list[Trace]] = {}
    for trace in traces:
        groups.setdefault((trace.method, fold(trace.path) if by == "path" else ""), []).append(trace)
    rows = [_row(method, path, group) for (method, path), group in groups.items()]
    return sorted(rows, key=lambda row: (-row.requests, row.path, row.method))


def _row(method: str, path: str, group: list[Trace]) -> TopRow:
    times = sorted(float(each.upstream_milliseconds) for each in group if each.upstream_milliseconds.isdecimal())
    failures = sum(each.status.startswith("5") or each.grpc_status in _FAILED_GRPC for each in group)
    if not times:
        return TopRow(method, path, len(group), failures)
    return TopRow(method, path, len(group), failures, times[(len(times) - 1) // 2], times[-1])


def fold(path: str) -> str:
    """Return a path with its ids replaced by ``{id}``, and cut: `/users/4711/cart` is `/users/{id}/cart`."""
    segments = path.split("/")
    folded = ["{id}" if _ID.match(segment) else segment for segment in segments[: _MAX_SEGMENTS + 1]]
    return "/".join(folded) + ("/…" if len(segments) > len(folded) else "")
