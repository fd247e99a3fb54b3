"""Tests for shares as people write them."""

import pytest

from wire.share import split_share


@pytest.mark.parametrize(
    ("text", "selector", "percent"),
    [("revision=abc=10", "revision=abc", 10.0), ("a=b=c=0.5%", "a=b=c", 0.5), ("canary=true=-0", "canary=true", 0.0)],
)
def test_a_share_has_a_selector_and_a_percentage(text: str, selector: str, percent: float) -> None:
    """The last part is the percentage, and a zero has no sign."""
    assert [repr(part) for part in split_share(text)] == [repr(selector), repr(percent)]


@pytest.mark.parametrize("text", ["", "revision=abc", "revision==10", "=abc=10", "revision=abc=", "a=b=NaN", "a=b=inf"])
def test_anything_else_is_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(ValueError, match="write it like revision=abc=10"):
        split_share(text)
