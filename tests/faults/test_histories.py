"""Random histories in virtual time: the real rules, under everything that can go wrong, break no invariant.

A history is its number: `HISTORIES=1 FIRST=4711 pytest tests/faults/test_histories.py` plays that one again.
"""

import os

import pytest
from faults.simulation.stage import stage
from faults.simulation.world import World
from harness.figures import Figures

_CHUNK = 40
_FIRST = int(os.environ.get("FIRST", "0"))
_LAST = _FIRST + int(os.environ.get("HISTORIES", "120"))
_TOTALS: dict[str, float] = dict.fromkeys(
    ("histories", "services whose last numbers a fail-over lost", "steps", "virtual hours"), 0
)


@pytest.mark.parametrize("first", range(_FIRST, _LAST, _CHUNK), ids=lambda first: f"from-{first}")
async def test_no_history_breaks_an_invariant(first: int) -> None:
    """I1 to I4, I6, one owner, no resurrection, the guard's shares, and both phases of each removal."""
    with stage() as built:
        for seed in range(first, min(first + _CHUNK, _LAST)):
            world = World(built, seed)
            await world.play()
            _TOTALS["histories"] += 1
            _TOTALS["steps"] += world.steps
            _TOTALS["virtual hours"] += world.clock.now / 3600
            _TOTALS["services whose last numbers a fail-over lost"] += world.witness.editions.lost


def test_what_was_played_is_told(figures: Figures) -> None:
    """The numbers go into the table of the figures."""
    played = ", ".join(f"{count:,.0f} {what}" for what, count in _TOTALS.items())
    figures.show("all", "random histories in virtual time", f"{played}; no invariant broken")


async def test_a_history_is_its_number() -> None:
    """The same seed is the same history, step by step: a failure can be played again."""
    with stage() as built:
        played = []
        for _ in range(2):
            world = World(built, 7)
            await world.play()
            played.append((world.steps, world.clock.now, list(world.lines), world.postgres.tables.services))
    assert played[0] == played[1]


async def test_a_newer_start_that_leaves_takes_along_what_an_older_one_published() -> None:
    """A clone is told to stop before it could publish anything; the older start, which runs on, is out of rotation."""
    with stage() as built:
        world = World(built, 7)
        await world.run(10)
        older = world.registrars[0]
        clone = world.start(older.key[1:], older.instance_id, older.key[0])
        clone.change(cut=True)
        clone.drain()
        await world.run(3)
        clone.change(cut=False)
        await world.run(60)
        assert older.key not in {row.key for row in world.postgres.tables.listed()}
        assert not older.leaves
