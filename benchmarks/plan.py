"""How thoroughly a run measures, and what it says meanwhile."""

import time

from rich.console import Console


class Plan:
    """What the parts ask how long to measure, and tell what they are doing.

    Args:
        quick: two short rounds each, to see that everything works; the figures are rough.
        console: where it says so.
    """

    def __init__(self, *, quick: bool, console: Console) -> None:
        self.quick = quick
        self.console = console
        self._begun = time.monotonic()

    def rounds(self, full: int) -> int:
        """Return how many rounds to take instead of ``full``."""
        return min(full, 2) if self.quick else full

    def seconds(self, full: float) -> float:
        """Return how long to measure instead of ``full``."""
        return min(full, 1.0) if self.quick else full

    def doing(self, text: str) -> None:
        """Say what comes next."""
        at = time.monotonic() - self._begun
        self.console.print(f"[dim]{at:6.1f} s[/]  {text}", highlight=False)
