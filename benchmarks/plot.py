"""The plots beside the page, drawn from what the parts kept."""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report import Part

_PLACE = Path(__file__).parent / "plots"
_WIDTH, _LINE = 8.0, 0.34
_INK = "#3b3b3b"
_OURS, _PEERS = "#1f6feb", "#b6bdc6"


def draw(part: Part) -> list[Path]:
    """Draw a part's plots; return their files, none when there is nothing to see."""
    drawing = _PLOTS.get(part.name)
    if drawing is None or not part.tables:
        return []
    # Nothing that differs between two drawings of the same figures.
    mpl.rcParams.update({"svg.hashsalt": part.name, "svg.fonttype": "none", "font.size": 9, "text.color": _INK})
    _PLACE.mkdir(exist_ok=True)
    path = _PLACE / f"{part.name}.svg"
    figure = drawing(part)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    # matplotlib leaves spaces at the ends of lines.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return [path]


def _discovery(part: Part) -> Figure:
    """Draw each side's rate, one group for each table."""
    tables = [table for table in part.tables if "rate" in table.columns and "nginx" in {row.name for row in table.rows}]
    lines = sum(len(table.rows) + 1.5 for table in tables)
    figure, axes = _blank(lines * _LINE)
    place = 0.0
    ticks: dict[float, str] = {}
    for table in tables:
        axes.text(0, place, f" {table.title}", weight="bold", va="center", transform=axes.get_yaxis_transform())
        for row in table.rows:
            place += 1
            _bar(axes, place, row.values["rate"], ours=row.name == "registry")
            ticks[place] = row.name
        place += 1.5
    axes.set_xlabel("polls answered in a second: median and range")
    _name_lines(axes, ticks)
    return figure


def _propagation(part: Part) -> Figure:
    """Draw which share of the changes had reached Envoy after how long."""
    figure, axes = _blank(3.0)
    for name, values in part.distributions.items():
        ordered = sorted(max(value, 0.1) for value in values)
        axes.plot(ordered, [100 * (at + 1) / len(ordered) for at in range(len(ordered))], label=name)
    axes.set_xscale("log")
    axes.set_xlabel("ms from a registrar's report to a real Envoy's host set, through another process")
    axes.set_ylabel("% of the changes")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return figure


_PLOTS: Mapping[str, Callable[[Part], Figure]] = {"discovery": _discovery, "propagation": _propagation}


def _blank(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _bar(axes: Axes, place: float, values: list[float], *, ours: bool) -> None:
    middle = statistics.median(values)
    spread = [[middle - min(values)], [max(values) - middle]]
    axes.barh(place, middle, color=_OURS if ours else _PEERS, xerr=spread, ecolor=_INK, height=0.8)
    axes.text(max(values), place, f"  {middle:,.0f}", va="center")


def _name_lines(axes: Axes, ticks: Mapping[float, str]) -> None:
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
