"""The environment names of registrator, for those who come from it; read only if asked to."""

import re
from collections.abc import Mapping
from typing import Any

from registrar.errors import ConfigurationError

# What is read, of one port or of all.
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
_NAME = re.compile(r"SERVICE_((?P<port>[0-9]{1,5})_)?(?P<what>[A-Z][A-Z0-9_]*)")
# registrator's own, for a check whose timeout may be longer than our interval.
_INTERVAL = "10s"
_TIMES = (("interval", "CHECK_INTERVAL"), ("timeout", "CHECK_TIMEOUT"))
_FIXES = {
    "CHECK_TTL": "add a push check in a file, and let the app push to the registrar's admin interface",
    "CHECK_SCRIPT": "add an exec check in a file",
    "CHECK_CMD": "add an exec check in a file",
    "CHECK_GRPC": "add a grpc check in a file",
    "ID": "REGISTRAR_INSTANCE_ID names the instance",
}


def add_registrator_services(document: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Add what registrator's variables say to a document without services.

    ``SERVICE_8080_NAME`` names an endpoint of its own, ``SERVICE_NAME`` the one whose address another setting
    tells; ``SERVICE_TAGS`` and ``SERVICE_CHECK_HTTP`` hold for all without one of their port.

    Raises:
        ConfigurationError: the files have services too, so that one of the two would be ignored.
    """
    found = _services(environ)
    if found and document.get("services"):
        raise ConfigurationError(["REGISTRAR_REGISTRATOR_NAMES: the files have services as well; use one of them"])
    if found:
        document["services"] = found


def ignored_names(environ: Mapping[str, str]) -> dict[str, str]:
    """Return registrator's variables that are set and not read, each with what to do instead."""
    told = {name: match["what"] for name in environ if environ[name] and (match := _NAME.fullmatch(name))}
    return {
        name: _FIXES.get(what, "take it away, or write what it means into the file that REGISTRAR_CONFIG names")
        for name, what in sorted(told.items())
        if what not in _READ and not (what == "IGNORE" and name != "SERVICE_IGNORE")
    }


def _services(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    common: dict[str, str] = {}
    ports: dict[str, dict[str, str]] = {}
    for name, text in environ.items():
        match = _NAME.fullmatch(name)
        if match is not None and text:
            of = common if match["port"] is None else ports.setdefault(match["port"], {})
            of[match["what"]] = text
    named = {port: of_port for port, of_port in ports.items() if "NAME" in of_port and "IGNORE" not in of_port}
    if named:
        return [_service(common | of_port, f":{port}") for port, of_port in sorted(named.items(), key=_by_port)]
    return [_service(common, "")] if "NAME" in common else []


def _by_port(item: tuple[str, dict[str, str]]) -> int:
    return int(item[0])


def _service(told: Mapping[str, str], endpoint: str) -> dict[str, Any]:
    service: dict[str, Any] = {"service": told["NAME"]}
    if endpoint:
        service["endpoint"] = endpoint
    tags = [tag.strip() for tag in told.get("TAGS", "").split(",") if tag.strip()]
    if tags:
        # One value for each, so that Envoy can select subsets by them.
        service["metadata"] = {name: value or True for name, _, value in (tag.partition("=") for tag in tags)}
    checks = _checks(told)
    if checks:
        service["checks"] = checks
    return service


def _checks(told: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the checks that the variables ask for; none leaves it to the default, a tcp check."""
    checks: list[dict[str, Any]] = []
    for what in ("CHECK_HTTP", "CHECK_HTTPS"):
        if what in told:
            check: dict[str, Any] = {"type": "http", "path": told[what]}
            if what == "CHECK_HTTPS":
                check["tls"] = {}
            if f"{what}_METHOD" in told:
                check["method"] = told[f"{what}_METHOD"].upper()
            checks.append(check)
    times = {key: told[what] for key, what in _TIMES if what in told}
    if told.get("CHECK_TCP") or (times and not checks):
        checks.append({"type": "tcp"})
    if "timeout" in times:
        times.setdefault("interval", _INTERVAL)
    return [check | times for check in checks]
