"""Configuration files: YAML, one or a directory of them, joined into one document."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from registrar.checks.kinds import KINDS
from registrar.conversion import convert
from registrar.errors import ConfigurationError
from registrar.settings import Service, Settings

Document = dict[str, Any]


def read_documents(config: str) -> Document:
    """Return what the file or directory ``config`` says; nothing for an empty path.

    The services of several files are joined; a setting of the process may stand in one of them only.

    Raises:
        ConfigurationError: names each fault with its file and key.
    """
    joined: Document = {}
    origin: dict[str, Path] = {}
    for path in _files(Path(config)) if config else ():
        for key, value in _read(path).items():
            if key == "services":
                joined[key] = [*joined.get(key, []), *value]
            elif key in joined:
                raise ConfigurationError([f"{path}: {key} is already set in {origin[key]}"])
            else:
                joined[key], origin[key] = value, path
    return joined


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name: the nearest right one, or else all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(names)}"


def _files(config: Path) -> list[Path]:
    if not config.is_dir():
        return [config]
    files = sorted(config.glob("*.yaml"))
    if not files:
        raise ConfigurationError([f"{config}: has no *.yaml file"])
    return files


def _read(path: Path) -> Document:
    document = _parse(path)
    if not isinstance(document, dict):
        raise ConfigurationError([f"{path}: expected settings like `services:`, got {type(document).__name__}"])
    faults = _unknown_keys(document)
    if not faults:
        try:
            convert(document, Settings)
        except ValueError as error:
            faults = [str(error)]
    if faults:
        raise ConfigurationError([f"{path}: {fault}" for fault in faults])
    return document


def _parse(path: Path) -> object:
    try:
        # Only here: most sidecars have no file, and then need neither the package nor its memory.
        import yaml  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError([f"{path}: files need PyYAML: install headcount[yaml]"]) from error
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: no valid YAML: {' '.join(str(error).split())}"]) from error


def _unknown_keys(document: Document) -> list[str]:
    faults = _unknown(document, Settings, "")
    for index, service in enumerate(_mappings(document, "services")):
        place = f"services[{index}]."
        faults += _unknown(service, Service, place)
        for number, check in enumerate(_mappings(service, "checks")):
            kind = KINDS.get(str(check.get("type")))
            if kind is not None:
                faults += _unknown(check, kind, f"{place}checks[{number}].", "type")
    return faults


def _mappings(document: Document, key: str) -> list[Document]:
    """Return the mappings in a list; whatever else is there is for the conversion to refuse."""
    items = document.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _unknown(document: Document, kind: type[Struct], place: str, *more: str) -> list[str]:
    known = [field.name for field in structs.fields(kind)] + list(more)
    return [f"{place}{key}: unknown key; {nearest(str(key), known)}" for key in document if key not in known]
