"""A refused document: what is said of it, with the values that its type allows, and where."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from wire.validation_message import INVALID, predicate

_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
"""A step of a path as msgspec writes it: a field, an index, or any item of a set or a dictionary."""
_KEY = "key` in `"
"""What msgspec writes before the place of a dictionary whose key is refused."""
_ANY = "[...]"
"""What it writes for a value of a dictionary or a set."""


def described(error: msgspec.ValidationError, wanted: Any) -> tuple[str, str]:  # noqa: ANN401  # any type
    """Return a sentence about a refused value, and the place of the value.

    The sentence begins with the name of the field.

    Args:
        error: what msgspec says.
        wanted: the type that the document was to have.
    """
    message, _, place = str(error).partition(" - at `")
    is_key = place.startswith(_KEY)
    pointer = place.removeprefix(_KEY).rstrip("`") or "$"
    field = pointer.removesuffix(_ANY).rpartition(".")[2].removeprefix("$") or "the document"
    subject = f"a key of {field}" if is_key else f"a value of {field}" if pointer.endswith(_ANY) else field
    allowed = [] if is_key else _allowed_values(wanted, pointer)
    refused = INVALID.fullmatch(message)
    if allowed and refused is not None:
        choice = f"one of {', '.join(allowed)}" if allowed[1:] else allowed[0]
        return f"{subject} has to be {choice}, not {refused[1]}", pointer
    said = predicate(message)
    return f"{subject}: {message}" if said is None else f"{subject} {said}", pointer


def _allowed_values(wanted: Any, pointer: str) -> list[str]:  # noqa: ANN401  # any type that msgspec reads
    """Return the values of the enumeration at a place of a document; none when there is no enumeration.

    Args:
        wanted: the type of the document.
        pointer: the place, as msgspec names it: ``$.arguments.loggers[...]``.
    """
    kinds = [inspect.type_info(wanted)]
    for field, index in _STEP.findall(pointer):
        kinds = [inner for kind in kinds for each in _members(kind) for inner in _inner(each, field, index)]
    # A tagged union has a member for each tag, and the place may be in several.
    return list(dict.fromkeys(str(value) for kind in kinds for each in _members(kind) for value in _values(each)))


def _members(kind: inspect.Type) -> Iterator[inspect.Type]:
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _members(each)
    else:
        yield kind


def _inner(kind: inspect.Type, field: str, index: str) -> Iterator[inspect.Type]:
    """Yield the types of what is at one step below."""
    match kind:
        case inspect.StructType(tag_field=tag_field, tag=tag) if field and field == tag_field:
            yield inspect.LiteralType((tag,))
        case inspect.StructType(fields=fields) if field:
            yield from (each.type for each in fields if each.encode_name == field)
        case inspect.StructType(fields=fields) if index.isdigit():
            yield from (each.type for each in fields[int(index) : int(index) + 1])
        case inspect.DictType(value_type=inner):
            yield inner
        case inspect.TupleType(item_types=inners) if index.isdigit():
            yield from inners[int(index) : int(index) + 1]
        case inspect.CollectionType(item_type=inner):
            yield inner


def _values(kind: inspect.Type) -> Iterator[object]:
    match kind:
        case inspect.LiteralType(values=values):
            yield from values
        case inspect.EnumType(cls=cls):
            yield from (member.value for member in cls)
