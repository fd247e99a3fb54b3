"""Numbers and lists in sentences."""

from collections.abc import Sequence

MAX_NAMED = 4
"""Names that a sentence lists before it counts the others."""


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 file``, ``3 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = MAX_NAMED) -> str:
    """Return names with commas; of many the first ones, and the number of the others."""
    more = len(names) - most
    return f"{', '.join(names[:most])} and {more} more" if more > 0 else ", ".join(names)
