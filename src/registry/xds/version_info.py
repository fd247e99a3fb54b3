"""version_info: which versions of which resources a subscriber holds, and of which database they are.

It is ``<database>:<version>``; for several names ``<database>:<version>.<version>…@<checksum of the names>``, with the
versions in the order of the names; for the wildcard of a type that has one ``<database>:<version>@*``. So the versions
of one request are never taken for those of another. It is the same in every process and grows with each change: equal
texts mean equal content, and a process that is behind a subscriber can tell.

A version of the mesh configuration is a revision and a step, ``<database>:<revision>.<step>``.
"""

import zlib
from collections.abc import Sequence
from enum import Enum, auto

from registry.core.mesh import MAX_REVISION, MAX_REVISIONS_AHEAD, revision_of, step_of, version_of
from registry.core.versions import MAX_VERSIONS_AHEAD
from registry.xds.resources import ResourceType
from wire.discovery_poll import WILDCARD

_MAX_DIGITS = 16
"""Digits of a number that is read; no counter of ours has as many."""
_NUMBERS_OF_STEPPED = 2
"""Numbers of a version that is a revision and a step."""


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


def format_stepped(database_id: str, version: int) -> str:
    """Return the version_info of a single name of a type whose versions are a revision and a step."""
    return f"{database_id}:{revision_of(version)}.{step_of(version)}"


def format_version_info(
    database_id: str, names: Sequence[str], versions: Sequence[int], resource_type: ResourceType
) -> str:
    """Return the version_info of these names of a type at these versions."""
    if resource_type.stepped:
        versions = [number for version in versions for number in (revision_of(version), step_of(version))]
    return f"{database_id}:{'.'.join(map(str, versions))}{_mark(names, wildcard=resource_type.wildcard)}"


def parse_version_info(
    database_id: str, names: Sequence[str], version_info: str, resource_type: ResourceType
) -> list[int] | None:
    """Return the version of each name in a version_info of ours for them; None if it is none."""
    identity, colon, versions = version_info.partition(":")
    mark = _mark(names, wildcard=resource_type.wildcard)
    if not colon or identity != database_id or not versions.endswith(mark):
        return None
    parts = versions.removesuffix(mark).split(".")
    if not all(part.isascii() and part.isdigit() and len(part) <= _MAX_DIGITS for part in parts):
        return None
    numbers = [int(part) for part in parts]
    if resource_type.stepped:
        if len(numbers) != _NUMBERS_OF_STEPPED * len(names):
            return None
        if any(number > MAX_REVISION for number in numbers[::2]):
            return None
        return [version_of(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
    return numbers if len(numbers) == len(names) else None


def compare(theirs: Sequence[int] | None, ours: Sequence[int], *, stepped: bool = False) -> Comparison:
    """Compare what a subscriber holds with what this process holds, name by name.

    Args:
        theirs: the versions that the subscriber holds; None if its version_info is none of ours.
        ours: the versions of this process; 0 for what is not known here.
        stepped: whether a version is a revision and a step.
    """
    if theirs is None:
        return Comparison.FOREIGN
    # Of a name that is not known here, because it was forgotten or because this process is behind, there is nothing to
    # say; that must not keep the changes of other names from a subscriber that asks for several.
    pairs = [(held, own) for held, own in zip(theirs, ours, strict=True) if own]
    if any(held > own for held, own in pairs):
        # A version that no lost commits explain is not to be outbid: ours would become as absurd for good.
        furthest = max(held - own for held, own in pairs)
        most = version_of(MAX_REVISIONS_AHEAD, 0) if stepped else MAX_VERSIONS_AHEAD
        return Comparison.NEWER if furthest <= most else Comparison.FOREIGN
    return Comparison.EQUAL if all(held == own for held, own in pairs) else Comparison.OLDER


def _mark(names: Sequence[str], *, wildcard: bool) -> str:
    if len(names) > 1:
        return f"@{zlib.crc32(' '.join(names).encode()):08x}"
    return "@*" if wildcard and names == WILDCARD else ""
