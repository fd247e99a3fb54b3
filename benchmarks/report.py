"""What a run found: tables of measurements, and the bars that they have to meet.

A measurement is never one number: each row of a table keeps what every round measured, and the pages show the median
and the range. A ratio is taken within each round, between two sides that ran one after the other.
"""

import datetime as dt
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct, field

from benchmarks.machine import Machine

RESULTS = Path(__file__).parent / "results"


class Row(Struct):
    """One side's measurements: for each column the values of the rounds."""

    name: str
    values: dict[str, list[float]] = field(default_factory=dict)


class Table(Struct):
    """The measurements of several sides under the same conditions."""

    title: str
    columns: dict[str, str]
    """How each column is headed, with its unit."""
    rows: list[Row] = field(default_factory=list)

    def add(self, row: str, **values: float) -> None:
        """Add what one round measured of one side.

        Raises:
            ValueError: a name is none of the table's columns.
        """
        unknown = values.keys() - self.columns.keys()
        if unknown:
            raise ValueError(f"table {self.title!r} has no column {', '.join(sorted(unknown))}")
        found = self._find(row)
        if found is None:
            found = Row(row)
            self.rows.append(found)
        for column, value in values.items():
            found.values.setdefault(column, []).append(value)

    def values(self, row: str, column: str) -> list[float]:
        """Return the rounds of one figure; empty when it was not measured."""
        found = self._find(row)
        return found.values.get(column, []) if found else []

    def _find(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)


class Bar(Struct):
    """A figure that has to be as large, or as small, as was promised."""

    what: str
    unit: str
    values: list[float]
    """Of the rounds; empty when there was nothing to compare with."""
    at_least: float | None = None
    at_most: float | None = None
    goal: float | None = None

    @property
    def measured(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median is within the bar; None when it was not measured."""
        if not self.values:
            return None
        low = self.at_least is None or self.measured >= self.at_least
        return low and (self.at_most is None or self.measured <= self.at_most)


class Left(Struct):
    """Something that was not measured, and why."""

    what: str
    why: str


class Part(Struct):
    """One benchmark's report."""

    name: str
    title: str
    machine: Machine
    taken: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"))
    quick: bool = False
    failed: bool = False
    """Whether it broke off; what it measured until then stands."""
    seconds: float = 0.0
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    left_out: list[Left] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    distributions: dict[str, list[float]] = field(default_factory=dict)
    """Single measurements behind a percentile, for the plots."""

    def table(self, title: str, **columns: str) -> Table:
        """Begin a table; ``columns`` maps the names that ``add`` takes to the heads that people read."""
        made = Table(title, columns)
        self.tables.append(made)
        return made

    def bar(
        self,
        what: str,
        values: Sequence[float],
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        goal: float | None = None,
    ) -> Bar:
        """Hold the median of ``values`` against a bar."""
        made = Bar(what, unit, list(values), at_least, at_most, goal)
        self.bars.append(made)
        return made

    def ratio(
        self,
        what: str,
        ours: Sequence[float],
        peers: Sequence[float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        goal: float | None = None,
    ) -> Bar:
        """Hold ours over a peer's, taken round by round, against a bar; without the peer it is not measured."""
        values = [one / other for one, other in zip(ours, peers, strict=False) if other]
        return self.bar(what, values, "x", at_least=at_least, at_most=at_most, goal=goal)

    def leave_out(self, what: str, why: str) -> None:
        """Say what was not measured; it is never estimated."""
        self.left_out.append(Left(what, why))

    def note(self, text: str) -> None:
        """Say a sentence about how this was measured."""
        self.notes.append(text)

    def save(self) -> None:
        """Keep it, for the page and the plots."""
        RESULTS.mkdir(exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(self), indent=1)
        (RESULTS / f"{self.name}.json").write_bytes(text + b"\n")


def load_part(name: str) -> Part | None:
    """Return the kept report of one benchmark; None when it never ran."""
    path = RESULTS / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=Part) if path.is_file() else None
