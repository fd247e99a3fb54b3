"""version_info: which versions of which resources a subscriber holds, and of which database they are.

It is ``<database>:<version>``; for several names ``<database>:<version>.<version>…@<checksum of the names>``, with the
versions in the order of the names; for the wildcard of a type that has one ``<database>:<version>@*``. So the versions
of one request are never taken for those of another. It is the same in every process and grows with each change: equal
texts mean equal content, and a process that is behind a subscriber can tell.
"""

import zlib
from collections.abc import Sequence
from enum import Enum, auto

from registry.core.versions import MAX_VERSIONS_AHEAD
from registry.xds.resources import WILDCARD

_MAX_DIGITS = 16
"""Digits of a version that is read; no counter of ours has as many."""


class Comparison(Enum):
    """How the versions that a subscriber holds compare with those of this process."""

    FOREIGN = auto()
    """They are of another database, of another request, or none."""
    OLDER = auto()
    EQUAL = auto()
    NEWER = auto()


def format_version(database_id: str, version: int) -> str:
    """Return the version_info of a single name."""
    return f"{database_id}:{version}"


def format_version_info(database_id: str, names: Sequence[str], versions: Sequence[int], *, wildcard: bool) -> str:
    """Return the version_info of these names at these versions; ``wildcard``: whether the type has one."""
    return f"{database_id}:{'.'.join(map(str, versions))}{_mark(names, wildcard=wildcard)}"


def parse_version_info(
    database_id: str, names: Sequence[str], version_info: str, *, wildcard: bool
) -> list[int] | None:
    """Return the version of each name in a version_info of ours for these names; None if it is none."""
    identity, colon, versions = version_info.partition(":")
    mark = _mark(names, wildcard=wildcard)
    if not colon or identity != database_id or not versions.endswith(mark):
        return None
    parts = versions.removesuffix(mark).split(".")
    if not all(part.isascii() and part.isdigit() and len(part) <= _MAX_DIGITS for part in parts):
        return None
    return [int(part) for part in parts] if len(parts) == len(names) else None


def compare(theirs: Sequence[int] | None, ours: Sequence[int]) -> Comparison:
    """Compare what a subscriber holds with what this process holds, name by name.

    Args:
        theirs: the versions that the subscriber holds; None if its version_info is none of ours.
        ours: the versions of this process; 0 for what is not known here.
    """
    if theirs is None:
        return Comparison.FOREIGN
    # Of a name that is not known here, because it was forgotten or because this process is behind, there is nothing to
    # say; that must not keep the changes of other names from a subscriber that asks for several.
    pairs = [(held, own) for held, own in zip(theirs, ours, strict=True) if own]
    if any(held > own for held, own in pairs):
        # A version that no lost commits explain is not to be outbid: ours would become as absurd for good.
        furthest = max(held - own for held, own in pairs)
        return Comparison.NEWER if furthest <= MAX_VERSIONS_AHEAD else Comparison.FOREIGN
    return Comparison.EQUAL if all(held == own for held, own in pairs) else Comparison.OLDER


def _mark(names: Sequence[str], *, wildcard: bool) -> str:
    if len(names) > 1:
        return f"@{zlib.crc32(' '.join(names).encode()):08x}"
    return "@*" if wildcard and names == WILDCARD else ""
