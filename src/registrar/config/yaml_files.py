"""The YAML files of settings: one file, or a directory of files that are joined into one document."""

from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import Struct, structs

from registrar.checks.kinds import KINDS
from registrar.config.conversion import ConversionError, convert
from registrar.config.settings import Service, Settings
from registrar.errors import ConfigurationError
from wire.spelling import spelling_hint

Document = dict[str, Any]

_SUFFIXES = (".yaml", ".yml")


def read_documents(config: str) -> Document:
    """Return the joined document of a file or directory; an empty document for an empty path.

    The services of all files are joined. A setting of the process may be in one file only.

    Raises:
        ConfigurationError: has each error with its file and key.
    """
    joined: Document = {}
    origin: dict[str, Path] = {}
    faults: list[str] = []
    for path in _files(Path(config)) if config else ():
        try:
            document = _read(path)
        except ConfigurationError as error:
            faults += error.faults
            continue
        for key, value in document.items():
            if key == "services":
                joined[key] = [*joined.get(key, []), *value]
            elif key in joined:
                faults.append(f"{path}: {key} is set in {origin[key]} already; remove one of the two")
            else:
                joined[key], origin[key] = value, path
    if faults:
        raise ConfigurationError(faults)
    return joined


def faults_of(document: Document) -> list[str]:
    """Return every error in a document, each with its key; unknown keys are not among them."""
    return _examined(document, Settings, "")[1]


def _files(config: Path) -> list[Path]:
    if not config.is_dir():
        return [config]
    files = sorted(path for path in config.iterdir() if path.suffix in _SUFFIXES)
    if not files:
        raise ConfigurationError([f"{config}: the directory has no *.yaml or *.yml file"])
    return files


def _read(path: Path) -> Document:
    document = _parse(path)
    if not isinstance(document, dict):
        raise ConfigurationError([f"{path}: expected settings like `services:`, got {type(document).__name__}"])
    faults = [*_unknown_keys(document), *faults_of(document)]
    if faults:
        raise ConfigurationError([f"{path}: {fault}" for fault in faults])
    return document


def _parse(path: Path) -> object:
    try:
        # Imported on demand: without a file the registrar needs neither the package nor its memory.
        import yaml  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError([f"{path}: files need PyYAML: install headcount[yaml]"]) from error
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: invalid YAML: {' '.join(str(error).split())}"]) from error


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
    """Return the mappings in a list; the conversion refuses anything else in it."""
    items = document.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _examined(value: Any, hint: Any, place: str) -> tuple[Any, list[str]]:  # noqa: ANN401 - any value of any type form
    """Return a value without unknown keys, and the errors of its parts, or else of the whole."""
    faults: list[str] = []
    if isinstance(value, dict):
        hint = _kind_of(value, hint)
    if isinstance(value, dict) and isinstance(hint, type) and issubclass(hint, Struct):
        hints = get_type_hints(hint, include_extras=True)
        fields = {key: _examined(item, hints[key], _join(place, key)) for key, item in value.items() if key in hints}
        faults += [fault for _, field_faults in fields.values() for fault in field_faults]
        tag = {"type": value["type"]} if "type" in value else {}
        value = tag | {key: item for key, (item, _) in fields.items()}
    elif isinstance(value, list | tuple) and get_origin(_plain(hint)) is tuple:
        inner = get_args(_plain(hint))[0]
        items = [_examined(item, inner, f"{place}[{index}]") for index, item in enumerate(value)]
        faults += [fault for _, item_faults in items for fault in item_faults]
        value = [item for item, _ in items]
    return value, faults or _fault(value, hint, place)


def _fault(value: object, hint: Any, place: str) -> list[str]:  # noqa: ANN401 - as above
    try:
        convert(value, hint)
    except ConversionError as error:
        where = _join(place, error.place)
        return [f"{where}: {error.reason}" if where else error.reason]
    return []


def _kind_of(value: Document, hint: Any) -> Any:  # noqa: ANN401 - as above
    """Return the options of the check that a mapping names by its type; any other hint as it is."""
    kinds = get_args(_plain(hint))
    structs_among = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Struct)]
    if len(structs_among) == 1:
        return structs_among[0]
    return KINDS.get(str(value.get("type")), hint) if structs_among else hint


def _plain(hint: Any) -> Any:  # noqa: ANN401 - as above
    return hint.__origin__ if get_origin(hint) is Annotated else hint


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place and key and not key.startswith("[") else f"{place}{key}"


def _unknown(document: Document, kind: type[Struct], place: str, *more: str) -> list[str]:
    allowed = [field.name for field in structs.fields(kind)] + list(more)
    return [f"{place}{key}: unknown key; {spelling_hint(str(key), allowed)}" for key in document if key not in allowed]
