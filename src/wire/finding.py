"""Findings as the registry serves them and `registryctl check` prints them."""

import enum
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

Scope = Literal["process", "whole"]
"""``process``: about the process that answers, and another one may differ; ``whole``: about the whole registry."""


class FindingStatus(enum.StrEnum):
    """How bad a finding is; only a failure makes the exit status of `registryctl check` 1."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


class Line(Struct, frozen=True):
    """One line of a finding."""

    text: Annotated[str, Meta(description="A sentence or a fact that can be read without the headline.")]
    service: Annotated[str | None, Meta(description="The service that it is about, where it is about one.")] = None
    endpoint: Annotated[str | None, Meta(description="The endpoint that it is about, as ip:port.")] = None
    link: Annotated[str | None, Meta(description="The page of the console that shows it.")] = None


class Finding(Struct, frozen=True):
    """The finding of one rule."""

    id: Annotated[str, Meta(description="The rule; docs/checks.md has a section with this name.")]
    category: Annotated[str, Meta(description="The group under which it is shown.")]
    scope: Annotated[
        Scope,
        Meta(description="`process`: about the process that answers; `whole`: about the whole registry."),
    ]
    status: Annotated[FindingStatus, Meta(description="How bad it is; `skipped`: the facts are lacking.")]
    headline: Annotated[str, Meta(description="What was found, as a sentence that is true as it stands.")]
    holds: Annotated[str, Meta(description="The headline when nothing is wrong.")]
    lines: Annotated[
        Sequence[Line],
        Meta(description="Each trouble, at most 20; a fact where all is well, the reason where it was skipped."),
    ] = ()
    more: Annotated[int, Meta(description="The number of lines that are left out.")] = 0
    link: Annotated[str | None, Meta(description="The page of the console that shows what it is about.")] = None


def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with the words that go with it: ``1 row is quarantined``, ``2 rows are quarantined``."""
    return f"{number:,} {singular if number == 1 else plural}"
