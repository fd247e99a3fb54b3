"""Validation errors of msgspec as sentences for people: the field, and what it has to be."""

import re
from collections.abc import Callable

from wire.model import PRINTABLE_PATTERN, SERVICE_PATTERN

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_UNITS = {"str": "letters", "array": "items", "object": "fields"}
_PATTERNS = {
    SERVICE_PATTERN: "has to be letters, digits and . _ : @ ~ -, with a letter or digit at its beginning, 255 at most",
    PRINTABLE_PATTERN: "has to be without control characters",
}
"""A predicate for each pattern that the wire's types use."""
_NO_NEWLINE = r"(?!\n)"
"""End of a pattern that only Python needs, whose $ also matches in front of a final newline."""

INVALID = re.compile(r"Invalid (?:enum )?value (.*)")
"""What is said of a value that is none of an enumeration."""

_FORMS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (
        re.compile(r"Expected `(?:int|float)` (>=|<=|>|<) (\S+)"),
        lambda match: f"has to be {_BOUNDS[match[1]]} {float(match[2]):.17g}",
    ),
    (
        re.compile(r"Expected `(str|array|object)` of length (>=|<=) (\d+)"),
        lambda match: f"has to have {_BOUNDS[match[2]]} {match[3]} {_UNITS[match[1]]}",
    ),
    (
        re.compile(r"Expected `([^`]+)`, got `([^`]+)`"),
        lambda match: f"has to be {_types(match[1])}, not {_types(match[2])}",
    ),
    (INVALID, lambda match: f"may not be {match[1]}"),
    (re.compile(r"Expected `str` matching regex '(.*)'"), lambda match: _pattern(match[1])),
    (re.compile(r"Object contains unknown field `(.*)`"), lambda match: f"has no field `{match[1]}`"),
    (re.compile(r"Object missing required field `(.*)`"), lambda match: f"lacks the field `{match[1]}`"),
]


def predicate(message: str) -> str | None:
    """Return msgspec's message as a sentence without its subject, or None for a message of unknown form."""
    for form, sentence in _FORMS:
        match = form.fullmatch(message)
        if match is not None:
            return sentence(match)
    return None


def _pattern(printed: str) -> str:
    # msgspec writes the pattern as Python's repr() does.
    pattern = printed.replace("\\\\", "\\")
    return _PATTERNS.get(pattern) or f"has to match the pattern {pattern.removesuffix(_NO_NEWLINE)}"


def _types(names: str) -> str:
    return " or ".join(_TYPES.get(name, name) for name in names.split(" | "))
