"""The JSON Schema of definitions, for editors, and the descriptions of fields that it shares with the reference.

It is made from the same types that files are checked against, and says of each field what it may be on its own.
Rules that relate fields to each other are not in it; `registryctl mesh validate` knows them.
"""

import re
import types as python_types
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args, get_origin

from msgspec import NODEFAULT, Struct, structs
from msgspec import inspect as types

from meshconfig.block import IMPORTED_LIMIT, IMPORTED_LIMITS
from meshconfig.definition.edge import Certificate, Edge, Site
from meshconfig.definition.gateway import Gateway
from meshconfig.definition.group import Group
from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.policies import Policies
from meshconfig.definition.route import HeaderMatch
from meshconfig.definition.service import Service
from meshconfig.definition.tls import Tls
from meshconfig.field_types import DURATION
from wire.duration import format_duration

KINDS: Mapping[str, type[Struct]] = {
    "mesh": Mesh,
    "service": Service,
    "group": Group,
    "gateway": Gateway,
    "edge": Edge,
}
"""The kinds of files, by the name of what they define."""

_COMPLETE: frozenset[type[Struct]] = frozenset({HeaderMatch, Site, Certificate, Gateway, GatewayListen, Edge})
"""Structs whose required fields no other layer can write."""
_DURATION_PATTERN = r"^(0|([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+)$"
_ATTRIBUTE = re.compile(r"^        (\w+): (.*(?:\n            .*)*)", re.MULTILINE)


def json_schema(kind: str | None = None) -> dict[str, Any]:
    """Return the schema of the files of a kind (mesh, service, group, gateway or edge), or of any of them.

    Raises:
        KeyError: there is no such kind.
    """
    kinds = list(KINDS.values()) if kind is None else [KINDS[kind]]
    definitions: dict[str, Any] = {}
    for each in kinds:
        _define(each, definitions)
    title = "A definition of a mesh" if kind is None else f"Definition of a {kind}"
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    root = [{"$ref": f"#/$defs/{each.__name__}"} for each in kinds]
    return document | (root[0] if kind is not None else {"anyOf": root}) | {"$defs": dict(sorted(definitions.items()))}


@cache
def descriptions(kind: type[Struct]) -> Mapping[str, str]:
    """Return what each field of a Struct means, as its docstring and those of its bases say."""
    sentences: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        section = (each.__dict__.get("__doc__") or "").partition("Attributes:\n")[2]
        for name, text in _ATTRIBUTE.findall(section):
            words = " ".join(text.split()).replace("``", "`")
            sentences[name] = f"{words[:1].upper()}{words[1:]}"
    return sentences


def is_required(kind: type[Struct], field: structs.FieldInfo) -> bool:
    """Tell whether each file that has the block has to write a field; a file's name need not be repeated."""
    nothing = field.default is NODEFAULT and field.default_factory is NODEFAULT
    return nothing and kind in _COMPLETE and field.name != kind.__name__.lower()


def default_of(field: structs.FieldInfo) -> Any:  # noqa: ANN401  # any JSON
    """Return a field's built-in value as files write it; NODEFAULT where there is none, and for blocks."""
    value = field.default
    if value is NODEFAULT or isinstance(value, Struct):
        return NODEFAULT
    if isinstance(value, float) and _is_duration(field.type):
        return format_duration(value)
    return list(value) if isinstance(value, tuple) else value


def _define(kind: type[Struct], definitions: dict[str, Any]) -> None:
    """Put the schema of a Struct, and of the Structs in it, into the definitions."""
    if kind.__name__ in definitions:
        return
    described = types.type_info(kind)
    assert isinstance(described, types.StructType)  # noqa: S101  # what the description of a Struct is
    properties: dict[str, Any] = {}
    schema: dict[str, Any] = {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").partition("\n\n")[0].split()),
        "additionalProperties": False,
        "properties": properties,
    }
    definitions[kind.__name__] = schema
    fields = {field.name: field for field in structs.fields(kind)}
    for each in described.fields:
        field = fields[each.name]
        properties[each.name] = {**_value(each.type, definitions), "description": descriptions(kind)[each.name]}
        default = default_of(field)
        if default not in (NODEFAULT, None):
            properties[each.name]["default"] = default
    if issubclass(kind, Policies):
        properties[IMPORTED_LIMIT] = _imported_limit(definitions["Limit"])
    required = [name for name, field in fields.items() if is_required(kind, field)]
    if required:
        schema["required"] = required


def _imported_limit(limit: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the block of limits by the names that kumonos has for it and for its fields."""
    imported = {name: limit["properties"][field] for name, field in IMPORTED_LIMITS.items()}
    return limit | {
        "deprecated": True,
        "description": "The name of limit in definitions of kumonos and itacho.",
        "properties": limit["properties"] | imported,
    }


def _value(described: types.Type, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value."""
    if isinstance(described, types.UnionType):
        return {"anyOf": [_value(part, definitions) for part in described.types]}
    if isinstance(described, types.Metadata):
        duration = (described.extra or {}).get("form") == DURATION
        schema = {"type": "string", "pattern": _DURATION_PATTERN, "examples": ["250ms", "3s", "1m"]}
        return schema if duration else _value(described.type, definitions) | (described.extra_json_schema or {})
    if isinstance(described, types.StructType):
        _define(described.cls, definitions)
        reference = {"$ref": f"#/$defs/{described.cls.__name__}"}
        return {"anyOf": [reference, {"type": "boolean"}]} if described.cls is Tls else reference
    return _container(described, definitions) or _scalar(described)


def _container(described: types.Type, definitions: dict[str, Any]) -> dict[str, Any]:
    if isinstance(described, types.VarTupleType):
        return {"type": "array", "items": _value(described.item_type, definitions)}
    if isinstance(described, types.TupleType):
        items = [_value(item, definitions) for item in described.item_types]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if isinstance(described, types.DictType):
        names = _value(described.key_type, definitions)
        return {
            "type": "object",
            "propertyNames": {"pattern": names["pattern"]} if "pattern" in names else {},
            "additionalProperties": _value(described.value_type, definitions),
        }
    return {}


def _scalar(described: types.Type) -> dict[str, Any]:
    if isinstance(described, types.LiteralType):
        return {"enum": list(described.values)}
    if isinstance(described, types.StrType):
        return {"type": "string"} | ({"pattern": described.pattern} if described.pattern else {})
    if isinstance(described, types.IntType | types.FloatType):
        name = "integer" if isinstance(described, types.IntType) else "number"
        bounds = {"minimum": described.ge, "exclusiveMinimum": described.gt, "maximum": described.le}
        return {"type": name} | {key: bound for key, bound in bounds.items() if bound is not None}
    return {"type": "null" if isinstance(described, types.NoneType) else "boolean"}


def _is_duration(hint: Any) -> bool:  # noqa: ANN401  # a type form
    """Tell whether a type, or one of a union, is a duration."""
    if isinstance(hint, python_types.UnionType) or get_origin(hint) is not None:
        metas = getattr(hint, "__metadata__", ())
        if any((getattr(meta, "extra", None) or {}).get("form") == DURATION for meta in metas):
            return True
        return any(_is_duration(part) for part in get_args(hint))
    return False
