"""Shares of traffic as people write them, in the command and on the page."""

import math


def read_percent(text: str) -> float:
    """Return a percentage that is written like 5, 0.5 or 5%.

    Raises:
        ValueError: it is no number.
    """
    number = float(text.strip().removesuffix("%"))
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no percentage")
    # A zero with a sign is shown with it.
    return number + 0.0


def split_share(text: str) -> tuple[str, float]:
    """Return the selector and the percentage of ``key=value=percent``; the value may have equals signs too.

    Raises:
        ValueError: it has no selector or no percentage.
    """
    selector, _, percent = text.rpartition("=")
    key, _, value = selector.partition("=")
    try:
        number = read_percent(percent)
    except ValueError:
        number = None
    if not key or not value or number is None:
        raise ValueError(f"{text!r} is no KEY=VALUE=PERCENT; write it like revision=abc=10 or canary=true=5")
    return selector, number
