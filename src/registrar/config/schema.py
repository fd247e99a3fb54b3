"""The JSON Schema of the registrar's file, generated from the settings."""

import enum
import functools
import operator
import types
import typing
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct, structs

from registrar.checks.http import StatusRange
from registrar.config.fallback_url import FallbackUrl
from registrar.config.listen import ListenAddress
from registrar.config.secret import Secret
from registrar.config.settings import Settings
from registrar.config.switch import Switch
from registrar.duration import Duration
from registrar.envoy_admin.address import EnvoyAdminAddress
from registrar.identity.spec import EndpointSpec
from registrar.registry_client.registries import RegistryUrls

# The schemas of the settings' own types, as files write them.
_WRITTEN: dict[type, dict[str, Any]] = {
    Duration: {"type": ["string", "number"], "examples": ["5s", "500ms", "1m30s"]},
    EndpointSpec: {"type": "string", "examples": [":8080", "10.0.0.5:8080", "iface:eth0:8080", "cidr:10.0.0.0/8:8080"]},
    FallbackUrl: {"type": "string", "examples": ["https://objects.internal/{service}.json"]},
    ListenAddress: {
        "type": ["string", "boolean"],
        "examples": ["127.0.0.1:9903", "unix:/run/registrar/edge.sock", "off"],
    },
    EnvoyAdminAddress: {"type": "string", "examples": ["http://127.0.0.1:9901", "unix:/run/envoy/admin.sock"]},
    RegistryUrls: {"type": "string", "examples": ["http://10.0.0.2:8080,http://10.0.0.3:8080"]},
    Secret: {"type": "string"},
    Switch: {"enum": ["on", "off", True, False]},
    StatusRange: {"type": ["string", "integer"], "examples": ["200-299", 204]},
}


def schema() -> dict[str, Any]:
    """Return the schema of one file; no key is required, as each may be in another file of the directory."""
    _, components = msgspec.json.schema_components(
        [_copy(Settings)], schema_hook=_WRITTEN.__getitem__, ref_template="#/$defs/{name}"
    )
    settings = components.pop("Settings")
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **settings, "$defs": components}
    document |= {
        "title": "Headcount registrar",
        "description": "A file that REGISTRAR_CONFIG names, or one of several.",
    }
    return {key: _portable(value) for key, value in document.items()}


@functools.cache
def _copy(kind: type[Struct]) -> type[Struct]:
    """Return a copy of a struct with defaults as files write them: msgspec cannot encode our own types."""
    hints = get_type_hints(kind, include_extras=True)
    fields = [
        (field.name, _swapped(hints[field.name]), *(() if field.required else (_default(field),)))
        for field in structs.fields(kind)
    ]
    config = kind.__struct_config__
    return msgspec.defstruct(
        kind.__name__, fields, kw_only=True, forbid_unknown_fields=True, tag_field=config.tag_field, tag=config.tag
    )


def _swapped(hint: Any) -> Any:  # noqa: ANN401 - any type form
    """Return a type with the copy of each struct in it."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        return _copy(hint)
    inner = tuple(_swapped(part) for part in get_args(hint))
    match get_origin(hint):
        case None:
            return hint
        case typing.Annotated:
            return Annotated[_swapped(hint.__origin__), *hint.__metadata__]
        case types.UnionType | typing.Union:
            return functools.reduce(operator.or_, inner)
        case origin:
            return origin[inner]


def _default(field: structs.FieldInfo) -> Any:  # noqa: ANN401 - any value
    if isinstance(field.default, str | int | bool | None) and not isinstance(field.default, enum.Enum):
        return field.default
    if isinstance(field.default, Duration | FallbackUrl | ListenAddress | Switch | enum.Enum):
        return str(field.default)
    # The description of a list or mapping says what its absence means.
    return msgspec.field(default_factory=lambda: None)


def _portable(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a schema whose patterns lack the look-ahead that only Python's ``$`` needs."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item) for item in value]
    return value.replace("$(?!\n)", "$") if isinstance(value, str) else value
