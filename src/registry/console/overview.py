"""The first page: the verdict on the registry in words, what is wrong, and services with trouble first."""

from collections.abc import Sequence

from fastapi import APIRouter, Response
from msgspec import Struct

from registry.console.page import Framed
from registry.console.service_rows import ServiceRow, ServiceRowsPart
from registry.console.services import by_trouble
from registry.core.verdict.document import Verdict
from registry.http.dependencies import CatalogPart, ProcessHealthPart, Reader
from wire.finding import Finding, Line

router = APIRouter()

_MAX_LINES = 6
"""Lines of a finding that the page shows; its link leads to the others."""
_MAX_SERVICES = 10
"""Services that the page shows, those in trouble first."""


class LineRow(Struct, frozen=True):
    """A line of a finding: the name that it begins with, which is a link, and the rest."""

    name: str
    rest: str
    link: str | None


class FindingRow(Struct, frozen=True):
    """A finding with those of its lines that are shown, and the number of the others."""

    finding: Finding
    lines: Sequence[LineRow]
    more: int


class Category(Struct, frozen=True):
    """The findings of a category, for the list of what was checked."""

    name: str
    findings: Sequence[Finding]


@router.get("/overview")
async def show_overview(
    service_rows: ServiceRowsPart, catalog: CatalogPart, health: ProcessHealthPart, reader: Reader, frame: Framed
) -> Response:
    """Show what is wrong with the registry, as far as the person may read and observe it."""
    rows = sorted(await service_rows.all(reader), key=by_trouble)
    verdict = frame.verdict
    return frame.page(
        "overview.html",
        verdict=verdict,
        unknown=frame.verdict_unknown,
        troubles=[] if verdict is None else [_finding_row(finding) for finding in verdict.troubles()],
        facts={} if verdict is None else _facts(verdict),
        categories=[] if verdict is None else _categories(verdict),
        parts=[] if verdict is None else health.summary(),
        rows=rows[:_MAX_SERVICES],
        total=len(rows),
        unavailable=catalog.unavailable(reader),
        endpoints=sum(row.endpoints for row in rows),
        routable=sum(row.routable for row in rows),
        troubled=_troubled(rows),
    )


def _troubled(rows: Sequence[ServiceRow]) -> int:
    return sum(bool(row.warnings) for row in rows)


def _finding_row(finding: Finding) -> FindingRow:
    shown = finding.lines[:_MAX_LINES]
    more = finding.more + len(finding.lines) - len(shown)
    return FindingRow(finding, [_line_row(line) for line in shown], more)


def _line_row(line: Line) -> LineRow:
    """Return a line with its link on the name that it begins with, or on the whole of it."""
    if line.link is None:
        return LineRow("", line.text, None)
    names = [f"{line.service} {line.endpoint}", line.service]
    name = next((name for name in names if name and line.text.startswith(name)), line.text)
    return LineRow(name, line.text.removeprefix(name), line.link)


def _facts(verdict: Verdict) -> dict[str, str]:
    """Return the facts of the findings that are well, by rule: the numbers that stand behind "all is well"."""
    return {finding.id: finding.lines[0].text for finding in verdict.of_status("ok") if finding.lines}


def _categories(verdict: Verdict) -> list[Category]:
    """Return what is well and what could not be checked, by category."""
    shown = [*verdict.of_status("ok"), *verdict.of_status("skipped")]
    names = dict.fromkeys(finding.category for finding in verdict.findings)
    categories = [Category(name, [finding for finding in shown if finding.category == name]) for name in names]
    return [category for category in categories if category.findings]
