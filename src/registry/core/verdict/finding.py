"""Findings: what a rule has found, how bad that is, and the console pages that show it."""

import enum
from collections.abc import Callable, Sequence
from typing import Annotated, Literal
from urllib.parse import quote

from msgspec import Meta, Struct

from registry.core.verdict.facts import Facts

MAX_LINES = 20
"""Lines of a finding; of the others only the number is given."""

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


class Conclusion(Struct, frozen=True):
    """The conclusion of a rule.

    Attributes:
        status: how bad it is.
        headline: states what was found; empty: the sentence that holds when all is well.
        lines: each trouble; a fact where all is well; the reason where nothing could be concluded.
        more: the number of lines that are left out.
    """

    status: FindingStatus
    headline: str = ""
    lines: Sequence[Line] = ()
    more: int = 0


class Rule(Struct, frozen=True):
    """A rule of the verdict.

    Attributes:
        id: its name, which is also its anchor in docs/checks.md.
        holds: a sentence that is true when nothing is wrong.
        conclude: returns what follows from the facts.
        scope: whether it is about the process that answers, or about the whole registry.
        page: the page of the console that shows what it is about.
    """

    id: str
    holds: str
    conclude: Callable[[Facts], Conclusion]
    scope: Scope = "whole"
    page: str = "/ui/registry"


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
    ]
    more: Annotated[int, Meta(description="The number of lines that are left out.")]
    link: Annotated[str, Meta(description="The page of the console that shows what it is about.")]


def conclude(
    headline: str,
    troubles: Sequence[Line | str],
    *,
    status: FindingStatus = FindingStatus.FAILURE,
    fact: str = "",
) -> Conclusion:
    """Return the conclusion of a rule that had its facts.

    Args:
        headline: states the troubles, when there are some.
        troubles: a line for each; none: all is well.
        status: how bad they are.
        fact: stands beside the headline when all is well.
    """
    if not troubles:
        return Conclusion(FindingStatus.OK, lines=(Line(fact),) if fact else ())
    lines = [line if isinstance(line, Line) else Line(line) for line in troubles[:MAX_LINES]]
    return Conclusion(status, headline, lines, max(0, len(troubles) - MAX_LINES))


def skip(reason: str) -> Conclusion:
    """Return the conclusion of a rule whose facts are lacking."""
    return Conclusion(FindingStatus.SKIPPED, "not checked", (Line(reason),))


def about_service(service: str, text: str) -> Line:
    """Return a line about a service, with its page."""
    return Line(text, service, link=service_page(service))


def about_endpoint(service: str, endpoint: str, text: str) -> Line:
    """Return a line about an endpoint, with its page."""
    return Line(text, service, endpoint, f"{service_page(service)}/endpoints/{quote(endpoint, safe='')}")


def service_page(service: str) -> str:
    """Return the page of a service in the console."""
    return f"/ui/services/{quote(service, safe='')}"


def counted(number: int, singular: str, plural: str) -> str:
    """Return a number with the words that go with it: ``1 row is quarantined``, ``2 rows are quarantined``."""
    return f"{number:,} {singular if number == 1 else plural}"
