"""Times as people read them."""

from registryctl.times import clock


def test_machines_get_utc_to_the_millisecond() -> None:
    """A log that is piped can be sorted and compared."""
    assert clock(1_763_600_000.1234, utc=True) == "2025-11-20T00:53:20.123Z"
