"""The measured figures of a run, and the page that shows them."""

import datetime as dt
import os
import platform
import re
from pathlib import Path

import psutil
from msgspec import Struct

_BEGIN = "<!-- figures: written by make faults -->"
_END = "<!-- end -->"


class Figure(Struct, frozen=True):
    """One measured bound."""

    fault: str
    what: str
    bound: str
    measured: str
    held: bool


class Figures:
    """Collects what the tests measured; a figure that misses its bound fails its test after it was noted."""

    def __init__(self) -> None:
        self.noted: list[Figure] = []

    def at_most(self, fault: str, what: str, bound: float, measured: float, unit: str = "s") -> None:
        """Note a figure that may be ``bound`` at most."""
        self._note(fault, what, f"≤ {_number(bound)} {unit}", f"{_number(measured)} {unit}", held=measured <= bound)

    def at_least(self, fault: str, what: str, bound: float, measured: float, unit: str = "s") -> None:
        """Note a figure that has to be ``bound`` at least."""
        self._note(fault, what, f"≥ {_number(bound)} {unit}", f"{_number(measured)} {unit}", held=measured >= bound)

    def equal(self, fault: str, what: str, bound: object, measured: object) -> None:
        """Note what has to be exactly so; an empty collection is told as nothing."""
        self._note(fault, what, _words(bound), _words(measured), held=bound == measured)

    def none_of(self, fault: str, what: str, measured: int, total: int) -> None:
        """Note that nothing of ``total`` may be."""
        self._note(fault, what, "0", f"{measured} of {total:,}", held=measured == 0 < total)

    def show(self, fault: str, what: str, measured: str) -> None:
        """Note a figure that has no bound."""
        self.noted.append(Figure(fault, what, "", measured, held=True))

    def table(self) -> str:
        """Return all figures as a Markdown table."""
        lines = ["| # | fault and figure | bound | measured | verdict |", "|---|---|---|---|---|"]
        for figure in sorted(self.noted, key=_order):
            verdict = ("holds" if figure.held else "**missed**") if figure.bound else ""
            lines.append(f"| {figure.fault} | {figure.what} | {figure.bound} | {figure.measured} | {verdict} |")
        return "\n".join(lines)

    def write(self, page: Path, remarks: list[str]) -> None:
        """Put the table between the markers of a page."""
        text = page.read_text()
        body = "\n\n".join([_BEGIN, _machine(), self.table(), *remarks, _END])
        page.write_text(re.sub(re.escape(_BEGIN) + ".*?" + re.escape(_END), lambda _: body, text, flags=re.DOTALL))

    def _note(self, fault: str, what: str, bound: str, measured: str, *, held: bool) -> None:
        self.noted.append(Figure(fault, what, bound, measured, held))
        assert held, f"{what}: {measured}, and not {bound}"


def _order(figure: Figure) -> tuple[int, str]:
    digits = re.match(r"\d+", figure.fault)
    return (int(digits[0]) if digits else 0, figure.fault)


def _words(value: object) -> str:
    if isinstance(value, list | set):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) or value >= 1000 else f"{value:.3g}"


def _machine() -> str:
    memory = round(psutil.virtual_memory().total / 2**30)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    system = f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"
    return f"{today}, {os.cpu_count()} cores, {memory} GB, {system}, Python {platform.python_version()}."
