"""Flags over environment over files over what is detected."""

import re
from collections.abc import Mapping

from registrar.conversion import convert
from registrar.document import Document, nearest, read_documents
from registrar.errors import ConfigurationError
from registrar.settings import VARIABLES, OnSigterm, Service, Settings, annotation

_PREFIX = "REGISTRAR_"
# Container links and Kubernetes inject these for anything that is named "registrar".
_INJECTED = re.compile(r"REGISTRAR_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")
_LATER = frozenset({"REGISTRAR_CONTAINER", "REGISTRAR_ADMIN_LISTEN"})
_ECS = "ECS_CONTAINER_METADATA_URI_V4"


def load_settings(flags: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """Return the effective settings.

    Args:
        flags: values by the name of their environment variable.
        environ: the process's environment; an empty value counts as unset.

    Raises:
        ConfigurationError: names every fault with the variable or file it is in.
    """
    environment = {name: text for name, text in environ.items() if name.startswith(_PREFIX) and text}
    values = {name: text for name, text in environment.items() if name in VARIABLES} | dict(flags)
    faults = [*_unknown(environment), *_wrong(values, flags)]
    if faults:
        raise ConfigurationError(faults)
    document = read_documents(values.pop("REGISTRAR_CONFIG", ""))
    _overlay(document, values)
    document.setdefault("on_sigterm", OnSigterm.DRAIN if environ.get(_ECS) else OnSigterm.KEEP)
    _check_complete(document)
    try:
        settings = convert(document, Settings)
    except ValueError as error:
        raise ConfigurationError([str(error)]) from error
    _check_distinct(settings)
    return settings


def flag(variable: str) -> str:
    """Return the command line's name for a variable: ``--check-interval``."""
    return "--" + variable.removeprefix(_PREFIX).lower().replace("_", "-")


def _unknown(environment: Mapping[str, str]) -> list[str]:
    faults = []
    for name in sorted(environment.keys() - VARIABLES.keys()):
        if name in _LATER:
            faults.append(f"{name}: not supported by this version; unset it")
        elif not _INJECTED.fullmatch(name):
            faults.append(f"{name}: unknown variable; {nearest(name, VARIABLES)}")
    return faults


def _wrong(values: Mapping[str, str], flags: Mapping[str, str]) -> list[str]:
    """Convert each value by itself, so that an error names the variable or flag and not a merged document."""
    faults = []
    for name, text in values.items():
        try:
            convert(text, annotation(name))
        except ValueError as error:
            faults.append(f"{flag(name) if name in flags else name}: {error}")
    return faults


def _overlay(document: Document, values: Mapping[str, str]) -> None:
    """Lay flags and variables over the files' settings."""
    of_service = {}
    for name, text in values.items():
        owner, field = VARIABLES[name]
        if owner is Settings:
            document[field] = text
        else:
            of_service[name] = text
    if of_service:
        services = document.setdefault("services", [{}])
        if len(services) != 1:
            names = ", ".join(of_service)
            raise ConfigurationError([f"{names}: sets one service, but the files have {len(services)}"])
        _overlay_service(services[0], of_service)


def _overlay_service(service: Document, values: Mapping[str, str]) -> None:
    for name, text in values.items():
        owner, field = VARIABLES[name]
        if owner is Service:
            service[field] = text
    if "REGISTRAR_CHECK_HTTP_PATH" in values:
        service["checks"] = [{"type": "http", "path": values["REGISTRAR_CHECK_HTTP_PATH"]}]
    if "REGISTRAR_CHECK_INTERVAL" in values:
        for check in service.setdefault("checks", [{"type": "tcp"}]):
            check["interval"] = values["REGISTRAR_CHECK_INTERVAL"]


def _check_complete(document: Document) -> None:
    faults = []
    if not document.get("registry_url"):
        faults.append("REGISTRAR_REGISTRY_URL: not set; write it like http://10.0.0.2:8080")
    services = document.get("services")
    if not services:
        faults.append("no service: set REGISTRAR_SERVICE and REGISTRAR_ENDPOINT, or REGISTRAR_CONFIG")
    for service in services or ():
        faults += [f"REGISTRAR_{field.upper()}: not set" for field in ("service", "endpoint") if field not in service]
    if faults:
        raise ConfigurationError(faults)


def _check_distinct(settings: Settings) -> None:
    seen = set()
    for service in settings.services:
        key = (service.service, str(service.endpoint))
        if key in seen:
            raise ConfigurationError([f"service {key[0]} with endpoint {key[1]} is configured twice"])
        seen.add(key)
