"""The database's time between two looks at it."""

import time

import pytest

from registry.core.clock import Clock


def test_it_is_the_databases_time_and_not_the_machines() -> None:
    """After a look at the database its time goes on with the monotonic clock, wherever the wall clock stands."""
    clock = Clock()
    assert clock.now() == pytest.approx(time.time(), abs=1)
    clock.set(1000.0, before=50.0, after=50.2)
    assert clock.at(50.1) == pytest.approx(1000.0)
    assert clock.at(60.1) == pytest.approx(1010.0)


def test_its_error_is_half_of_what_the_look_took() -> None:
    """The database read its clock at some moment of the look; nobody knows at which."""
    clock = Clock()
    assert clock.error == float("inf")
    clock.set(1000.0, before=50.0, after=50.2)
    assert clock.error == pytest.approx(0.1)
