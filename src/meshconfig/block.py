"""Nodes of a file to blocks of values with positions, checked field by field against the Structs.

Only what one value says is checked here. Required fields are not: another layer of the precedence may write them.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from msgspec import Struct
from msgspec import inspect as types

from meshconfig.definition.edge import Edge
from meshconfig.definition.gateway import Gateway
from meshconfig.definition.group import Group
from meshconfig.definition.limit import Limit
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.policies import Policies
from meshconfig.definition.service import Service
from meshconfig.definition.tls import Tls
from meshconfig.position import Fault, Position
from meshconfig.quotation import bare, clipped
from meshconfig.scalar import BOOLEANS, NULLS, RefusedValueError, hint, scalar_reader, shown, text_or_boolean
from meshconfig.source import Mapping as MappingNode
from meshconfig.source import Node, Scalar, Sequence

_INVALID = object()
"""Stands for a value whose fault has been reported."""
IMPORTED_LIMIT = "circuit_breaker"
"""The name of ``limit`` in definitions of kumonos and itacho."""
IMPORTED_LIMITS: Mapping[str, str] = {
    "max_connections": "connections",
    "max_pending_requests": "pending_requests",
    "max_requests": "requests",
    "max_retries": "retries",
}
"""The names of its fields there."""
_FILES: frozenset[type[Struct]] = frozenset({Mesh, Service, Group, Gateway, Edge})


class Block(Struct):
    """The values that a file writes for one Struct.

    Attributes:
        kind: the Struct.
        file: the file.
        line: the line of its first key.
        column: the column of its first key.
        values: the value of each valid field; of a field that is itself a Struct, a block, or None for null.
        places: the place (line, column) of the value of each field that is written, valid or not; of a list ``hosts``
            also those of its items, as ``hosts[0]``, and of a mapping those of its values, as ``split[shop]``.
    """

    kind: type[Struct]
    file: str
    line: int
    column: int
    values: dict[str, Any]
    places: dict[str, tuple[int, int]]

    def position(self, field: str = "") -> Position:
        """Return where a field stands, or an item such as ``hosts[0]``; the block where it does not."""
        line, column = self.places.get(field, (self.line, self.column))
        return Position(self.file, line, column)

    def writes(self, field: str) -> bool:
        """Tell whether a field is written and not null, be its value valid or not."""
        return field in self.places and self.values.get(field, field) is not None

    def text(self, field: str) -> str:
        """Return the valid text of a field; nothing where there is none."""
        return self.values.get(field) or ""

    def place(self, *paths: str) -> Position | None:
        """Return where the first of these values that the block writes stands; a nested one is ``retry.when``."""
        for path in paths:
            outer, dot, field = path.partition(".")
            if not dot:
                if outer in self.values:
                    return self.position(outer)
                continue
            inner = self.values.get(outer)
            if type(inner) is Block and field in inner.values:
                return inner.position(field)
        return None

    def blocks(self, field: str) -> "tuple[Block, ...]":
        """Return the valid blocks of a list."""
        return tuple(block for block in self.values.get(field) or () if type(block) is Block)


def read(kind: type[Struct], file: str, node: Node) -> tuple[Block | None, list[Fault]]:
    """Return what a file writes for a Struct, and everything that is wrong with single fields."""
    reader = _Reader(file)
    block = reader.block(kind, node, "The file")
    return (block if type(block) is Block else None), reader.faults


class _Reader:
    """The reading of one file."""

    def __init__(self, file: str) -> None:
        self.faults: list[Fault] = []
        self._file = file

    def block(self, kind: type[Struct], node: Node, name: str, renamed: Mapping[str, str] = {}) -> Any:  # noqa: ANN401
        """Return the block of a Struct."""
        if type(node) is not MappingNode:
            return self.fault(node, f"{name} is {shown(node)}; it has to be a mapping.", f"Its keys are {_keys(kind)}.")
        block = Block(kind, self._file, node.line, node.column, {}, {})
        plan = _plan(kind)
        for key, value in node.entries.items():
            field = renamed.get(key, key)
            imported = key == IMPORTED_LIMIT and issubclass(kind, Policies)
            if imported:
                field = "limit"
            entry = plan.get(field)
            if entry is None:
                self._unknown_key(kind, node, key)
            elif field in block.places:
                message = f"{key} and {field} are names of one thing, and both are written."
                self.faults.append(Fault(Position(self._file, *node.keys[key]), message, "Remove one of them."))
            else:
                block.places[field] = value.line, value.column
                result = self.block(Limit, value, key, IMPORTED_LIMITS) if imported else entry(self, value, key, block)
                if result is not _INVALID:
                    block.values[field] = result
        return block

    def fault(self, node: Node, message: str, fix: str = "") -> object:
        """Report a fault at a node."""
        self.faults.append(Fault(Position(self._file, node.line, node.column), message, fix))
        return _INVALID

    def _unknown_key(self, kind: type[Struct], node: MappingNode, key: str) -> None:
        if key == "envoy":
            fix = "It is reserved for patches of Envoy's own configuration, which do not exist yet."
        elif key == "<<":
            fix = "Merge keys are not read; share values by groups, by provides.defaults or by defaults of mesh.yaml."
        else:
            fix = hint(key, _plan(kind))
        message = f"{clipped(key)} is not a key of {_words(kind)}."
        self.faults.append(Fault(Position(self._file, *node.keys[key]), message, fix))


_Entry = Callable[[_Reader, Node, str, Block], Any]
"""Reads the value of a field or of an item, by which name messages call it; places of items go to the block."""


@cache
def _plan(kind: type[Struct]) -> dict[str, _Entry]:
    """Return how each field of a Struct is read."""
    described = types.type_info(kind)
    assert isinstance(described, types.StructType)  # noqa: S101  # what the description of a Struct is
    return {field.encode_name: _entry(field.type) for field in described.fields}


def _entry(described: types.Type) -> _Entry:
    """Return how a value of a type is read."""
    if not isinstance(described, types.UnionType):
        return _not_null(_entry_of(described))
    parts = [part for part in described.types if not isinstance(part, types.NoneType)]
    entry = _entry_of(parts[0]) if len(parts) == 1 else _scalar(text_or_boolean)
    if len(parts) == len(described.types):
        return _not_null(entry)
    switch = isinstance(parts[0], types.StructType) and parts[0].cls is Tls
    return _nullable(_switchable(entry) if switch else entry)


def _entry_of(described: types.Type) -> _Entry:
    match described:
        case types.StructType(cls=kind):
            return lambda reader, node, name, _: reader.block(kind, node, name)
        case types.VarTupleType(item_type=item):
            return _list(_entry(item))
        case types.TupleType(item_types=items):
            return _list(_entry(items[0]), len(items))
        case types.DictType(key_type=key, value_type=value):
            return _mapping(_entry(key), _entry(value))
        case _:
            return _scalar(scalar_reader(described))


def _scalar(read_scalar: Callable[[Node, str], Any]) -> _Entry:
    def entry(reader: _Reader, node: Node, name: str, _: Block) -> Any:  # noqa: ANN401  # any value
        try:
            return read_scalar(node, name)
        except RefusedValueError as refused:
            return reader.fault(node, refused.message, refused.fix)

    return entry


def _is_null(node: Node) -> bool:
    return type(node) is Scalar and node.plain and node.text in NULLS


def _nullable(inner: _Entry) -> _Entry:
    def entry(reader: _Reader, node: Node, name: str, block: Block) -> Any:  # noqa: ANN401  # any value
        return None if _is_null(node) else inner(reader, node, name, block)

    return entry


def _not_null(inner: _Entry) -> _Entry:
    def entry(reader: _Reader, node: Node, name: str, block: Block) -> Any:  # noqa: ANN401  # any value
        if _is_null(node):
            return reader.fault(
                node, f"{name} is empty, and cannot be switched off.", "Write a value, or leave it out."
            )
        return inner(reader, node, name, block)

    return entry


def _switchable(inner: _Entry) -> _Entry:
    """Return the entry of a block that may be written as true or false."""

    def entry(reader: _Reader, node: Node, name: str, block: Block) -> Any:  # noqa: ANN401  # any value
        if type(node) is Scalar and node.plain and node.text in BOOLEANS:
            return Block(Tls, block.file, node.line, node.column, {}, {}) if BOOLEANS[node.text] else None
        return inner(reader, node, name, block)

    return entry


def _list(item: _Entry, length: int | None = None) -> _Entry:
    def entry(reader: _Reader, node: Node, name: str, block: Block) -> Any:  # noqa: ANN401  # any value
        if type(node) is not Sequence:
            return reader.fault(node, f"{name} is {shown(node)}; it has to be a list.", "Write it in brackets: [a, b].")
        if length is not None and len(node.items) != length:
            return reader.fault(node, f"{name} has {len(node.items)} items; it has to have {length}.")
        values = []
        for index, each in enumerate(node.items):
            block.places[f"{name}[{index}]"] = each.line, each.column
            values.append(item(reader, each, name, block))
        # The valid blocks of a list are read on for their own faults; of plain values, the list would be another one.
        if any(type(value) is Block for value in values):
            return tuple(value for value in values if value is not _INVALID)
        return _INVALID if _INVALID in values else tuple(values)

    return entry


def _mapping(key: _Entry, value: _Entry) -> _Entry:
    def entry(reader: _Reader, node: Node, name: str, block: Block) -> Any:  # noqa: ANN401  # any value
        if type(node) is not MappingNode:
            return reader.fault(node, f"{name} is {shown(node)}; it has to be a mapping.", "Write it as {key: value}.")
        values = {}
        for written, each in node.entries.items():
            block.places[f"{name}[{written}]"] = each.line, each.column
            line, column = node.keys[written]
            checked = key(reader, Scalar(written, False, line, column), f"A key of {name}", block)
            values[checked] = value(reader, each, f"{name}.{bare(written)}", block)
        return _INVALID if _INVALID in values or _INVALID in values.values() else values

    return entry


def _words(kind: type[Struct]) -> str:
    """Return a Struct's name as words: HeaderMatch is `a header match`."""
    if kind in _FILES:
        return "this file"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _keys(kind: type[Struct]) -> str:
    return ", ".join(_plan(kind))
