"""Texts of times and durations, as people read them."""

import datetime as dt


def ago(seconds: float | None) -> str:
    """Return a duration in its greatest unit: 4s, 12m, 3h, 2d; a dash when it is not known."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def clock(epoch: float, *, utc: bool) -> str:
    """Return a point in time: in this machine's zone for people, in UTC to the millisecond for machines."""
    if utc:
        return dt.datetime.fromtimestamp(epoch, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return dt.datetime.fromtimestamp(epoch).astimezone().strftime("%Y-%m-%d %H:%M:%S")
