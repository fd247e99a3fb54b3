"""The environment variables of registrator; they are read if REGISTRAR_REGISTRATOR_NAMES is set."""

import re
from collections.abc import Mapping
from typing import Any

from registrar.errors import ConfigurationError

# The names that are read, with or without a port.
_READ = (
    "NAME",
    "TAGS",
    "CHECK_HTTP",
    "CHECK_HTTP_METHOD",
    "CHECK_HTTPS",
    "CHECK_HTTPS_METHOD",
    "CHECK_TCP",
    "CHECK_INTERVAL",
    "CHECK_TIMEOUT",
)
_NAME = re.compile(r"SERVICE_((?P<port>[0-9]{1,5})_)?(?P<name>[A-Z][A-Z0-9_]*)")
# registrator's default: a check with a timeout of registrator's may need more than our default interval.
_DEFAULT_INTERVAL = "10s"
_TIMES = (("interval", "CHECK_INTERVAL"), ("timeout", "CHECK_TIMEOUT"))
_FIXES = {
    "CHECK_TTL": "add a push check in a file, and let the app push to the registrar's admin interface",
    "CHECK_SCRIPT": "add an exec check in a file",
    "CHECK_CMD": "add an exec check in a file",
    "CHECK_GRPC": "add a grpc check in a file",
    "ID": "REGISTRAR_INSTANCE_ID names the instance",
}


def add_registrator_services(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Add the services of registrator's variables to a document without services.

    ``SERVICE_8080_NAME`` is a service at port 8080. ``SERVICE_NAME`` is a service whose address another setting has.
    ``SERVICE_TAGS`` and ``SERVICE_CHECK_HTTP`` apply to every port that has no variable of its own.

    Raises:
        ConfigurationError: the files have services too.
    """
    services = _services(environ)
    if services and document.get("services"):
        fault = "REGISTRAR_REGISTRATOR_NAMES: the files have services too; remove those, or registrator's variables"
        raise ConfigurationError([fault])
    if services:
        document["services"] = services


def ignored_names(environ: Mapping[str, str]) -> dict[str, str]:
    """Return registrator's variables that are set but ignored, each with what to do instead."""
    names = {name: match["name"] for name in environ if environ[name] and (match := _NAME.fullmatch(name))}
    return {
        variable: _FIXES.get(name, "unset it, or write its meaning into the file that REGISTRAR_CONFIG names")
        for variable, name in sorted(names.items())
        if name not in _READ and not (name == "IGNORE" and variable != "SERVICE_IGNORE")
    }


def _services(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    common: dict[str, str] = {}
    ports: dict[str, dict[str, str]] = {}
    for name, text in environ.items():
        match = _NAME.fullmatch(name)
        if match is not None and text:
            of = common if match["port"] is None else ports.setdefault(match["port"], {})
            of[match["name"]] = text
    named = {port: of_port for port, of_port in ports.items() if "NAME" in of_port and "IGNORE" not in of_port}
    if named:
        return [_service(common | of_port, f":{port}") for port, of_port in sorted(named.items(), key=_by_port)]
    return [_service(common, "")] if "NAME" in common else []


def _by_port(item: tuple[str, dict[str, str]]) -> int:
    return int(item[0])


def _service(values: Mapping[str, str], endpoint: str) -> dict[str, Any]:
    service: dict[str, Any] = {"service": values["NAME"]}
    if endpoint:
        service["endpoint"] = endpoint
    tags = [tag.strip() for tag in values.get("TAGS", "").split(",") if tag.strip()]
    if tags:
        # One metadata key for each tag, so that Envoy can select subsets by them.
        service["metadata"] = {name: value or True for name, _, value in (tag.partition("=") for tag in tags)}
    checks = _checks(values)
    if checks:
        service["checks"] = checks
    return service


def _checks(values: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the checks of the variables; without any the default of the settings applies, a tcp check."""
    checks: list[dict[str, Any]] = []
    for name in ("CHECK_HTTP", "CHECK_HTTPS"):
        if name in values:
            check: dict[str, Any] = {"type": "http", "path": values[name]}
            if name == "CHECK_HTTPS":
                check["tls"] = {}
            if f"{name}_METHOD" in values:
                check["method"] = values[f"{name}_METHOD"].upper()
            checks.append(check)
    times = {key: values[name] for key, name in _TIMES if name in values}
    if values.get("CHECK_TCP") or (times and not checks):
        checks.append({"type": "tcp"})
    if "timeout" in times:
        times.setdefault("interval", _DEFAULT_INTERVAL)
    return [check | times for check in checks]
