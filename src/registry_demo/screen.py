"""What the demo says: lines for everyone, and a live picture below them when there is a terminal."""

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

from registry_demo.board import Scene, draw, plain
from registry_demo.measure import Measure
from registry_demo.process import Process

_FRAME = 0.125
_PATIENCE = 2.0
_MARKS = {"passed": ("✓", "green"), "failed": ("✗", "bold red"), "fact": ("·", "dim")}


class Screen:
    """Prints the story; ``scene`` is asked for the live picture."""

    def __init__(self) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A locale without the marks and bars must not end the story.
            sys.stdout.reconfigure(errors="replace")
        self.console = Console(highlight=False)
        self.scene: Callable[[], Scene] = lambda: Scene((), 0, 0, 0)
        self._alive = self.console.is_terminal and not self.console.is_dumb_terminal
        self._start = time.monotonic()
        self._step = self._start
        self._spinner = Spinner("dots", style="cyan")
        self._doing = ""

    def cast(self, text: str, rows: Iterable[tuple[str, ...]]) -> None:
        """Say what runs where."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
        for row in rows:
            table.add_row(*row)
        self._print()
        self._print(Rule(Text(text, style="bold"), align="left", style="dim"))
        self._print(Padding(table, (0, 0, 0, 2), expand=False))

    def commands(self, text: str, commands: Iterable[tuple[str, str]]) -> None:
        """Say what to type, and what for; each is one line, however narrow the terminal, so that it can be copied."""
        self._print()
        self._line((f"{text}:", "bold"))
        for command, purpose in commands:
            told = Text.assemble(f"     {command}", (f"  # {purpose}" if purpose else "", "dim"))
            self._print(told, soft_wrap=True)

    def act(self, number: int, name: str, text: str) -> None:
        """Begin an act."""
        self._print()
        self._print(Text.assemble((f"{number}  {name}", "bold cyan"), f"  {text}"))

    def doing(self, text: str) -> None:
        """Say what is being waited for."""
        self._step = time.monotonic()
        self._doing = text
        self._spinner.update(text=Text(text))

    def say(self, text: str, mark: str = "fact") -> None:
        """Say something that was found."""
        sign, style = _MARKS[mark]
        self._line((f"{sign} ", style), text)

    def found(self, measure: Measure) -> None:
        """Say a measure, and how it stands to its bound."""
        sign, style = _MARKS["passed" if measure.kept else "failed"]
        bound = f"  (bound {measure.bound})"
        self._line((f"{sign} ", style), f"{measure.what}: ", (measure.value, "bold"), (bound, "dim"))

    def log(self, process: Process) -> None:
        """Show the end of a process's log."""
        self.say(f"the end of {process.log}:")
        for line in process.tail():
            self._line(("  " + line, "dim"))

    def table(self, measures: Sequence[Measure]) -> None:
        """Show all that was measured."""
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("")
        table.add_column("measured in this run")
        table.add_column("value", justify="right")
        table.add_column("bound", justify="right", style="dim")
        for measure in measures:
            sign, style = _MARKS["passed" if measure.kept else "failed"]
            table.add_row(Text(sign, style), measure.what, Text(measure.value, "bold"), measure.bound)
        self._print()
        self._print(Rule(Text("What was measured", style="bold"), align="left", style="dim"))
        self._print(Padding(table, (0, 0, 0, 2), expand=False))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the picture alive, or print a line now and then where there is no terminal."""
        ticker = asyncio.create_task(self._draw() if self._alive else self._tell())
        try:
            yield
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)

    def _print(self, *what: RenderableType, soft_wrap: bool = False) -> None:
        try:
            self.console.print(*what, soft_wrap=soft_wrap)
        except OSError:
            # The terminal was closed. There is still much to stop, and nobody to tell.
            self.console.quiet = True

    def _line(self, *parts: str | tuple[str, str]) -> None:
        line = Padding(Text.assemble(*parts), (0, 0, 0, 3), expand=False)
        self._print(line if self._alive else Text.assemble("   ", *parts), soft_wrap=not self._alive)

    async def _draw(self) -> None:
        # Drawn from the loop, not by rich's own thread: the picture reads what the loop's tasks are writing.
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                elapsed = time.monotonic() - self._start
                live.update(draw(self.scene(), self._spinner, elapsed, self.console.width), refresh=True)
                await asyncio.sleep(_FRAME)

    async def _tell(self) -> None:
        step, patience = self._step, _PATIENCE
        while True:
            await asyncio.sleep(_FRAME)
            if step != self._step:
                step, patience = self._step, _PATIENCE
            if time.monotonic() - step < patience:
                continue
            # Less and less often, so that what is kept running for hours does not fill a log.
            patience *= 2
            scene = self.scene()
            traffic = f": {plain(scene)}" if scene.rows else ""
            self._line((f"… {time.monotonic() - self._start:.0f} s, {self._doing}{traffic}", "dim"))
