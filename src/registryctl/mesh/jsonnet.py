"""Jsonnet definitions, which are evaluated here and nowhere else: their imports can read any file of this machine."""

import atexit
import re
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec import Struct

from meshconfig.position import Fault, Position
from registryctl.errors import UsageError
from registryctl.mesh.jsonnet_process import JsonnetProcess

_PLACE = re.compile(r":(?:\(?(?P<line>\d+):(?P<column>\d+))\)?(?:-\(?[\d:]+\)?)?:?[ \t]*")
"""A place in a message of Jsonnet: ``:2:5-14``, ``:2:5`` or ``:(2:5)-(3:4)``."""
_KEY = re.compile(r'^ *"(?P<key>(?:[^"\\]|\\.)*)": ?(?P<value>.*?),?$')
"""A line of the evaluated document that has a key."""
_INDENT = 2
_process = JsonnetProcess()
"""Evaluates the files of this process, one after the other."""
atexit.register(_process.end)


class Evaluated(Struct, frozen=True):
    """A Jsonnet file.

    Attributes:
        source: its text.
        text: the JSON document that it evaluates to, one key a line.
    """

    source: str
    text: str


class JsonnetError(Exception):
    """A Jsonnet file cannot be evaluated; the fault says where and why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def evaluate(root: Path, path: str, source: str) -> Evaluated:
    """Return a Jsonnet file and what it evaluates to.

    Args:
        root: the directory of definitions.
        path: the file's path in it.
        source: the file's text.

    Raises:
        JsonnetError: it cannot be evaluated.
        UsageError: Jsonnet is not installed.
    """
    if find_spec("_gojsonnet") is None:
        raise UsageError(
            f"{path}: Jsonnet is not installed, which evaluates this file",
            "pip install 'headcount[jsonnet]', or write the file as YAML",
        )
    outcome = _process.evaluate(str(root / path), source)
    if outcome.error:
        raise JsonnetError(_fault(outcome.error, root, path))
    return Evaluated(source, msgspec.json.format(outcome.document, indent=_INDENT).strip())


def in_source(fault: Fault, evaluated: Evaluated) -> Fault:
    """Return a fault of the evaluated document at the place of its key in the Jsonnet file.

    Jsonnet does not tell which expression a value is from. A key that stands once in the file is its place; of any
    other key the fault names the line of the evaluated document.
    """
    position = place_in_source(fault.position, evaluated)
    line = _line(fault.position, evaluated)
    if position.line or not line:
        return msgspec.structs.replace(fault, position=position)
    message = f"{fault.message} (The evaluated document has `{line.strip().removesuffix(',')}` there.)"
    return msgspec.structs.replace(fault, position=position, message=message)


def place_in_source(position: Position, evaluated: Evaluated) -> Position:
    """Return the place of a key in the Jsonnet file; the whole file where that is unclear."""
    match = _KEY.match(_line(position, evaluated))
    places = _places(match["key"], evaluated.source) if match else []
    return Position(position.file, *places[0]) if len(places) == 1 else Position(position.file)


def _line(position: Position, evaluated: Evaluated) -> str:
    lines = evaluated.text.splitlines()
    return lines[position.line - 1] if 0 < position.line <= len(lines) else ""


def _places(key: str, source: str) -> list[tuple[int, int]]:
    """Return the lines and columns at which a Jsonnet text has a field of this name."""
    name = re.escape(key)
    field = re.compile(rf"(?<![\w\"'.]){name}(?=\s*\+?:{{1,3}})|(?P<quote>[\"']){name}(?P=quote)(?=\s*\+?:{{1,3}})")
    return [
        (number, match.start() + 1)
        for number, line in enumerate(source.splitlines(), start=1)
        for match in field.finditer(line)
    ]


def _fault(message: str, root: Path, path: str) -> Fault:
    """Return a message of Jsonnet as a fault: its place in the file is taken out of the text."""
    text = message.removeprefix("RUNTIME ERROR: ")
    at = re.search(re.escape(str(root / path)) + _PLACE.pattern, text)
    position = Position(path, int(at["line"]), int(at["column"])) if at else Position(path)
    if at and at.start() == 0:
        text = text[at.end() :]
    first = text.replace(f"{root}/", "").partition("\n")[0].strip()
    return Fault(position, f"Jsonnet: {first.rstrip('.') or 'it cannot be evaluated'}.")
