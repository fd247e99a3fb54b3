"""Hints for misspelt names."""

import pytest

from wire.spelling import spelling_hint

ALLOWED = ("zone", "weight", "ttl")


@pytest.mark.parametrize(
    ("name", "otherwise", "hint"),
    [
        ("zoen", "", "did you mean zone?"),
        ("zoen", "see the reference", "did you mean zone?"),
        ("colour", "", "expected one of ttl, weight, zone"),
        ("colour", "see the reference", "see the reference"),
    ],
)
def test_a_hint_names_the_most_similar_name_or_what_else_helps(name: str, otherwise: str, hint: str) -> None:
    """A similar name wins; without one the caller's hint is given, or else every allowed name."""
    assert spelling_hint(name, ALLOWED, otherwise=otherwise) == hint


def test_a_prefix_that_all_names_share_makes_none_similar() -> None:
    """Two names that have nothing but the prefix in common are no misspellings of each other."""
    allowed = ("REGISTRYCTL_URL", "REGISTRYCTL_TIMEOUT")
    assert spelling_hint("REGISTRYCTL_ULR", allowed, prefix="REGISTRYCTL_") == "did you mean REGISTRYCTL_URL?"
    hint = spelling_hint("REGISTRYCTL_COLOUR", allowed, prefix="REGISTRYCTL_")
    assert hint == "expected one of REGISTRYCTL_TIMEOUT, REGISTRYCTL_URL"
