"""Searching, sorting and paging lists that are in memory."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from msgspec import Struct

Item = TypeVar("Item")

SIZE = 100
"""Rows of one page: as many as a person can look through, and as can be made again every two seconds without holding
up discovery."""


class Page(Struct, Generic[Item], frozen=True):
    """A part of a list; ``total`` counts what the search found, ``number`` and ``last`` begin at 1."""

    items: Sequence[Item]
    total: int
    number: int
    last: int


def page_of(items: Sequence[Item], number: int) -> Page[Item]:
    """Return a page of a list, the last one where the list has become shorter than that."""
    last = max(1, -(-len(items) // SIZE))
    number = min(max(1, number), last)
    return Page(items[(number - 1) * SIZE : number * SIZE], len(items), number, last)


def matches(query: str, *texts: str) -> bool:
    """Tell whether every word of a query is in one of the texts, whatever the case."""
    words = query.casefold().split()
    folded = [text.casefold() for text in texts] if words else []
    return all(any(word in text for text in folded) for word in words)
