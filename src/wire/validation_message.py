"""What a decoder says against a value, as a sentence for people: which field, and what it has to be."""

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
"""What a text of each known pattern has to be, by the pattern."""
_NO_NEWLINE = r"(?!\n)"
"""The end of a pattern that only Python's $ needs, because it also matches in front of a final newline."""

_FORMS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = [
    (
        re.compile(r"Expected `(?:int|float)` (>=|<=|>|<) (\S+)"),
        lambda found: f"has to be {_BOUNDS[found[1]]} {float(found[2]):.17g}",
    ),
    (
        re.compile(r"Expected `(str|array|object)` of length (>=|<=) (\d+)"),
        lambda found: f"has to have {_BOUNDS[found[2]]} {found[3]} {_UNITS[found[1]]}",
    ),
    (
        re.compile(r"Expected `([^`]+)`, got `([^`]+)`"),
        lambda found: f"has to be {_types(found[1])}, not {_types(found[2])}",
    ),
    (re.compile(r"Invalid (?:enum )?value (.*)"), lambda found: f"may not be {found[1]}"),
    (re.compile(r"Expected `str` matching regex '(.*)'"), lambda found: _pattern(found[1])),
    (re.compile(r"Object contains unknown field `(.*)`"), lambda found: f"has no field `{found[1]}`"),
    (re.compile(r"Object missing required field `(.*)`"), lambda found: f"lacks the field `{found[1]}`"),
]


def validation_message(message: str, pointer: str) -> str:
    """Return what msgspec says of the value at ``pointer`` as a sentence; what has none stands behind the field."""
    field = pointer.rpartition(".")[2].removeprefix("$") or "the document"
    said = predicate(message)
    return f"{field}: {message}" if said is None else f"{field} {said}"


def predicate(message: str) -> str | None:
    """Return what msgspec says of a value as a sentence without its subject, or None when it is not known."""
    for form, sentence in _FORMS:
        found = form.fullmatch(message)
        if found is not None:
            return sentence(found)
    return None


def _pattern(printed: str) -> str:
    # msgspec prints the pattern as Python's repr() does.
    pattern = printed.replace("\\\\", "\\")
    return _PATTERNS.get(pattern) or f"has to match the pattern {pattern.removesuffix(_NO_NEWLINE)}"


def _types(names: str) -> str:
    return " or ".join(_TYPES.get(name, name) for name in names.split(" | "))
