"""What a fleet costs, by the unit costs that were measured: the tables of docs/scaling.md."""

import math
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from benchmarks.report import Part

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
_MARKS = re.compile(r"(<!-- sizing: written by make bench -->\n).*?(<!-- end -->)", re.DOTALL)
_MISSING = "not measured yet"
_FULL = 0.5
"""Cores that a process may need on average: the rest is for moments."""
_MOST_HELD = 50_000
"""Polls that a process may hold, each with a connection of its own: there are 65,536 file descriptors."""


class Unit(Struct, frozen=True):
    """A unit cost: its letter in the formulas, what it is of, and where it was measured."""

    letter: str
    what: str
    unit: str
    part: str
    table: str
    """The beginning of its title."""
    row: str
    column: str
    of_streams: bool = False
    """Whether it is of gRPC streams; fleets are planned without them where it was not measured."""


UNITS = (
    Unit(
        "p", "CPU of a poll answered 200, 100 endpoints", "µs", "discovery", "100 endpoints, 200, 64", "registry", "cpu"
    ),
    Unit("u", "CPU of a poll answered 304", "µs", "discovery", "100 endpoints, 304", "registry", "cpu"),
    Unit("b", "CPU of a heartbeat, its PUT included", "µs", "heartbeats", "single, full body, 64", "registry", "cpu"),
    Unit("w", "WAL of a heartbeat", "B", "heartbeats", "The table of leases", "100,000 leases", "wal"),
    Unit(
        "c",
        "CPU of a change to a service of 1,000, and its answer",
        "ms",
        "scale",
        "One change",
        "1,000 endpoints",
        "cpu",
    ),
    Unit(
        "m",
        "memory of an endpoint in each process",
        "kB",
        "scale",
        "How each cost grows",
        "100,000 endpoints",
        "renewed",
    ),
    Unit("h", "memory of a held poll", "kB", "scale", "What else a process holds", "a held poll", "kilobytes"),
    Unit(
        "e", "memory of an empty process", "kB", "scale", "What else a process holds", "an empty process", "kilobytes"
    ),
    Unit(
        "i",
        "idle CPU with 100,000 endpoints",
        "% of a core",
        "scale",
        "How each cost grows",
        "100,000 endpoints",
        "cpu",
    ),
    Unit(
        "q",
        "CPU of a push to a stream, 100 endpoints",
        "µs",
        "streams",
        "1,000 streams, delta",
        "registry",
        "push",
        of_streams=True,
    ),
    Unit("t", "memory of an idle stream", "kB", "streams", "1,000 streams, delta", "registry", "idle", of_streams=True),
)


class Fleet(Struct, frozen=True):
    """What is to be carried: each Envoy polls some services and holds its polls; instances beat each ``interval``."""

    name: str
    envoys: int
    watched: int
    """Services that an Envoy polls."""
    endpoints: int
    per_service: int
    changes: float
    """A minute, of what Envoy sees, over all services."""
    interval: float = 5.0
    hold: float = 55.0


FLEETS = (
    Fleet("a few teams", envoys=200, watched=10, endpoints=500, per_service=10, changes=6),
    Fleet("a company", envoys=2_000, watched=20, endpoints=10_000, per_service=50, changes=60),
    Fleet("all of it in one registry", envoys=10_000, watched=20, endpoints=100_000, per_service=50, changes=600),
)


def write(parts: Iterable[Part]) -> None:
    """Write the unit costs and the worked examples into the page."""
    costs = {unit.letter: _measured(unit, {part.name: part for part in parts}) for unit in UNITS}
    lines = [*_units(costs), "", *_examples(costs)]
    PAGE.write_text(_MARKS.sub(lambda found: found[1] + "\n" + "\n".join(lines) + "\n\n" + found[2], PAGE.read_text()))


def _measured(unit: Unit, parts: Mapping[str, Part]) -> float | None:
    part = parts.get(unit.part)
    for table in part.tables if part else ():
        values = table.values(unit.row, unit.column)
        if table.title.startswith(unit.table) and values:
            return statistics.median(values)
    return None


def _units(costs: Mapping[str, float | None]) -> Iterator[str]:
    yield "| | unit cost | measured |"
    yield "|---|---|---:|"
    for unit in UNITS:
        cost = costs[unit.letter]
        yield f"| *{unit.letter}* | {unit.what} | {_MISSING if cost is None else f'{_number(cost)} {unit.unit}'} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _examples(costs: Mapping[str, float | None]) -> Iterator[str]:
    known = {letter: cost for letter, cost in costs.items() if cost is not None}
    if any(costs[unit.letter] is None for unit in UNITS if not unit.of_streams):
        yield f"The worked examples: {_MISSING}."
        return
    yield "| | " + " | ".join(fleet.name for fleet in FLEETS) + " |"
    yield "|---" + "|---:" * len(FLEETS) + "|"
    for name, figures in _figures(known).items():
        yield f"| {name} | " + " | ".join(figures) + " |"


def _figures(cost: Mapping[str, float]) -> dict[str, list[str]]:
    """Return the rows of the examples, a figure for each fleet."""
    rows: dict[str, list[str]] = {}
    for fleet in FLEETS:
        polls = fleet.envoys * fleet.watched
        services = fleet.endpoints / fleet.per_service
        beats = fleet.endpoints / fleet.interval
        unchanged = polls / fleet.hold
        pushed = fleet.changes / 60 * polls / services
        poll_cores = (unchanged * cost["u"] + pushed * cost["p"] * max(1.0, fleet.per_service / 100)) / 1e6
        beat_cores = beats * cost["b"] / 1e6
        change_cores = fleet.changes / 60 * cost["c"] * fleet.per_service / 1_000 / 1_000
        idle_cores = cost["i"] / 100 * fleet.endpoints / 100_000
        memory = (cost["e"] + fleet.endpoints * cost["m"]) / 1_000
        held = polls * cost["h"] / 1_000
        cores = poll_cores + beat_cores
        processes = max(math.ceil(cores / _FULL), math.ceil(polls / _MOST_HELD))
        return_seconds = polls * cost["p"] * max(1.0, fleet.per_service / 100) / 1e6
        figures = {
            "Envoys, services that each polls": f"{fleet.envoys:,}, {fleet.watched}",
            "endpoints, services": f"{fleet.endpoints:,}, {services:,.0f}",
            "held polls in all": f"{polls:,}",
            "polls answered a second: 304, 200": f"{unchanged:,.0f}, {pushed:,.0f}",
            "heartbeats a second": f"{beats:,.0f}",
            "cores for polls": f"{poll_cores:.2f}",
            "cores for heartbeats, without PostgreSQL's": f"{beat_cores:.2f}",
            "cores for changes, in each process": f"{change_cores:.3f}",
            "cores for looking on, in each process": f"{idle_cores:.3f}",
            "memory of each process, held polls apart": f"{memory:,.0f} MB",
            "memory of held polls, all processes together": f"{held:,.0f} MB",
            "WAL": f"{beats * cost['w'] / 1e6:,.2f} MB/s",
            "processes for polls: half a core and 50,000 held polls each": f"{processes}",
            "memory of all of them": f"{processes * memory + held:,.0f} MB",
            "CPU of the moment in which all Envoys come back, all processes together": f"{return_seconds:.1f} s",
        }
        if "q" in cost and "t" in cost:
            push_cores = pushed * cost["q"] * max(1.0, fleet.per_service / 100) / 1e6
            streams = max(math.ceil((push_cores + beat_cores) / _FULL), math.ceil(fleet.envoys / _MOST_HELD))
            figures |= {
                "with streams: cores for pushes": f"{push_cores:.2f}",
                "with streams: memory of streams": f"{fleet.envoys * cost['t'] / 1_000:,.0f} MB",
                "with streams: processes": f"{streams}",
            }
        for name, figure in figures.items():
            rows.setdefault(name, []).append(figure)
    return rows
