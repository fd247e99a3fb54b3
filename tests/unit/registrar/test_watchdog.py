"""A task's promises to the watchdog, in virtual time."""

from registrar.watchdog import Watchdog


def test_a_pulse_is_alive_until_it_broke_its_promise() -> None:
    """Before the first promise there is none to break; ten seconds late is late, one is not."""
    watchdog = Watchdog()
    assert watchdog.alive(1e9)
    watchdog.reset(100, 5)
    assert watchdog.alive(106)
    assert not watchdog.alive(120)
