"""Texts of times and durations, as people read them."""

import datetime as dt


def clock(epoch: float, *, utc: bool) -> str:
    """Return a point in time: in this machine's zone for people, in UTC to the millisecond for machines."""
    if utc:
        return dt.datetime.fromtimestamp(epoch, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return dt.datetime.fromtimestamp(epoch).astimezone().strftime("%Y-%m-%d %H:%M:%S")
