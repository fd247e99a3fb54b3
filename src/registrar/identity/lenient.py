"""Documents of AWS's agents, read field by field: a field that is null or of another type counts as missing.

The reader of a document decides which fields it needs. A wrong field that is not needed, or that belongs to another
container, must not make the whole document unreadable.
"""

import functools
import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct, structs

S = TypeVar("S", bound=Struct)

_MISSING = object()


def read(body: bytes, kind: type[S]) -> S:
    """Return a document as a ``kind``, each of whose fields has to have a default.

    Raises:
        msgspec.DecodeError: it is no JSON object.
    """
    document = msgspec.json.decode(body)
    if not isinstance(document, dict):
        raise msgspec.DecodeError(f"expected an object, got {type(document).__name__}")
    return _struct(document, kind)


def _struct(document: dict[str, Any], kind: type[S]) -> S:
    values = {}
    for name, key, hint in _fields(kind):
        value = _value(document.get(key), hint)
        if value is not _MISSING:
            values[name] = value
    return kind(**values)


@functools.cache
def _fields(kind: type[Struct]) -> list[tuple[str, str, Any]]:
    """Return each field's name, its name in the document, and its type without None."""
    hints = get_type_hints(kind)
    return [(field.name, field.encode_name, _some(hints[field.name])) for field in structs.fields(kind)]


def _some(hint: Any) -> Any:  # noqa: ANN401 - any type form
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def _value(value: object, hint: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(hint, type) and issubclass(hint, Struct):
        return _struct(value, hint) if isinstance(value, dict) else _MISSING
    if get_origin(hint) is tuple:
        return _items(value, get_args(hint)[0]) if isinstance(value, list) else _MISSING
    return _scalar(value, hint)


def _items(values: list[object], hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 - as above
    items = (_value(value, hint) for value in values)
    return tuple(item for item in items if item is not _MISSING)


def _scalar(value: object, hint: type) -> object:
    if isinstance(value, bool):
        return _MISSING
    if hint is str and isinstance(value, int | float):
        return str(value)
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError:
        return _MISSING
