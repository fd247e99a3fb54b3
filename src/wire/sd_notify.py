"""The notification protocol of systemd, as sd_notify(3) describes it, without its library."""

import os
import socket

_TIMEOUT = 1.0
"""Seconds to wait for a service manager that has stopped reading, as while process 1 is frozen."""


def notify(message: str) -> bool:
    """Send a message like ``READY=1`` or ``WATCHDOG=1`` to systemd, and return whether it was sent.

    ``WATCHDOG=1`` never waits, and any other message a second at most.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    target = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            # Another sign of life follows in time.
            channel.settimeout(0 if message == "WATCHDOG=1" else _TIMEOUT)
            # Only on a connected socket does the wait end when the manager reads.
            channel.connect(target)
            channel.send(message.encode())
        except OSError:
            # A service manager that is gone or hangs must not end the program.
            return False
    return True


def watchdog_interval() -> float | None:
    """Return the seconds within which systemd expects each watchdog notification, or None without a watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() else None
