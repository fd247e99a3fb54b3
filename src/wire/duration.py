"""Durations as people write them: ``5s``, ``500ms``, ``1m30s``."""

import math
import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_MAX_DURATION = 10 * 365 * 86400.0
"""Seconds in ten years."""


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` names; a bare number counts as seconds.

    Raises:
        ValueError: the text is not a duration, or longer than ten years.
    """
    compact = text.strip().lower()
    if _NUMBER.fullmatch(compact):
        seconds = float(compact)
    elif _WHOLE.fullmatch(compact):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(compact))
    else:
        raise ValueError(f"{text!r} is not a duration; write it like 5s, 500ms or 1m30s")
    if not math.isfinite(seconds) or seconds > _MAX_DURATION:
        raise ValueError(f"{text!r} is longer than ten years")
    return seconds


def format_duration(seconds: float) -> str:
    """Return the shortest text that ``parse_duration`` reads back, to the millisecond."""
    milliseconds = round(seconds * 1000)
    if milliseconds % 1000:
        return f"{milliseconds}ms" if milliseconds < 1000 else f"{milliseconds / 1000}s"
    whole = milliseconds // 1000
    text = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def ago(seconds: float | None) -> str:
    """Return a duration in its greatest unit: 4s, 12m, 3h, 2d; a dash when it is not known."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"
