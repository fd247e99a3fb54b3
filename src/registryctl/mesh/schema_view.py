"""JSON Schema of definitions, by the kind of file."""

from typing import Any

from meshconfig.schema import KINDS, json_schema
from registryctl.errors import UsageError
from wire.spelling import spelling_hint


def schema_of(kind: str) -> dict[str, Any]:
    """Return the schema of a kind of file; of any of them where none is named.

    Raises:
        UsageError: there is no such kind.
    """
    try:
        return json_schema(kind or None)
    except KeyError:
        raise UsageError(f"schema: {kind!r} is no kind of file", spelling_hint(kind, KINDS)) from None
