"""The notification protocol of systemd (``sd_notify``), without its library."""

import os
import socket


def notify(message: str) -> bool:
    """Send ``message`` (``READY=1``, ``WATCHDOG=1``, ``STOPPING=1``) and tell whether systemd listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    target = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(message.encode(), target)
        except OSError:
            # A supervisor that went away must not take the supervised with it.
            return False
    return True


def watchdog_interval() -> float | None:
    """Return the seconds between two watchdog notifications that systemd asked for, or None."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1_000_000 if microseconds.isdecimal() else None
