"""The environment names of registrator, for those who come from it; read only if asked to."""

import re
from collections.abc import Mapping
from typing import Any

from registrar.errors import ConfigurationError

_OF_PORT = re.compile(r"SERVICE_(?P<port>[0-9]{1,5})_(?P<what>NAME|TAGS|CHECK_HTTP|CHECK_INTERVAL|IGNORE)")
_COMMON = ("NAME", "TAGS", "CHECK_HTTP", "CHECK_INTERVAL")


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


def _services(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    told = {name: text for name, text in environ.items() if text}
    ports: dict[str, dict[str, str]] = {}
    for name, text in told.items():
        match = _OF_PORT.fullmatch(name)
        if match is not None:
            ports.setdefault(match["port"], {})[match["what"]] = text
    common = {what: told[f"SERVICE_{what}"] for what in _COMMON if f"SERVICE_{what}" in told}
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
    if "CHECK_HTTP" in told:
        check = {"type": "http", "path": told["CHECK_HTTP"]}
        service["checks"] = [check | ({"interval": told["CHECK_INTERVAL"]} if "CHECK_INTERVAL" in told else {})]
    return service
