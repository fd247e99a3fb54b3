"""Rules, and their conclusions from the facts: how bad it is, each trouble, and the console pages that show it."""

from collections.abc import Callable, Sequence
from urllib.parse import quote

from msgspec import Struct

from registry.core.verdict.facts import Facts
from wire.finding import FindingStatus, Line, Scope

MAX_LINES = 20
"""Lines of a finding; of the others only the number is given."""


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


def conclude(
    headline: str,
    troubles: Sequence[Line | str],
    *,
    status: FindingStatus = FindingStatus.FAILURE,
    fact: str = "",
    more: int = 0,
) -> Conclusion:
    """Return the conclusion of a rule that had its facts.

    Args:
        headline: states the troubles, when there are some.
        troubles: a line for each; none: all is well.
        status: how bad they are.
        fact: stands beside the headline when all is well.
        more: further troubles, of which no lines were made.
    """
    if not troubles:
        return Conclusion(FindingStatus.OK, lines=(Line(fact),) if fact else ())
    lines = [line if isinstance(line, Line) else Line(line) for line in troubles[:MAX_LINES]]
    return Conclusion(status, headline, lines, max(0, len(troubles) - MAX_LINES) + more)


def skip(reason: str) -> Conclusion:
    """Return the conclusion of a rule whose facts are lacking."""
    return Conclusion(FindingStatus.SKIPPED, "not checked", (Line(reason),))


def about_service(service: str, text: str) -> Line:
    """Return a line about a service, with its page."""
    return Line(text, service, link=service_page(service))


def about_endpoint(service: str, endpoint: str, text: str) -> Line:
    """Return a line about an endpoint, with its page."""
    return Line(text, service, endpoint, f"{service_page(service)}/endpoints/{quote(endpoint, safe='')}")


def about_caller(service: str, text: str) -> Line:
    """Return a line about the mesh configuration of a service, a gateway or an edge, with its page."""
    return Line(text, service, link=f"/ui/mesh/services/{quote(service, safe='')}")


def service_page(service: str) -> str:
    """Return the page of a service in the console."""
    return f"/ui/services/{quote(service, safe='')}"
