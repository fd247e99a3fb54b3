"""Values as files of the repository write them, for plans and for tables of effective values."""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_type_hints

from msgspec import NODEFAULT, Meta, Struct
from msgspec.structs import fields

from meshconfig.field_types import DURATION
from wire.duration import format_duration

OFF = "off"
"""Stands for ``null``, which switches a policy off."""


def literal(value: object, *, duration: bool = False) -> str:
    """Return a value in the spelling of a file; a block names what differs from its built-in values.

    Args:
        value: of a field: a number, a text, a block, a list or a mapping of these.
        duration: whether numbers are seconds.
    """
    match value:
        case None:
            text = OFF
        case bool():
            text = str(value).lower()
        case int() | float():
            text = format_duration(value) if duration else f"{value:.10g}"
        case Struct():
            text = _mapping(written(value), durations(type(value)))
        case Mapping():
            text = _mapping(value)
        case tuple() | list():
            text = f"[{', '.join(literal(each, duration=duration) for each in value)}]"
        case _:
            text = str(value) or '""'
    return text


@cache
def durations(block: type[Struct]) -> frozenset[str]:
    """Return the names of the fields of a block that hold durations."""
    hints = get_type_hints(block, include_extras=True)
    return frozenset(name for name, hint in hints.items() if any(map(_is_duration, (hint, *get_args(hint)))))


def _is_duration(hint: object) -> bool:
    metas = (each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Meta))
    return any((each.extra or {}).get("form") == DURATION for each in metas)


def written(block: Struct) -> dict[str, Any]:
    """Return the fields of a block that have no built-in value, or another one."""
    built_in = _built_in_values(type(block))
    values = {name: getattr(block, name) for name in block.__struct_fields__}
    return {name: value for name, value in values.items() if value != built_in[name]}


@cache
def _built_in_values(block: type[Struct]) -> Mapping[str, object]:
    return {
        field.name: field.default if field.default_factory is NODEFAULT else field.default_factory()
        for field in fields(block)
    }


def _mapping(values: Mapping[str, Any], of_duration: frozenset[str] = frozenset()) -> str:
    texts = (f"{name}: {literal(value, duration=name in of_duration)}" for name, value in values.items())
    return f"{{{', '.join(texts)}}}"
