"""The effective settings: flags win over the environment, and the environment over files."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from registrar.config.conversion import convert
from registrar.config.registrator import add_registrator_services
from registrar.config.secret import Secret
from registrar.config.settings import (
    PATHS,
    SECRET_FILES,
    VARIABLES,
    LaunchSettings,
    OnSigterm,
    Service,
    Settings,
    annotation,
)
from registrar.config.yaml_files import Document, faults_of, read_documents
from registrar.errors import ConfigurationError
from wire.spelling import spelling_hint

_PREFIX = "REGISTRAR_"
# Docker links and Kubernetes inject these variables for a container or service that is named "registrar".
_INJECTED = re.compile(r"REGISTRAR_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")
_ECS = "ECS_CONTAINER_METADATA_URI_V4"


def load_settings(flags: Mapping[str, str], environ: Mapping[str, str], *, with_app: bool = False) -> Settings:
    """Return the effective settings.

    Args:
        flags: the values of the flags, by the name of their environment variable.
        environ: the environment of the process; an empty value counts as unset.
        with_app: whether the app is a child and ends with this process, so that a stop drains by default.

    Raises:
        ConfigurationError: has every error with its variable, flag or file.
    """
    environment = {name: text for name, text in environ.items() if name.startswith(_PREFIX) and text}
    texts = {name: text for name, text in environment.items() if name in VARIABLES} | dict(flags)
    values = {name: text if name in PATHS else _utf8(text) for name, text in texts.items()}
    faults = [*_unknown(environment), *_both_set(values), *_invalid(values, flags)]
    document: Document = {}
    try:
        document = read_documents(values.get("REGISTRAR_CONFIG", ""))
    except ConfigurationError as error:
        faults += error.faults
    if faults:
        raise ConfigurationError(faults)
    launch = load_launch(values, {})
    if launch.registrator_names:
        add_registrator_services(document, environ)
    _overlay(document, {name: text for name, text in values.items() if VARIABLES[name][0] is not LaunchSettings})
    _read_secrets(document)
    in_ecs = bool(environ.get(_ECS))
    document.setdefault("on_sigterm", OnSigterm.DRAIN if in_ecs or with_app else OnSigterm.KEEP)
    _check_complete(document, in_ecs=in_ecs)
    try:
        settings = convert(document, Settings)
    except ValueError as error:
        raise ConfigurationError(faults_of(document) or [str(error)]) from error
    _check_distinct(settings)
    return settings


def load_launch(flags: Mapping[str, str], environ: Mapping[str, str]) -> LaunchSettings:
    """Return the settings that are needed to find the files, or a running registrar.

    No file is read: an invalid file must not make the health check of a running process fail.

    Raises:
        ConfigurationError: has every error with its variable or flag.
    """
    texts = {name: text for name, text in environ.items() if text} | dict(flags)
    values = {name: texts[name] for name, (owner, _) in VARIABLES.items() if owner is LaunchSettings and name in texts}
    faults = _invalid(values, flags)
    if faults:
        raise ConfigurationError(faults)
    return convert({VARIABLES[name][1]: text for name, text in values.items()}, LaunchSettings)


def _both_set(values: Mapping[str, str]) -> list[str]:
    """Return an error for each secret that is set twice in the environment or by flags."""
    fields = {VARIABLES[name][1]: name for name in values if VARIABLES[name][0] is Settings}
    return [
        f"{fields[file]}: {fields[plain]} is set as well; set one of them"
        for file, plain in SECRET_FILES.items()
        if file in fields and plain in fields
    ]


def _read_secrets(document: Document) -> None:
    """Add the contents of secret files to a document that has their paths.

    Raises:
        ConfigurationError: a file cannot be read, or its secret is set as well.
    """
    faults = []
    for file, plain in SECRET_FILES.items():
        path = document.get(file)
        if not path:
            continue
        variable = next(name for name, (_, field) in VARIABLES.items() if field == file)
        if plain in document:
            faults.append(f"{variable}: {plain} is set as well; set one of them")
            continue
        try:
            document[plain] = Secret.parse(Path(path).read_text("utf-8")).reveal()
        except UnicodeDecodeError:
            faults.append(f"{variable}: {path}: not UTF-8 text")
        except ValueError as error:
            faults.append(f"{variable}: {path}: {error}")
        except OSError as error:
            faults.append(f"{variable}: {path}: {error.strerror}")
    if faults:
        raise ConfigurationError(faults)


def _utf8(text: str) -> str:
    """Decode text again as UTF-8, after Python decoded it by the locale (PEP 383)."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def flag(variable: str) -> str:
    """Return the flag of a variable, like ``--check-interval``."""
    return "--" + variable.removeprefix(_PREFIX).lower().replace("_", "-")


def _unknown(environment: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: unknown variable; {spelling_hint(name, VARIABLES, prefix=_PREFIX)}"
        for name in sorted(environment.keys() - VARIABLES.keys())
        if not _INJECTED.fullmatch(name)
    ]


def _invalid(values: Mapping[str, str], flags: Mapping[str, str]) -> list[str]:
    """Return the errors of the values, each converted by itself so that its error names the variable or flag."""
    faults = []
    for name, text in values.items():
        try:
            convert(text, annotation(name))
        except ValueError as error:
            faults.append(f"{flag(name) if name in flags else name}: {error}")
    return faults


def _overlay(document: Document, values: Mapping[str, str]) -> None:
    """Replace settings of the files by flags and variables."""
    of_service = {}
    for name, text in values.items():
        owner, field = VARIABLES[name]
        if owner is Settings:
            # A secret and its file replace each other.
            document.pop(_twin(field), None)
            document[field] = text
        else:
            of_service[name] = text
    if of_service:
        services = document.setdefault("services", [{}])
        if len(services) != 1:
            names = ", ".join(of_service)
            raise ConfigurationError(
                [f"{names}: sets a single service, but the files have {len(services)}; set it in the files"]
            )
        _overlay_service(services[0], of_service)


def _twin(field: str) -> str:
    return SECRET_FILES.get(field) or next((file for file, plain in SECRET_FILES.items() if plain == field), "")


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


def _check_complete(document: Document, *, in_ecs: bool) -> None:
    # In an ECS task the name of the service comes from the metadata.
    required = ("endpoint",) if in_ecs else ("service", "endpoint")
    faults = []
    if not document.get("registry_url"):
        faults.append("REGISTRAR_REGISTRY_URL: not set; write it like http://10.0.0.2:8080")
    services = document.get("services")
    if not services:
        faults.append("no service: set REGISTRAR_SERVICE and REGISTRAR_ENDPOINT, or REGISTRAR_CONFIG")
    for service in services or ():
        faults += [f"REGISTRAR_{field.upper()}: not set" for field in required if field not in service]
    if faults:
        raise ConfigurationError(faults)


def _check_distinct(settings: Settings) -> None:
    seen = set()
    for service in settings.services:
        key = (service.service, str(service.endpoint))
        if key in seen:
            raise ConfigurationError(
                [f"service {key[0]} with endpoint {key[1]} is configured twice; remove one of the two"]
            )
        seen.add(key)
