"""Output of the verbs: tables for people, with signs and colours on a terminal, or JSON for scripts."""

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

import msgspec
from msgspec import Raw
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

Cell = str | Text
"""Content of a table's cell."""

_STATUSES = {
    "HEALTHY": ("●", "+", "green"),
    "DEGRADED": ("◐", "~", "yellow"),
    "UNHEALTHY": ("✗", "x", "red"),
    "DRAINING": ("◌", "o", "cyan"),
    "TIMEOUT": ("○", "?", "magenta"),
    "SILENT": ("◇", "!", "bold magenta"),
    "current": ("●", "+", "green"),
    "behind": ("◐", "~", "yellow"),
    "stuck": ("✗", "x", "red"),
    "rejected": ("✗", "x", "red"),
    "silent": ("○", "?", "magenta"),
}
"""Sign, sign where the terminal has no better one, style."""
MIN_REMARK = 10
"""Columns; a narrower remark is not cut, and the terminal breaks the line."""
_GAP = "  "
# Characters of ASCII and Latin-1 move the cursor; the others turn the direction of the text, or begin a line.
_CONTROLS = dict.fromkeys(
    [*range(32), *range(127, 160), 0x061C, *range(0x200E, 0x2010), *range(0x2028, 0x202F), *range(0x2066, 0x206A)], "?"
)
_ESCAPES = {character: f"\\u{character:04x}" for character in _CONTROLS if character >= 32}
"""The same in JSON, which has them in texts alone, and those below 32 escaped already: another way to write them."""

_PLAIN_SIGNS = {ord("→"): ">"}
"""Replacements of signs within sentences, where the encoding of the output lacks them; each keeps the length."""


class Screen:
    """Standard output for the answer, and standard error for notes beside it.

    Attributes:
        alive: whether a person looks at a terminal; otherwise there is no colour, no sign and no cut.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self.console = Console(file=self._out, highlight=False, soft_wrap=True, emoji=False, markup=False)
        self.err = Console(file=sys.stderr, highlight=False, soft_wrap=True, emoji=False, markup=False)
        self.alive = self.console.is_terminal
        # Whether the encoding of the output has the signs.
        self._wide = _encodes(self._out)

    def say(self, *parts: Cell | tuple[str, str]) -> None:
        """Print a line."""
        self._write(Text.assemble(*parts))

    def note(self, text: str) -> None:
        """Print a note for a person that is no part of the answer."""
        self.err.print(Text(text.translate(_CONTROLS), "dim"))

    def status(self, status: str, count: int | None = None) -> Text:
        """Return a status by word, and on a terminal also by sign and colour."""
        sign, plain, style = _STATUSES.get(status, ("·", "-", ""))
        word = status if count is None else f"{count} {status.lower()}"
        return Text(f"{self.sign(sign, plain)} {word}", style) if self.alive else Text(word)

    def sign(self, sign: str, plain: str) -> str:
        """Return a sign, or its replacement where the encoding cannot write it."""
        return sign if self._wide else plain

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Cell]], *, right: Iterable[str] = ()) -> None:
        """Print rows under a head, aligned; ``right`` names the columns of numbers.

        Where a terminal is too narrow the last column gives way, which is a remark, and no other.
        """
        lines = [[Text(name.upper(), "dim") for name in head]]
        lines += [[_harmless(cell) for cell in row] for row in rows]
        widths = [max(line[index].cell_len for line in lines) for index in range(len(head))]
        room = self.console.width - sum(widths[:-1]) - len(_GAP) * (len(head) - 1)
        for line in lines:
            if self.alive and room >= MIN_REMARK:
                line[-1].truncate(room, overflow="ellipsis" if self._wide else "crop")
            self._write(_aligned(line, widths, [name in right for name in head]))

    def indented(self, text: str, style: str, indent: int) -> None:
        """Print a text that may be longer than a line, so that all of its lines are indented."""
        if self.alive:
            shown = Text(text.translate(_CONTROLS), style)
            self.console.print(Padding(shown, (0, 0, 0, indent), expand=False), soft_wrap=False)
        else:
            self.say(" " * indent + text)

    def document(self, item: Raw) -> None:
        """Print one JSON document, as the API gave it except for its indentation."""
        self._out.write(msgspec.json.format(bytes(item), indent=2).decode().translate(_ESCAPES) + "\n")
        self._out.flush()

    def line(self, item: Raw) -> None:
        """Print one JSON document on a line of its own, now."""
        self._out.write(bytes(item).decode().translate(_ESCAPES) + "\n")
        self._out.flush()

    def _write(self, line: Text) -> None:
        line = _harmless(line)
        if not self._wide:
            line.plain = line.plain.translate(_PLAIN_SIGNS)
        # Padding behind the last cell is of no use.
        line.rstrip()
        if self.alive:
            self.console.print(line)
        else:
            self._out.write(f"{line.plain}\n")


def _harmless(cell: Cell) -> Text:
    """Return a text without control characters: names come from strangers that register or poll."""
    text = Text(cell) if isinstance(cell, str) else cell.copy()
    # The text keeps its length, so that styles stay in their places.
    text.plain = text.plain.translate(_CONTROLS)
    return text


def _aligned(line: Sequence[Text], widths: Sequence[int], right: Sequence[bool]) -> Text:
    aligned = Text()
    for cell, width, to_the_right in zip(line, widths, right, strict=True):
        padding = " " * (width - cell.cell_len)
        parts = (padding, cell) if to_the_right else (cell, padding)
        aligned = Text.assemble(aligned, _GAP if aligned else "", *parts)
    return aligned


def _encodes(out: TextIO) -> bool:
    try:
        "●◐✗◌○◇√‼…→".encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
