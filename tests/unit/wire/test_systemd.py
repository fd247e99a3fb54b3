"""Notifications to a service manager that is not there, and the watchdog's interval."""

import pytest

from wire.sd_notify import notify, watchdog_interval


def test_without_a_manager_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of systemd the answer is False."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


@pytest.mark.parametrize(
    ("microseconds", "seconds"), [("30000000", 30.0), ("500000", 0.5), ("", None), ("soon", None), ("²", None)]
)
def test_the_watchdog_counts_in_microseconds(
    microseconds: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interval is in seconds, and None when there is no watchdog."""
    monkeypatch.setenv("WATCHDOG_USEC", microseconds)
    assert watchdog_interval() == seconds
