"""Scalars of a file to values: texts, numbers, booleans, durations and choices, with words for what is wrong with them.

YAML 1.1 and 1.2 differ in what is a number or a boolean. A plain text that one of them takes for another type is
refused where a text is expected, so that every reader and every editor sees the same value.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import inspect as types

from meshconfig.field_types import DURATION, HOST_TITLE, PERCENT
from meshconfig.quotation import bare, clipped, shortened
from meshconfig.source import Node, Scalar, Sequence
from wire.duration import format_duration, parse_duration
from wire.spelling import spelling_hint

NULLS = frozenset({"", "~", "null", "Null", "NULL"})
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

_OLD_BOOLEANS = frozenset({"yes", "no", "on", "off", "y", "n"})
"""Words that YAML 1.1 reads as booleans and YAML 1.2 as texts."""
_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9]+([eE][-+]?[0-9]+)?", re.ASCII)
_NUMERIC = re.compile(
    r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+"
    r"|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
    re.ASCII,
)
"""Plain texts that some reader of YAML takes for a number."""
_DATE = re.compile(r"[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt ].*)?", re.ASCII)
"""Plain texts that some reader of YAML takes for a date."""
_MAX_HINTED = 64
"""Letters of a text for which the most similar allowed one is looked for."""
_MIN_DURATION = 0.001
"""Seconds of the shortest duration but none."""
_MAX_DIGITS = 20
"""Characters of a number."""

ScalarReader = Callable[[Node, str], Any]
"""Returns the value of a node; messages call it by the name."""


class RefusedValueError(Exception):
    """A node is not the value that its field needs.

    Attributes:
        message: what was written and what is allowed.
        fix: what to do; empty where the message says it.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


def scalar_reader(described: types.Type) -> ScalarReader:
    """Return how a scalar of a type is read.

    Raises:
        TypeError: the type is no scalar that files can have.
    """
    schema: dict[str, Any] = {}
    form = ""
    if isinstance(described, types.Metadata):
        form = (described.extra or {}).get("form", "")
        schema, described = described.extra_json_schema or {}, described.type
    if isinstance(described, types.LiteralType):
        return _choice([str(value) for value in described.values])
    if isinstance(described, types.StrType):
        return _choice(schema["enum"]) if "enum" in schema else _text(described, schema)
    if isinstance(described, types.FloatType) and form == DURATION:
        return _duration(described)
    if isinstance(described, types.IntType | types.FloatType):
        return _number(described, form)
    if isinstance(described, types.BoolType):
        return _boolean
    raise TypeError(described)


def text_or_boolean(node: Node, name: str) -> str | bool:
    """Return the text or the boolean of a node."""
    if type(node) is Scalar and node.plain and node.text in BOOLEANS:
        return BOOLEANS[node.text]
    return str(_any_text(node, name))


def shown(node: Node) -> str:
    """Return a node as messages show it."""
    if type(node) is not Scalar:
        return "a list" if type(node) is Sequence else "a mapping"
    if not node.plain:
        return clipped(node.text)
    return "empty" if node.text in NULLS else bare(node.text)


def hint(text: str, allowed: Iterable[str]) -> str:
    """Return a sentence that names the allowed text that is most similar, or all of them."""
    said = spelling_hint(text if len(text) <= _MAX_HINTED else "", allowed)
    return f"{said[:1].upper()}{said[1:]}{'' if said.endswith('?') else '.'}"


def _choice(allowed: Iterable[str]) -> ScalarReader:
    choices = frozenset(allowed)

    def read(node: Node, name: str) -> str:
        if type(node) is Scalar and node.text in choices:
            return node.text
        raise RefusedValueError(f"{name} is {shown(node)}, which is not allowed.", hint(_text_of(node), choices))

    return read


def _text(described: types.StrType, schema: dict[str, Any]) -> ScalarReader:
    matches = re.compile(described.pattern).fullmatch if described.pattern else None
    title = schema.get("title", "another text")
    examples = schema.get("examples", [])

    def read(node: Node, name: str) -> str:
        if type(node) is not Scalar:
            raise RefusedValueError(f"{name} is {shown(node)}; it has to be a text.")
        text = node.text
        if node.plain and (taken := _other_type(text)):
            message = f"{name} is {shortened(text)}, which readers of YAML take for {taken}."
            raise RefusedValueError(message, f'Write it in quotes: "{shortened(text)}".')
        if matches is not None and not matches(text):
            fix = f"Write it like {examples[0]}." if examples else ""
            if title == HOST_TITLE and not text.isascii():
                # It is not computed here: Python has the rules of 2003 for it, and browsers have later ones.
                fix = "Write it in ASCII as clients send it, each part with other letters as xn--…."
            raise RefusedValueError(f"{name} is {clipped(text)}; it has to be {title}.", fix)
        return text

    return read


_any_text = _text(types.StrType(), {})


def _boolean(node: Node, name: str) -> bool:
    if type(node) is Scalar and node.plain and node.text in BOOLEANS:
        return BOOLEANS[node.text]
    raise RefusedValueError(f"{name} is {shown(node)}; it has to be true or false.")


def _duration(described: types.FloatType) -> ScalarReader:
    def read(node: Node, name: str) -> float:
        text = _text_of(node)
        if type(node) is not Scalar or (_NUMBER.fullmatch(text) and text != "0"):
            message = f"{name} is {shown(node)}; it has to be a duration with its unit."
            raise RefusedValueError(message, "Write it like 250ms, 3s or 1m.")
        try:
            seconds = parse_duration(text)
        except ValueError:
            message = f"{name} is {clipped(text)}; it has to be a duration, of ten years at most."
            raise RefusedValueError(message, "Write it like 250ms, 3s or 1m.") from None
        if 0 < seconds < _MIN_DURATION:
            message = f"{name} is {clipped(text)}: Envoy counts whole milliseconds, and takes less than one for 0s."
            raise RefusedValueError(message, "Write 1ms or more, or 0s.")
        if described.gt is not None and seconds <= described.gt:
            message = f"{name} is {clipped(text)}; it has to be more than {format_duration(described.gt)}."
            raise RefusedValueError(message)
        if described.ge is not None and seconds < described.ge:
            message = f"{name} is {clipped(text)}; it has to be at least {format_duration(described.ge)}."
            raise RefusedValueError(message)
        return seconds

    return read


def _number(described: types.IntType | types.FloatType, form: str) -> ScalarReader:
    whole = isinstance(described, types.IntType)
    words = "a whole number" if whole else "a percentage" if form == PERCENT else "a number"
    allowed = f"it has to be {words}{_bounds(described)}"

    def read(node: Node, name: str) -> float:
        text = node.text if type(node) is Scalar and node.plain else ""
        if len(text) > _MAX_DIGITS or not _NUMBER.fullmatch(text) or (whole and not text.lstrip("+-").isdigit()):
            number_alone = form == PERCENT and text.endswith("%") and _NUMBER.fullmatch(text[:-1])
            raise RefusedValueError(
                f"{name} is {shown(node)}; {allowed}.", f"Write {text[:-1]}." if number_alone else ""
            )
        number: float = int(text) if whole else float(text)
        if not _is_within(number, described):
            raise RefusedValueError(f"{name} is {text}; {allowed}.")
        if form == PERCENT and round(number, 4) != number:
            raise RefusedValueError(f"{name} is {text}; a percentage has at most four decimals.")
        return number

    return read


def _is_within(number: float, described: types.IntType | types.FloatType) -> bool:
    return (
        (described.ge is None or number >= described.ge)
        and (described.gt is None or number > described.gt)
        and (described.le is None or number <= described.le)
        and abs(number) != float("inf")
    )


def _bounds(described: types.IntType | types.FloatType) -> str:
    if described.ge is not None and described.le is not None:
        return f" from {described.ge:g} to {described.le:.12g}"
    if described.ge is not None:
        return f" of at least {described.ge:g}"
    return f" of more than {described.gt:g}" if described.gt is not None else ""


def _other_type(text: str) -> str:
    """Return what some reader of YAML takes a plain text for, or nothing where all take it for a text."""
    if _NUMERIC.fullmatch(text):
        return "a number"
    if text.lower() in _OLD_BOOLEANS or text in BOOLEANS:
        return "a boolean"
    return "a date" if _DATE.fullmatch(text) else ""


def _text_of(node: Node) -> str:
    return node.text if type(node) is Scalar else ""
