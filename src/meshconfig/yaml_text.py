"""YAML for people: Envoy's documents with comments, in lines that a page can show."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_LINE = 120
"""Characters of a line; what does not fit is written in block style."""

_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./~+|@()^$-]*(?: [A-Za-z0-9_./|()]+)*")
"""Texts that are the same in every style, unless they look like another type."""
_OTHER_TYPE = re.compile(
    r"[-+.]?[0-9][0-9_.eE+-]*|0[xo][0-9a-fA-F]+|true|false|yes|no|on|off|null|y|n|~", re.IGNORECASE
)
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")

Path = tuple[str | int, ...]
"""The keys that lead to a value; an item of a list has its ``name``, or its number."""


def yaml_text(document: Mapping[str, Any], comments: Mapping[Path, str] | None = None) -> str:
    """Return a document as YAML, with comments above the values whose paths end so."""
    return "\n".join([*_mapping(document, (), comments or {}), ""])


def list_text(documents: Sequence[Mapping[str, Any]], comments: Mapping[Path, str] | None = None) -> str:
    """Return documents as a list in YAML, to be shown as a part of a larger document."""
    return "\n".join([*_items(documents, (), comments or {}), ""])


def _mapping(document: Mapping[str, Any], path: Path, comments: Mapping[Path, str]) -> Iterator[str]:
    for key, value in document.items():
        own = (*path, key)
        yield from _comment(own, comments)
        line = f"{_scalar(key)}: {_flow(value)}"
        if not isinstance(value, Mapping | list) or not value or _fits(line, own, value, comments):
            yield line
        elif isinstance(value, Mapping):
            yield f"{_scalar(key)}:"
            yield from (f"  {inner}" for inner in _mapping(value, own, comments))
        else:
            yield f"{_scalar(key)}:"
            yield from _items(value, own, comments)


def _items(values: Sequence[Any], path: Path, comments: Mapping[Path, str]) -> Iterator[str]:
    for number, value in enumerate(values):
        own = (*path, str(value["name"]) if isinstance(value, Mapping) and "name" in value else number)
        yield from _comment((*path, number), comments)
        line = f"- {_flow(value)}"
        if not isinstance(value, Mapping) or _fits(line, own, value, comments):
            yield line
        else:
            first, *rest = _mapping(value, own, comments)
            yield f"- {first}"
            yield from (f"  {inner}" for inner in rest)


def _fits(line: str, path: Path, value: Any, comments: Mapping[Path, str]) -> bool:  # noqa: ANN401  # JSON
    # Two for each level that surrounds it.
    return len(line) + 2 * len(path) <= MAX_LINE and not _has_comments(value, path, comments)


def _has_comments(value: Any, path: Path, comments: Mapping[Path, str]) -> bool:  # noqa: ANN401  # JSON
    if isinstance(value, Mapping):
        return any(
            _comment_of((*path, key), comments) or _has_comments(item, (*path, key), comments)
            for key, item in value.items()
        )
    if isinstance(value, list):
        return any(
            _comment_of((*path, number), comments) or _has_comments(item, (*path, number), comments)
            for number, item in enumerate(value)
        )
    return False


def _comment_of(path: Path, comments: Mapping[Path, str]) -> str:
    """Return the comment with the longest path that a path ends with."""
    ends = [path[start:] for start in range(len(path))]
    return next((comments[end] for end in ends if end in comments), "")


def _comment(path: Path, comments: Mapping[Path, str]) -> Iterator[str]:
    yield from (f"# {line}" for line in _comment_of(path, comments).splitlines())


def _flow(value: Any) -> str:  # noqa: ANN401  # JSON
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:  # noqa: ANN401  # JSON
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    text = str(value)
    if _ADDRESS.fullmatch(text) or (_PLAIN.fullmatch(text) and not _OTHER_TYPE.fullmatch(text)):
        return text
    return _quoted(text)


def _quoted(text: str) -> str:
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else _escape(each) for each in escaped) + '"'


def _escape(character: str) -> str:
    return f"\\U{ord(character):08x}"
