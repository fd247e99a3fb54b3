"""Times as people read them."""

import pytest

from registryctl.times import ago, clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-3, "0s"), (0.4, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172_800, "2d")],
)
def test_a_length_of_time_is_in_its_greatest_unit(seconds: float | None, text: str) -> None:
    """Two of a unit at least, so that nothing is rounded to half of what it is."""
    assert ago(seconds) == text


def test_machines_get_utc_to_the_millisecond() -> None:
    """A log that is piped can be sorted and compared."""
    assert clock(1_763_600_000.1234, utc=True) == "2025-11-20T00:53:20.123Z"
