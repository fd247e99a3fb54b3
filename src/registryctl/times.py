"""Texts of times and durations, as people read them."""

import datetime as dt


def clock(epoch: float, *, utc: bool) -> str:
    """Return a point in time: in this machine's zone for people, in UTC to the millisecond for machines.

    Both name their zone, so that two people can compare them, and `--at` takes either as it stands.
    """
    if utc:
        return dt.datetime.fromtimestamp(epoch, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return dt.datetime.fromtimestamp(epoch).astimezone().isoformat(" ", "seconds").replace("+00:00", "Z")
