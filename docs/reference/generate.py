"""Write the tables of the reference pages that the code knows by itself, and the schema of the registrar's file.

Run as ``python docs/reference/generate.py``; with ``--check`` it writes nothing and exits 1 when a page is not what
the code says.
"""  # noqa: INP001  # a script, no package

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from msgspec import NODEFAULT, Meta, Struct, inspect, structs
from pydantic import IPvAnyNetwork, SecretStr
from pydantic.fields import FieldInfo

from meshconfig.definition.admin import Admin
from meshconfig.definition.authentication import Authentication, ExternalAuthorization, Jwt
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.edge import Certificate, Edge, Site, SiteRoute
from meshconfig.definition.fault_injection import Abort, Delay, FaultInjection, OnlyHeader
from meshconfig.definition.gateway import Gateway, Select
from meshconfig.definition.group import Group
from meshconfig.definition.header_changes import HeaderChanges
from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.listen import GatewayListen, Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.outlier_detection import OutlierDetection
from meshconfig.definition.policies import Defaults, Policies, RoutePolicies
from meshconfig.definition.rate_limit import RateLimit
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.retry import Retry
from meshconfig.definition.route import HeaderMatch, Rewrite, Route
from meshconfig.definition.service import Objectives, Provides
from meshconfig.definition.service import Service as MeshService
from meshconfig.definition.shadow import Shadow
from meshconfig.definition.statistics import Statistics
from meshconfig.definition.sticky import Sticky
from meshconfig.definition.tls import Tls
from meshconfig.definition.tracing import Tracing
from meshconfig.field_types import GRPC_CONDITIONS, RETRY_CONDITIONS, SAFE_CONDITIONS
from meshconfig.schema import default_of, descriptions, is_required
from registrar.checks.check import Options
from registrar.checks.kinds import KINDS
from registrar.checks.network import NetworkOptions
from registrar.checks.tls import TlsOptions
from registrar.config.configuration import flag
from registrar.config.schema import schema
from registrar.config.settings import FLAGS, VARIABLES, Service, reference
from registrar.config.settings import Settings as RegistrarSettings
from registrar.registry_client.registries import RegistryUrls
from registry.settings import Settings as RegistrySettings
from registryctl.cli import main as registryctl
from registryctl.command import SHARED
from registryctl.settings import VARIABLES as OPERATOR_VARIABLES
from wire.duration import format_duration

FOLDER = Path(__file__).parent
SCHEMA = FOLDER / "registrar.schema.json"
_SECTION = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
_ALTERNATIVES = re.compile(r"\^\((?P<words>[a-z|]+)\)\$")

# Words for types that say less than the reader needs.
_REGISTRY_TYPES = {
    "listen": "host:port",
    "plain_listen": "host:port",
    "database_url": "URL",
    "data_dir": "directory",
    "auth_audit_verbs": "verbs",
    "oidc_issuer": "URL",
    "oidc_redirect": "URL",
    "alb_keys_endpoint": "URL",
    "aws_sts_endpoint": "URL",
    "link_service": "links",
    "link_endpoint": "links",
    "max_instance_changes": "number",
    "probes": "off, on",
}
_REGISTRY_TYPES_OF: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "duration",
    str: "text",
    str | None: "text",
    SecretStr | None: "text",
    Path | None: "file",
    tuple[str, ...]: "names",
    tuple[IPvAnyNetwork, ...]: "networks",
}
_FILE_TYPES = {
    "registry_url": "URLs",
    "services": "list of services",
    "endpoint": "endpoint",
    "metadata": "mapping",
    "checks": "list of checks",
    "headers": "mapping",
    "expect_status": "list of statuses and ranges",
    "timeout": "duration",
    "interval": "duration",
    "startup_grace": "duration",
    "drain_wait": "duration",
    "stop_timeout": "duration",
    "on_sigterm": "drain or keep",
    "log_level": "debug, info, warning or error",
    "weight": "integer",
    "jitter": "number from 0 to 1",
    "on_fail": "unhealthy, degraded or ignore",
    "address": "IP address",
    "port": "integer",
    "tls": "mapping",
    "command": "list of words",
    "ttl": "duration",
}


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them; return the exit status."""
    pages = {page: written(page.read_text()) for page in sorted(FOLDER.glob("*.md"))}
    pages[SCHEMA] = json.dumps(schema(), indent=2) + "\n"
    stale = [page for page, text in pages.items() if not page.exists() or page.read_text() != text]
    for page in stale:
        if "--check" in arguments:
            sys.stderr.write(f"{page} is not what the code says; run `make docs` and commit it\n")
        else:
            page.write_text(pages[page])
            sys.stdout.write(f"wrote {page}\n")
    return 1 if stale and "--check" in arguments else 0


def written(text: str) -> str:
    """Return a page with each of its generated sections as the code has it.

    Raises:
        KeyError: a marker names a section that there is not.
    """
    return _SECTION.sub(lambda found: f"{found[1]}\n{SECTIONS[found['name']]()}\n{found[3]}", text)


def _registry_settings() -> str:
    rows = (
        (
            f"`REGISTRY_{name.upper()}`",
            _registry_type(name, field),
            _registry_default(name, field),
            _bounds(field),
            field.description or "",
        )
        for name, field in RegistrySettings.model_fields.items()
    )
    return _table(("variable", "type", "default", "bounds", "meaning, and what turning it does"), rows)


def _registry_type(name: str, field: FieldInfo) -> str:
    for part in field.metadata:
        alternatives = _ALTERNATIVES.fullmatch(getattr(part, "pattern", None) or "")
        if alternatives is not None:
            return ", ".join(alternatives["words"].split("|"))
    if get_origin(field.annotation) is Literal:
        return ", ".join(get_args(field.annotation))
    # A type that has no word here is a defect of this script, and stops it.
    return _REGISTRY_TYPES.get(name) or _REGISTRY_TYPES_OF[field.annotation]


def _registry_default(name: str, field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default)) or None
    if default is None or isinstance(default, SecretStr):
        return "unset"
    if _registry_type(name, field) == "duration":
        return f"`{format_duration(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _bounds(field: FieldInfo) -> str:
    def show(bound: float) -> str:
        return format_duration(bound) if field.annotation is float else str(bound)

    least = next((show(part.ge) for part in field.metadata if hasattr(part, "ge")), "")
    most = next((show(part.le) for part in field.metadata if hasattr(part, "le")), "")
    if least and most:
        return f"{least} to {most}"
    return f"from {least}" if least else ""


def _registrar_variables() -> str:
    rows = (
        (f"`{line.name}`", line.type.replace(" | ", ", "), _variable_default(line.name, line.default), line.description)
        for line in reference()
    )
    return _table(("variable", "type", "default", "meaning, and what turning it does"), rows)


def _variable_default(variable: str, default: str) -> str:
    owner, name = VARIABLES[variable]
    field = next(field for field in structs.fields(owner) if field.name == name)
    one_has_to = owner in (RegistrarSettings, Service) and _is_required(field)
    return "required" if one_has_to else f"`{default}`" if default else "unset"


def _registrar_flags() -> str:
    lines = (line for line in reference() if line.name in FLAGS)
    rows = ((f"`{flag(line.name)}`", line.type.replace(" | ", ", "), f"`{line.name}`") for line in lines)
    return _table(("flag", "value", "the variable that it wins over"), rows)


def _operator_variables() -> str:
    rows = ((f"`{one.name}`", one.type, f"`{one.default}`", one.meaning) for one in OPERATOR_VARIABLES)
    return _table(("variable", "type", "default", "meaning, and what turning it does"), rows)


def _operator_verbs() -> str:
    group: Any = typer.main.get_command(registryctl)
    return "\n".join(_operator_verb(name, verb) for name, verb in _leaves(group))


def _leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # typer's own group
    """Yield the verbs of a group by their whole names, those of its groups too."""
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from _leaves(verb, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", verb


def _operator_verb(name: str, verb: Any) -> str:  # noqa: ANN401  # typer's own command
    arguments = [one.metavar for one in verb.params if one.param_type_name == "argument" and not one.hidden]
    own = [one for one in verb.params if one.param_type_name == "option" and one.name not in SHARED]
    usage = " ".join(["registryctl", name, *arguments, *(["[options]"] if own else [])])
    rows = ((", ".join(f"`{word}`" for word in [*one.opts, *one.secondary_opts]), one.help or "") for one in own)
    table = f"\n{_table(('option', 'is'), rows)}" if own else ""
    return f"### `registryctl {name}`\n\n`{usage}`\n\n{verb.help}\n{table}"


def _keys(owner: type[Struct], leave_out: type[Struct] | None = None) -> str:
    hints = get_type_hints(owner, include_extras=True)
    known = {field.name for field in structs.fields(leave_out)} if leave_out else set()
    rows = (
        (
            f"`{field.name}`",
            _key_type(field.name, hints[field.name]),
            _key_default(field),
            _description(hints[field.name]),
        )
        for field in structs.fields(owner)
        if field.name not in known
    )
    return _table(("key", "type", "default", "meaning, and what turning it does"), rows)


def _check_type(name: str, options: type[Options]) -> str:
    parent = NetworkOptions if issubclass(options, NetworkOptions) else Options
    if len(structs.fields(options)) == len(structs.fields(parent)):
        return f"The `{name}` check has no others.\n"
    return f"Of the `{name}` check:\n\n{_keys(options, parent)}"


def _key_type(name: str, kind: Any) -> str:  # noqa: ANN401  # a type form
    plain = {bool: "boolean", int: "integer", float: "number"}
    return _FILE_TYPES.get(name) or plain.get(kind.__origin__, "text")


def _key_default(field: structs.FieldInfo) -> str:
    default = field.default_factory() if field.default_factory is not NODEFAULT else field.default
    if _is_required(field):
        return "required"
    if field.name == "checks":
        return "one `tcp` check"
    if default is None or default in ("", (), {}):
        return "unset"
    if isinstance(default, tuple):
        return f"`{[str(item) for item in default]}`".replace("'", "")
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _is_required(field: structs.FieldInfo) -> bool:
    nothing = field.default is NODEFAULT and field.default_factory is NODEFAULT
    return nothing or isinstance(field.default, RegistryUrls) or field.name == "services"


def _description(kind: Any) -> str:  # noqa: ANN401  # a type form
    metas = (part for part in reversed(kind.__metadata__) if isinstance(part, Meta))
    return next(meta.description for meta in metas if meta.description)


def _mesh_keys(kind: type[Struct], leave_out: type[Struct] | None = None) -> str:
    """Return the table of a block of definitions, without the keys of another block that the page shows."""
    shown_elsewhere = {field.name for field in structs.fields(leave_out)} if leave_out else set()
    described = inspect.type_info(kind)
    rows = (
        (
            f"`{field.name}`",
            _mesh_type(type_field.type),
            _mesh_default(kind, field),
            descriptions(kind)[field.name],
        )
        for field, type_field in zip(structs.fields(kind), described.fields, strict=True)
        if field.name not in shown_elsewhere
    )
    return _table(("key", "type", "default", "meaning"), rows)


def _mesh_type(described: inspect.Type) -> str:
    """Return the words for what files may write; a block is a link to its table."""
    match described:
        case inspect.UnionType(types=parts):
            return ", ".join(_mesh_type(part) for part in parts)
        case inspect.Metadata(type=inner, extra=extra, extra_json_schema=schema):
            form = (extra or {}).get("form")
            return form or ("condition" if "enum" in (schema or {}) else _mesh_type(inner))
        case inspect.StructType(cls=kind):
            return f"[{_words(kind)}](#{_words(kind).replace(' ', '-')})"
        case inspect.VarTupleType(item_type=item):
            return f"list of {_mesh_type(item)}"
        case inspect.DictType(value_type=value):
            return f"mapping to {_mesh_type(value)}"
        case _:
            return _mesh_scalar(described)


def _mesh_scalar(described: inspect.Type) -> str:
    match described:
        case inspect.TupleType(item_types=items):
            return f"list of {len(items)} {_mesh_scalar(items[0])}s"
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" for value in values)
        case inspect.IntType(ge=int(least), le=int(most)) if most < 2**31 - 1:
            return f"integer from {least} to {most}"
    words = {inspect.IntType: "integer", inspect.FloatType: "number", inspect.BoolType: "boolean"}
    return words.get(type(described)) or ("null" if isinstance(described, inspect.NoneType) else "text")


def _words(kind: type[Struct]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()


def _mesh_default(kind: type[Struct], field: structs.FieldInfo) -> str:
    default = default_of(field)
    if isinstance(field.default, Struct) or field.default_factory is not NODEFAULT:
        return "its own" if isinstance(field.default, Struct) and field.default is not None else "unset"
    if default is NODEFAULT:
        return "required" if is_required(kind, field) or field.name != kind.__name__.lower() else "the file's name"
    if default in (None, "", []):
        return "unset"
    return f"`{json.dumps(default).replace(chr(34), '')}`"


def _mesh_conditions() -> str:
    rows = (
        (
            f"`{condition}`",
            "every method" if condition in SAFE_CONDITIONS else "GET, HEAD, OPTIONS and idempotent ones",
            "yes" if condition in GRPC_CONDITIONS else "",
        )
        for condition in RETRY_CONDITIONS
    )
    return _table(("condition", "retried for", "gRPC alone"), rows)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


SECTIONS: Mapping[str, Callable[[], str]] = {
    "registry-settings": _registry_settings,
    "registrar-variables": _registrar_variables,
    "registryctl-variables": _operator_variables,
    "registryctl-verbs": _operator_verbs,
    "registrar-flags": _registrar_flags,
    "file-process": lambda: _keys(RegistrarSettings),
    "file-service": lambda: _keys(Service),
    "file-check": lambda: _keys(Options),
    "file-network": lambda: _keys(NetworkOptions, Options),
    "file-check-types": lambda: "\n".join(_check_type(name, options) for name, options in KINDS.items()),
    "file-tls": lambda: _keys(TlsOptions),
    "mesh-conditions": _mesh_conditions,
    **{
        f"mesh-{_words(kind).replace(' ', '-')}": partial(_mesh_keys, kind, leave_out)
        for kind, leave_out in (
            (Mesh, None),
            (RegistryClient, None),
            (Listen, None),
            (Admin, None),
            (Statistics, None),
            (Tracing, None),
            (MeshService, None),
            (Provides, None),
            (Objectives, None),
            (Group, None),
            (Dependency, Policies),
            (HeaderChanges, None),
            (Defaults, Policies),
            (RoutePolicies, None),
            (Policies, RoutePolicies),
            (Retry, None),
            (Limit, None),
            (OutlierDetection, None),
            (HealthCheck, None),
            (Sticky, None),
            (Tls, None),
            (Shadow, None),
            (FaultInjection, None),
            (Abort, None),
            (Delay, None),
            (OnlyHeader, None),
            (RateLimit, None),
            (Authentication, None),
            (Jwt, None),
            (ExternalAuthorization, None),
            (Route, RoutePolicies),
            (HeaderMatch, None),
            (Rewrite, None),
            (Gateway, None),
            (GatewayListen, None),
            (Select, None),
            (Edge, None),
            (Site, None),
            (SiteRoute, Route),
            (Certificate, None),
        )
    },
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
