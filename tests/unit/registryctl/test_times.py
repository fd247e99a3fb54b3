"""Times as people read them."""

import time

import pytest

from registryctl.past import read_moment
from registryctl.times import clock


def test_machines_get_utc_to_the_millisecond() -> None:
    """A log that is piped can be sorted and compared."""
    assert clock(1_763_600_000.1234, utc=True) == "2025-11-20T00:53:20.123Z"


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("UTC", "2025-11-20 00:53:20Z"),
        ("Asia/Kathmandu", "2025-11-20 06:38:20+05:45"),
        ("Pacific/Apia", "2025-11-20 13:53:20+13:00"),
        ("Pacific/Marquesas", "2025-11-19 15:23:20-09:30"),
    ],
)
def test_people_get_their_own_time_with_its_zone(monkeypatch: pytest.MonkeyPatch, zone: str, text: str) -> None:
    """A time that is read off the screen and given to --at is the same time, wherever the reader is."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        assert clock(1_763_600_000.9, utc=False) == text
        assert read_moment(text, time.time) == 1_763_600_000
    time.tzset()
