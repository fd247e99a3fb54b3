"""Tokens: the ``version_info`` of the registry, and how the one that an Envoy brings compares with the one held here.

A token is ``<database>:<number>``, for several names ``<database>:<number>.<number>…@<checksum>``, and for types of the
mesh configuration ``<database>:<revision>.<step>``, with ``@*`` behind it for all of a node (the registry's
``xds/version_info``). An edge gives out the registry's own, so that an Envoy may poll edge and registry in turn.
"""

import zlib
from collections.abc import Sequence
from enum import Enum, auto

from msgspec import Struct

_MAX_DIGITS = 16
"""Digits of a number that is read, as in the registry."""
MAX_AHEAD = 2_000_000
"""Numbers by which a token may be ahead of the one held here; one further ahead is of something else."""
OWN = "edge"
"""What stands in front of tokens that are no registry's: to a registry they are those of another database."""
NOTHING = f"{OWN}:0"
"""The token of an answer without resources that no registry gave."""


class Token(Struct, frozen=True):
    """A token in its parts; ``mark`` is what follows the ``@``."""

    database: str
    numbers: tuple[int, ...]
    mark: str = ""


class Relation(Enum):
    """How what an Envoy holds compares with what this edge holds."""

    NONE = auto()
    """It holds nothing that a registry gave it."""
    OLDER = auto()
    CURRENT = auto()
    """It holds the same, or something newer."""
    FOREIGN = auto()
    """It holds something of another database, or of another request."""


def parse(text: str) -> Token | None:
    """Return a token in its parts; None if it is no registry's."""
    database, colon, rest = text.partition(":")
    versions, _, mark = rest.partition("@")
    parts = versions.split(".")
    if not colon or not all(part.isascii() and part.isdigit() and len(part) <= _MAX_DIGITS for part in parts):
        return None
    return Token(database, tuple(map(int, parts)), mark)


def is_own(text: str) -> bool:
    """Return whether a token was given out by an edge in place of a registry."""
    return text.startswith(f"{OWN}:")


def fallback_token(content: bytes) -> str:
    """Return the token of what came from a fallback: older than anything that a registry says."""
    return f"{OWN}:{zlib.crc32(content):08x}"


def joined(names: Sequence[str], tokens: Sequence[str]) -> str:
    """Return the token of an answer for several names; empty if they are not of one database."""
    if len(tokens) == 1:
        return tokens[0]
    parsed = [parse(token) for token in tokens]
    whole = [token for token in parsed if token is not None]
    if len(whole) != len(tokens) or len({token.database for token in whole}) != 1:
        return ""
    numbers = ".".join(str(token.numbers[0]) for token in whole)
    return f"{whole[0].database}:{numbers}@{zlib.crc32(' '.join(names).encode()):08x}"


def compare(brought: str, ours: str, *, stepped: bool) -> Relation:
    """Compare the token that an Envoy brings with the one of the answer that this edge would give.

    A name of which this edge knows that the registry has nothing (0) says nothing about what an Envoy holds.
    """
    if not brought or (is_own(brought) and brought != ours):
        return Relation.NONE
    if brought == ours:
        return Relation.CURRENT
    theirs, own = parse(brought), parse(ours)
    if theirs is None or own is None or _kind(theirs) != _kind(own):
        return Relation.FOREIGN
    pairs = [(theirs.numbers, own.numbers)] if stepped else _each(theirs.numbers, own.numbers)
    pairs = [(held, mine) for held, mine in pairs if any(mine)]
    newer = [held[0] - mine[0] for held, mine in pairs if held > mine]
    if newer:
        return Relation.FOREIGN if max(newer) > MAX_AHEAD else Relation.CURRENT
    return Relation.CURRENT if all(held == mine for held, mine in pairs) else Relation.OLDER


def _each(theirs: tuple[int, ...], ours: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [((held,), (mine,)) for held, mine in zip(theirs, ours, strict=True)]


def _kind(token: Token) -> tuple[str, int, str]:
    return token.database, len(token.numbers), token.mark
