"""Hints for misspelt names of settings, keys and variables."""

from collections.abc import Iterable


def spelling_hint(name: str, allowed: Iterable[str], *, prefix: str = "", otherwise: str = "") -> str:
    """Return what to write instead of a misspelt name: the most similar allowed one.

    Args:
        name: what was received.
        allowed: every name that would have been right.
        prefix: begins all of them, like ``REGISTRY_``, and so says nothing about their similarity.
        otherwise: the hint when no allowed name is similar; empty lists all of them.
    """
    # Imported here, because only an error needs it and the registrar's memory is budgeted.
    from difflib import get_close_matches  # noqa: PLC0415

    names = sorted(allowed)
    close = get_close_matches(name.removeprefix(prefix), [each.removeprefix(prefix) for each in names], n=1)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return otherwise or f"expected one of {', '.join(names)}"
