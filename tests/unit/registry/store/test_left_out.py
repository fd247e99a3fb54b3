"""Rows that are stored together, of which some are refused."""

from collections.abc import Sequence

import pytest

from registry.errors import RefusedError, UnavailableError
from registry.store.left_out import MAX_LEFT_OUT, StoredApart


class Table:
    """A table that takes no rows of some numbers."""

    def __init__(self, *refused: int) -> None:
        self.refused = set(refused)
        self.rows: list[int] = []
        self.done: list[tuple[int, bool]] = []
        self.away = False

    async def store(self, rows: Sequence[int]) -> None:
        """Store all rows or none."""
        if self.away:
            raise UnavailableError("PostgreSQL is away")
        if self.refused.intersection(rows):
            raise RefusedError("refused", cause="a trigger", row_specific=True)
        self.rows += rows

    def note(self, rows: Sequence[int], stored: bool) -> None:
        """Note rows that are done with."""
        self.done += [(row, stored) for row in rows]


async def test_refused_rows_are_left_out_and_the_others_stored() -> None:
    """Each is told once, with what became of it."""
    table = Table(3, 40)
    left_out = await StoredApart[int]("rows", str).store(range(64), table.store, table.note)
    assert sorted(left_out) == [3, 40]
    assert sorted(table.rows) == [each for each in range(64) if each not in (3, 40)]
    assert sorted(table.done) == [(each, each not in (3, 40)) for each in range(64)]


async def test_what_was_done_before_an_error_is_told() -> None:
    """A caller that tries again with what is left stores nothing twice, and comes to an end."""
    table = Table(*range(0, 64, 2))
    left = list(range(64))
    for _ in range(3):
        try:
            await StoredApart[int]("rows", str).store(left, table.store, table.note)
        except RefusedError:
            assert sum(not stored for _, stored in table.done) == MAX_LEFT_OUT
        done = {row for row, _ in table.done}
        left = [row for row in left if row not in done]
    assert (left, sorted(table.rows)) == ([], list(range(1, 64, 2)))
    assert len(table.done) == 64


async def test_an_outage_leaves_nothing_out() -> None:
    """It is not for the rows."""
    table = Table()
    table.away = True
    with pytest.raises(UnavailableError, match="away"):
        await StoredApart[int]("rows", str).store(range(4), table.store, table.note)
    assert table.done == []
