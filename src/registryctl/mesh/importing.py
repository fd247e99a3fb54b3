"""Import of other meshes' configuration: documents from disk to definitions, with everything that is lost."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Raw

from meshconfig.importers.appmesh import import_appmesh
from meshconfig.importers.formats import format_of
from meshconfig.importers.imported import Imported, NotImportableError
from meshconfig.importers.itacho import import_itacho
from meshconfig.importers.kumonos import import_kumonos
from meshconfig.quotation import clipped
from meshconfig.repository import read
from meshconfig.source import MAX_BYTES, parse
from registryctl.errors import UsageError
from registryctl.mesh.fault_lines import show_faults
from registryctl.mesh.jsonnet import JsonnetError, evaluate
from registryctl.session import Session
from wire.spelling import spelling_hint

LOSSES = 2
"""Exit status where something cannot be imported and nobody accepted that."""
FORMATS: Mapping[str, str] = {"kumonos": "service definition", "itacho": "service definition", "appmesh": "App Mesh"}
"""Names of formats on the command line, and what a document of each is recognised as."""
_SUFFIXES = (".yaml", ".yml", ".json", ".jsonnet")


def import_files(
    session: Session,
    source: str,
    paths: Sequence[Path],
    service: str,
    out: Path,
    *,
    accept_losses: bool,
    force: bool,
) -> int:
    """Write the definitions that documents convert to, and return the exit status.

    Args:
        session: the session of the verb.
        source: the format.
        paths: the documents, or directories of them.
        service: the service of the only document, where its file's name does not say it.
        out: the directory to write into.
        accept_losses: whether to write although something is lost.
        force: whether to write over files.
    """
    if source not in FORMATS:
        hint = spelling_hint(source, FORMATS)
        raise UsageError(f"import: {source!r} is no format that can be imported", hint)
    documents = {str(path): _document(path) for path in _documents(paths)}
    imported = _imported(source, documents, service)
    refused = bool(imported.losses) and not accept_losses
    if not refused:
        _write(imported.files, out, force=force)
    _report(session, imported, out, refused=refused)
    return LOSSES if refused else 0


def _documents(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES)
        if not inside:
            raise UsageError(f"{path}: no documents here", f"they end in {', '.join(_SUFFIXES)}")
        yield from inside


def _document(path: Path) -> object:
    """Return a decoded document.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)).lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{path}: {reason}") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES:,} bytes")
    try:
        if path.suffix == ".jsonnet":
            return json.loads(evaluate(path.parent.resolve(), path.name, text).text)
        if path.suffix == ".json":
            # JSON is YAML, but for escapes that only JSON has.
            return json.loads(text, object_pairs_hook=_object)
        return _yaml(path, text)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UsageError(f"{path}: it nests too deep") from None
    except JsonnetError as error:
        raise UsageError(f"{path}: {error.fault.message}") from None


def _yaml(path: Path, text: str) -> object:
    """Return a document of YAML, or a list of several, which the reader of definitions has looked through first.

    PyYAML's loader keeps the last of two equal keys, ends the process where a document nests too deep, and lets aliases
    stand for more than a machine can hold.
    """
    _, faults = parse(str(path), text, several=True)
    if faults:
        raise UsageError(str(faults[0]))
    documents = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    return documents[0] if len(documents) == 1 else documents


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {clipped(twice)} is there twice in one object; remove one of them")
    return document


def _imported(source: str, documents: Mapping[str, object], service: str) -> Imported:
    if service and len(documents) > 1:
        raise UsageError(f"--service: {len(documents)} documents cannot all be of {service}", "import one at a time")
    for name, document in documents.items():
        _check_format(source, name, document)
    try:
        if source == "appmesh":
            return import_appmesh(documents)
        convert = import_kumonos if source == "kumonos" else import_itacho
        each = [convert(document, name, service or Path(name).stem) for name, document in documents.items()]
    except NotImportableError as error:
        raise UsageError(f"import: {error}") from None
    return Imported(
        {path: text for imported in each for path, text in imported.files.items()},
        [loss for imported in each for loss in imported.losses],
    )


def _check_format(source: str, name: str, document: object) -> None:
    """Check that a document is of the format that was named.

    Raises:
        UsageError: it is of another format, or the file has several documents.
    """
    documents = document if isinstance(document, list) else [document]
    actual = format_of(next(iter(documents), None))
    if actual != FORMATS[source]:
        fitting = [each for each, recognised in FORMATS.items() if recognised == actual]
        fix = f"name the format: {' or '.join(fitting)}" if fitting else f"{', '.join(FORMATS)} can be imported"
        raise UsageError(f"{name}: this is {actual or 'of no format that is known here'}, and no {source}", fix)
    if len(documents) > 1:
        raise UsageError(f"{name}: the file has several documents", "write each into a file of its own")


def _write(files: Mapping[str, str], out: Path, *, force: bool) -> None:
    """Write all files, or none where one is there and must not be replaced.

    Raises:
        UsageError: a file is there, or cannot be written.
    """
    there = sorted(name for name in files if (out / name).exists())
    if there and not force:
        raise UsageError(
            f"{out / there[0]} is there already, and an import would replace it",
            "write into another directory with --out, or over it with --force",
        )
    try:
        for name, text in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{error.filename}: {(error.strerror or str(error)).lower()}") from None


def _report(session: Session, imported: Imported, out: Path, *, refused: bool) -> None:
    screen = session.screen
    if session.json:
        document: dict[str, Any] = {
            "files": {} if refused else imported.files,
            "losses": [msgspec.to_builtins(loss) for loss in imported.losses],
        }
        screen.document(Raw(msgspec.json.encode(document)))
        return
    for loss in imported.losses:
        screen.say((str(loss), "yellow"))
    if refused:
        number = len(imported.losses)
        things = "1 thing is" if number == 1 else f"{number} things are"
        screen.say((f"nothing is written: {things} not imported, or not as they were", "red"))
        screen.note("read each line, then add --accept-losses")
        return
    for name in sorted(imported.files):
        screen.say(f"wrote {out / name}")
    _, faults = read(imported.files)
    show_faults(screen, faults)
    screen.note(f"next: registryctl mesh validate {out}")
