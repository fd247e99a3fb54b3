"""A change of some parts of an override, merged with what is in force."""

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.core.endpoint import Override
from registry.core.override_change import OverrideChange
from registry.errors import NotFoundError

NOW = 1000.0
OVERRIDES = st.builds(
    Override,
    weight=st.none() | st.integers(1, 9),
    drain=st.booleans(),
    actor=st.just("bert"),
    reason=st.just("before"),
    set_at=st.just(900.0),
    expires_at=st.none() | st.just(2000.0),
    canary=st.none() | st.booleans(),
)


def parts(override: Override | None) -> tuple[int | None, bool, bool | None] | None:
    """Return what an override sets."""
    return None if override is None else (override.weight, override.drain, override.canary)


@given(before=st.none() | OVERRIDES, weight=st.integers(1, 9), canary=st.booleans())
def test_changes_of_different_parts_are_all_kept_in_whatever_order_they_come(
    before: Override | None, weight: int, canary: bool
) -> None:
    """The change that is stored second does not undo the first one."""
    changes = [OverrideChange(weight=weight), OverrideChange(canary=canary), OverrideChange(drain=True)]
    for order in permutations(changes):
        after = before
        for change in order:
            after = change.apply(after, NOW, "ann")
        assert parts(after) == (weight, True, canary)


@given(before=OVERRIDES.filter(lambda override: override.sets_something))
def test_what_is_left_out_stays(before: Override) -> None:
    """The reason and the end as well; who asked and when are new."""
    after = OverrideChange(reason="new").apply(before, NOW, "ann")
    assert after == msgspec.structs.replace(before, reason="new", actor="ann", set_at=NOW)
    later = OverrideChange(expires_in=60.0).apply(before, NOW, "ann")
    assert later == msgspec.structs.replace(before, expires_at=NOW + 60, actor="ann", set_at=NOW)
    assert OverrideChange(expires_in=None, reason="x").apply(before, NOW, "ann") == msgspec.structs.replace(
        before, expires_at=None, reason="x", actor="ann", set_at=NOW
    )


@pytest.mark.parametrize(
    ("before", "change"),
    [
        (Override(5, False, "a", "", 0.0, None), OverrideChange(weight=None)),
        (Override(None, True, "a", "", 0.0, None), OverrideChange(drain=False)),
        (Override(None, False, "a", "", 0.0, None, canary=False), OverrideChange(canary=None)),
        (Override(5, True, "a", "", 0.0, None), OverrideChange(weight=None, drain=False, reason="over")),
    ],
    ids=str,
)
def test_an_override_without_a_part_is_none(before: Override, change: OverrideChange) -> None:
    """The last part that is taken back takes the override with it."""
    assert change.apply(before, NOW, "ann") is None


@pytest.mark.parametrize("before", [None, Override(5, False, "a", "", 0.0, None)], ids=str)
def test_what_is_not_set_cannot_be_taken_back(before: Override | None) -> None:
    """It says so rather than to look done."""
    with pytest.raises(NotFoundError, match="no operator's override sets its drain; there is nothing to take back"):
        OverrideChange(drain=False).apply(before, NOW, "ann")
    with pytest.raises(NotFoundError, match="canary or drain"):
        OverrideChange(drain=False, canary=None).apply(before, NOW, "ann")


def test_one_part_may_be_set_while_another_is_not_there_to_be_taken_back() -> None:
    """A form sends both."""
    assert parts(OverrideChange(weight=3, drain=False).apply(None, NOW, "ann")) == (3, False, None)
