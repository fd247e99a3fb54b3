"""Live view of the demo: the requests that each endpoint gets now, and what the demo waits for."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "HEALTHY": "green",
    "DEGRADED": "yellow",
    "DRAINING": "yellow",
    "UNHEALTHY": "red",
    "TIMEOUT": "red",
}
_LOAD, _REST = "━", "─"


@dataclass(frozen=True)
class EndpointTraffic:
    """Requests of one endpoint within the last second, and its health in Envoy."""

    name: str
    endpoint: str
    zone: str
    health: str
    passed: int
    failed: int


@dataclass(frozen=True)
class LiveState:
    """Everything that the live view shows."""

    rows: Sequence[EndpointTraffic]
    rate: float
    sent: int
    failed: int


def plain(state: LiveState) -> str:
    """Return the state as one line, for an output that is no terminal."""
    parts = [f"{row.name} {row.passed}" + (f" (lost {row.failed})" if row.failed else "") for row in state.rows]
    return f"requests/s {', '.join(parts)}; {state.sent:,} sent, {state.failed:,} failed"


def draw(state: LiveState, spinner: Spinner, elapsed: float, width: int) -> Panel:
    """Return the state as a panel for a terminal of that width."""
    first = Table.grid(expand=True)
    first.add_column()
    first.add_column(justify="right", style="dim")
    first.add_row(spinner, f"{elapsed:.0f} s")
    parts: list[RenderableType] = [first]
    if state.rows:
        parts += ["", _table(state), _totals(state)]
    # A terminal echoes Ctrl-C as ^C: beside the panel it does no harm, in a line of its own it would stay.
    return Panel(Group(*parts), border_style="dim", padding=(0, 1), width=width - 4)


def _table(state: LiveState) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("app", style="bold")
    table.add_column("endpoint", style="dim", no_wrap=True)
    table.add_column("zone", style="dim", no_wrap=True)
    table.add_column("Envoy says", no_wrap=True, min_width=10)
    table.add_column("requests/s", ratio=1, no_wrap=True)
    table.add_column("", justify="right", no_wrap=True, min_width=7)
    # Two endpoints that share the load fill their bars.
    full = max([state.rate / 2, *(row.passed + row.failed for row in state.rows)])
    for row in state.rows:
        health = Text(row.health.lower() or "not listed", style=_COLOURS.get(row.health, "dim"))
        table.add_row(row.name, row.endpoint, row.zone, health, _Bar(row, full), _rate(row))
    return table


@dataclass(frozen=True)
class _Bar:
    row: EndpointTraffic
    full: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        passed = round(width * self.row.passed / self.full)
        failed = min(round(width * self.row.failed / self.full), width - passed)
        rest = width - passed - failed
        yield Text.assemble((_LOAD * passed, "cyan"), (_LOAD * failed, "red"), (_REST * rest, "bright_black"))


def _rate(row: EndpointTraffic) -> Text:
    if row.failed:
        return Text(f"{row.failed} lost", style="bold red")
    return Text(str(row.passed), style="" if row.passed else "dim")


def _totals(state: LiveState) -> Text:
    lost = (f"{state.failed:,} failed", "red" if state.failed else "green")
    return Text.assemble((f"{state.sent:,} sent, ", "dim"), lost, style="dim")
