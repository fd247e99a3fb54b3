"""The page of results: bars and ratios first, then every table, then what was left out."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid

from benchmarks.report import Bar, Part, Table

PAGE = Path(__file__).parent / "RESULTS.md"

_HEAD = """\
# Results

Written by `make bench`. Every figure is the median of several rounds, with the range in brackets; the sides of a
comparison ran in turn, in one run, on one machine, and shared its cores with the load. Compare the ratios: absolute
figures move with the machine.
"""
_VERDICTS = {True: "met", False: "**missed**", None: "not measured"}
_COLOURS = {True: "green", False: "red", None: "yellow"}
_NOTHING = "-"


def write(parts: Sequence[Part], plots: Mapping[str, Sequence[Path]]) -> None:
    """Write the page from all reports that are kept, and the plots that were drawn for them."""
    sections = [_HEAD, _bars(parts), *(_section(part, plots.get(part.name, ())) for part in parts)]
    PAGE.write_text("\n".join(sections))


def show(console: Console, part: Part) -> None:
    """Print a part's bars and tables."""
    for table in part.tables:
        grid = Grid(title=table.title, title_justify="left", title_style="bold")
        grid.add_column("")
        for head in table.columns.values():
            grid.add_column(head, justify="right")
        for cells in _rows(table):
            grid.add_row(*cells)
        console.print(grid)
    for bar in part.bars:
        colour = {True: "green", False: "red", None: "yellow"}[bar.met]
        console.print(
            f"[{colour}]{_VERDICTS[bar.met].strip('*'):>12}[/]  {bar.what}: {_measured(bar)}, bar {_bound(bar)}"
        )
    for left in part.left_out:
        console.print(f"[yellow]    left out[/]  {left.what}: {left.why}")


def _bars(parts: Iterable[Part]) -> str:
    lines = ["| | measured | bar | goal | |", "|---|---|---|---|---|"]
    for part in parts:
        for bar in part.bars:
            goal = "" if bar.goal is None else f"{_number(bar.goal)} {bar.unit}"
            lines.append(f"| {bar.what} | {_measured(bar)} | {_bound(bar)} | {goal} | {_VERDICTS[bar.met]} |")
    return "\n".join(["## Ratios and bars", "", *lines, ""])


def _section(part: Part, plots: Iterable[Path]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in part.machine.versions.items())
    lines = [f"## {part.title}", "", f"{part.taken}, in {part.seconds:.0f} s, on {part.machine}. {versions}.", ""]
    for note in part.notes:
        lines += [note, ""]
    lines += [f"![{part.title}]({plot.relative_to(PAGE.parent)})\n" for plot in plots]
    for table in part.tables:
        lines += [f"### {table.title}", "", *_markdown(table), ""]
    lines += [f"Left out: {left.what}: {left.why}\n" for left in part.left_out]
    return "\n".join(lines)


def _markdown(table: Table) -> Iterable[str]:
    yield "| | " + " | ".join(table.columns.values()) + " |"
    yield "|---" + "|---:" * len(table.columns) + "|"
    for cells in _rows(table):
        yield "| " + " | ".join(cells) + " |"


def _rows(table: Table) -> Iterable[list[str]]:
    for row in table.rows:
        yield [row.name, *(_spread(row.values.get(column, [])) for column in table.columns)]


def _measured(bar: Bar) -> str:
    return f"{_spread(bar.values)} {bar.unit}" if bar.values else _NOTHING


def _bound(bar: Bar) -> str:
    bounds = [
        f"{sign} {_number(value)}" for sign, value in (("≥", bar.at_least), ("≤", bar.at_most)) if value is not None
    ]
    return f"{', '.join(bounds)} {bar.unit}"


def _spread(values: Sequence[float]) -> str:
    """Return the median, and the range when there was more than one round."""
    if not values:
        return _NOTHING
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    """Return three significant digits as people read them."""
    if abs(value) >= 1000:
        return f"{round(value, 2 - len(str(int(abs(value)))) + 1):,.0f}"
    return f"{value:.3g}"
