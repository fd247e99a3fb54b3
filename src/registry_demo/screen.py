"""Output of the demo: lines, and a live view below them when there is a terminal."""

import asyncio
import contextlib
import io
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from registry_demo.live_view import LiveState, draw, plain
from registry_demo.measure import Measure
from registry_demo.process import Process

FRAME_INTERVAL = 0.125
"""Seconds between two pictures of the live view."""
MIN_QUIET = 2.0
"""Seconds without a line after which progress is printed where there is no terminal."""
_SIGNS = {"passed": ("✓", "green"), "failed": ("✗", "bold red"), "fact": ("·", "dim")}


class DemoScreen:
    """Screen of the demo; it calls ``live_state`` for the live view."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A locale without the signs and bars must not end the demo.
            sys.stdout.reconfigure(errors="replace")
        self.console = Console(highlight=False)
        self.live_state: Callable[[], LiveState] = lambda: LiveState((), 0, 0, 0)
        self._alive = self.console.is_terminal and not self.console.is_dumb_terminal
        self._start = time.monotonic()
        # When the demo began to wait for what it waits for now, and the text that says so.
        self._step = self._start
        self._progress = ""
        self._spinner = Spinner("dots", style="cyan")

    def overview(self, text: str, rows: Iterable[tuple[str, ...]]) -> None:
        """Print a table under a title, such as the processes and their addresses."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        for row in rows:
            table.add_row(*row)
        self._print()
        self._print(Rule(Text(text, style="bold"), align="left", style="dim"))
        self._print(Padding(table, (0, 0, 0, 2), expand=False))

    def commands(self, text: str, commands: Iterable[tuple[str, str]]) -> None:
        """Print commands with their purpose, each on one line, so that it can be copied from a narrow terminal."""
        self._print()
        self._line((f"{text}:", "bold"))
        for command, purpose in commands:
            line = Text.assemble(f"     {command}", (f"  # {purpose}" if purpose else "", "dim"))
            self._print(line, soft_wrap=True)

    def act(self, number: int, name: str, text: str) -> None:
        """Print the title of an act."""
        self._print()
        self._print(Text.assemble((f"{number}  {name}", "bold cyan"), f"  {text}"))

    def progress(self, text: str) -> None:
        """Show what the demo waits for."""
        self._step = time.monotonic()
        self._progress = text
        self._spinner.update(text=Text(text))

    def say(self, text: str, mark: str = "fact") -> None:
        """Print a line behind a sign."""
        sign, style = _SIGNS[mark]
        self._line((f"{sign} ", style), text)

    def measure(self, measure: Measure) -> None:
        """Print a measure, and whether it keeps its bound."""
        sign, style = _SIGNS["passed" if measure.kept else "failed"]
        bound = f"  (bound {measure.bound})"
        self._line((f"{sign} ", style), f"{measure.subject}: ", (measure.value, "bold"), (bound, "dim"))

    def log(self, process: Process) -> None:
        """Print the end of a process's log."""
        self.say(f"the end of {process.log}:")
        for line in process.tail():
            self._line(("  " + line, "dim"))

    def table(self, measures: Sequence[Measure]) -> None:
        """Print all measures as a table."""
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("")
        table.add_column("measured in this run")
        table.add_column("value", justify="right")
        table.add_column("bound", justify="right", style="dim")
        for measure in measures:
            sign, style = _SIGNS["passed" if measure.kept else "failed"]
            table.add_row(Text(sign, style), measure.subject, Text(measure.value, "bold"), measure.bound)
        self._print()
        self._print(Rule(Text("What was measured", style="bold"), align="left", style="dim"))
        self._print(Padding(table, (0, 0, 0, 2), expand=False))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Update the live view, or print progress now and then where there is no terminal."""
        ticker = asyncio.create_task(self._draw() if self._alive else self._print_progress())
        try:
            yield
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)

    def _print(self, *what: RenderableType, soft_wrap: bool = False) -> None:
        try:
            self.console.print(*what, soft_wrap=soft_wrap)
        except OSError:
            # The terminal was closed; every process still has to be stopped.
            self.console.quiet = True

    def _line(self, *parts: str | tuple[str, str]) -> None:
        line = Padding(Text.assemble(*parts), (0, 0, 0, 3), expand=False)
        self._print(line if self._alive else Text.assemble("   ", *parts), soft_wrap=not self._alive)

    async def _draw(self) -> None:
        # Drawn from the loop, not by rich's own thread: the view reads state that the loop's tasks write.
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                elapsed = time.monotonic() - self._start
                live.update(draw(self.live_state(), self._spinner, elapsed, self.console.width), refresh=True)
                await asyncio.sleep(FRAME_INTERVAL)

    async def _print_progress(self) -> None:
        step, quiet = self._step, MIN_QUIET
        while True:
            await asyncio.sleep(FRAME_INTERVAL)
            if step != self._step:
                step, quiet = self._step, MIN_QUIET
            if time.monotonic() - step < quiet:
                continue
            # Less and less often, so that a demo that is kept running for hours does not fill a log.
            quiet *= 2
            live_state = self.live_state()
            traffic = f": {plain(live_state)}" if live_state.rows else ""
            self._line((f"… {time.monotonic() - self._start:.0f} s, {self._progress}{traffic}", "dim"))
