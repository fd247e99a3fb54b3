"""Faults of definitions in documents of the API, and their number in words."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from meshconfig.position import Fault, Position, Severity


class _ListedFault(Struct, frozen=True):
    file: str
    message: str
    line: int = 0
    column: int = 0
    fix: str = ""
    severity: Severity = Severity.ERROR


def faults_in(document: bytes, field: str = "faults") -> list[Fault]:
    """Return the faults that a field of a JSON document lists; none where it has no such list."""
    try:
        listed = msgspec.convert(msgspec.json.decode(document)[field], list[_ListedFault])
    except (ValueError, KeyError, TypeError):
        return []
    return [
        Fault(Position(each.file, each.line, each.column), each.message, each.fix, each.severity) for each in listed
    ]


def counted(faults: Sequence[Fault]) -> str:
    """Return the number of errors and of warnings in words."""
    errors = sum(fault.severity is Severity.ERROR for fault in faults)
    parts = ((errors, "error"), (len(faults) - errors, "warning"))
    return (
        " and ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in parts if number) or "no faults"
    )
