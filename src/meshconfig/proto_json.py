"""Values of protobuf messages in the JSON that Envoy reads: durations, percentages, addresses, typed extensions."""

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]
"""A message of Envoy's API as a JSON object."""

_UNITS = (("HUNDRED", 10_000), ("TEN_THOUSAND", 100), ("MILLION", 1))


def duration(seconds: float) -> str:
    """Return a ``google.protobuf.Duration``."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def fraction(percent: float) -> Document:
    """Return a ``FractionalPercent`` with the smallest denominator that holds four decimals of a percentage."""
    millionths = round(percent * 10_000)
    denominator, unit = next((name, size) for name, size in _UNITS if millionths % size == 0)
    numerator = {"numerator": millionths // unit}
    return numerator if denominator == "HUNDRED" else {**numerator, "denominator": denominator}


def percent(value: float) -> Document:
    """Return a ``Percent``, without a decimal point where there is nothing behind it."""
    return {"value": int(value) if value == int(value) else value}


def socket_address(host: str, port: int) -> Document:
    """Return an ``Address``."""
    return {"socket_address": {"address": host, "port_value": port}}


def typed(message: str, fields: Mapping[str, Any] | None = None) -> Document:
    """Return a ``google.protobuf.Any`` with a message of this full name."""
    return {"@type": f"type.googleapis.com/{message}", **(fields or {})}


def extension(name: str, message: str, fields: Mapping[str, Any] | None = None) -> Document:
    """Return an extension: its name and its typed configuration."""
    return {"name": name, "typed_config": typed(message, fields)}


def literal(text: str) -> str:
    """Return a value of a header in which nothing is substituted."""
    return text.replace("%", "%%")
