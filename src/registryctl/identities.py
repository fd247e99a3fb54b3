"""Identities as the command line names them: what proves one, and its limits."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from registryctl.errors import UsageError
from wire.spelling import spelling_hint

_LIMITS = ("endpoints", "changes", "services")
_MAX_DIGITS = 9
"""Digits of a limit."""


def path_of(name: str) -> str:
    """Return the path of an identity."""
    return f"/v1/identities/{quote(name, safe='')}"


def match_of(options: Mapping[str, str]) -> tuple[str, str]:
    """Return the source that proves an identity, and what it has to say.

    Raises:
        UsageError: none or several are given.
    """
    given = [(source, match) for source, match in options.items() if match]
    if len(given) != 1:
        received = " and ".join(f"--{source}" for source, _ in given) or "nothing"
        names = ", ".join(f"--{source}" for source in options)
        raise UsageError(f"received {received} to say what proves the identity", f"give one of {names}")
    return given[0]


def limits_of(limits: Iterable[str]) -> dict[str, float]:
    """Return limits that are written like ``endpoints=200``.

    Raises:
        UsageError: there is no such limit, or it is no number.
    """
    read: dict[str, float] = {}
    for text in limits:
        name, _, value = text.partition("=")
        if name not in _LIMITS:
            raise UsageError(f"--limit: there is no limit {name!r}", spelling_hint(name, _LIMITS))
        if not value.isascii() or not value.isdigit() or len(value) > _MAX_DIGITS:
            raise UsageError(f"--limit: {text!r} has no whole number", f"write it like {name}=200")
        read[name] = int(value)
    return read
