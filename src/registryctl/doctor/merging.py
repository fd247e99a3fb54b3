"""Merging of the findings of several addresses, and of the client's own, into one report."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from wire.finding import Finding, FindingStatus, Line

Report = tuple[str, Finding]
"""A finding, and the prefix that says of which address it is; empty: of none in particular."""

_SEVERITY = (FindingStatus.SKIPPED, FindingStatus.OK, FindingStatus.WARNING, FindingStatus.FAILURE)
"""How bad a finding is, the least first; a check that one address could make outweighs one that another skipped."""

_BAD = _SEVERITY[2:]


def merge(reports: Iterable[Report]) -> list[Finding]:
    """Return each check once, grouped by category, both in the order in which they are first named.

    Of findings about the whole registry the worst one counts. Of those about a process each that is not well is
    named with its address.
    """
    by_check: dict[tuple[str, str], list[Report]] = {}
    for prefix, finding in reports:
        by_check.setdefault((finding.category, finding.id), []).append((prefix, finding))
    merged = [_merged(same) for same in by_check.values()]
    categories = list(dict.fromkeys(finding.category for finding in merged))
    return sorted(merged, key=lambda finding: categories.index(finding.category))


def _merged(reports: Sequence[Report]) -> Finding:
    _, worst = max(reports, key=_weight)
    by_process = any(finding.scope == "process" for _, finding in reports)
    if worst.status is FindingStatus.OK and by_process:
        passed = [finding for _, finding in reports if finding.status is FindingStatus.OK]
        facts = dict.fromkeys(line.text for finding in passed for line in finding.lines)
        return replace(worst, lines=[Line(", ".join(facts))] if facts else [])
    if worst.status not in _BAD or not by_process:
        return worst
    bad = [(prefix, finding) for prefix, finding in reports if finding.status in _BAD]
    lines = [replace(line, text=f"{prefix}{line.text}") for prefix, finding in bad for line in finding.lines]
    return replace(worst, lines=lines, more=sum(finding.more for _, finding in bad))


def _weight(report: Report) -> tuple[int, int]:
    _, finding = report
    return _SEVERITY.index(finding.status), len(finding.lines) + finding.more
