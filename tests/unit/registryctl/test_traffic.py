"""Figures of traffic as the operator's command prints them."""

import pytest

from registryctl.traffic import _percent


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (1.0, "100.00 %"),
        (1 - 1e-6, "99.99 %"),
        (1 - 0.01, "99.00 %"),
        (1 - 0.3, "70.00 %"),
        (0.62, "62.00 %"),
        (1e-6, "< 0.01 %"),
        (0.0, "0.00 %"),
    ],
)
def test_a_failure_is_never_rounded_away(part: float, words: str) -> None:
    """One failed request of a million is not 100 %, and one that succeeded is not 0 %."""
    assert _percent(part) == words
