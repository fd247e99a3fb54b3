"""Report of ``registryctl check``: a headline under its category, the lines below it, and a link; or JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec
from msgspec import Raw

from registryctl.doctor.catalogue import link_of
from registryctl.output import Screen
from wire.finding import Finding, FindingStatus, counted

MAX_LINES = 8
"""Lines of a finding that are printed; of the others only the number is."""

_SIGNS = {
    FindingStatus.OK: ("√", "ok", "green"),
    FindingStatus.WARNING: ("‼", "!!", "yellow"),
    FindingStatus.FAILURE: ("\N{MULTIPLICATION SIGN}", "XX", "bold red"),
    FindingStatus.SKIPPED: ("-", "--", "dim"),
}
"""Sign, sign where the terminal has no better one, style."""


def failed(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings that are failures."""
    return [finding for finding in findings if finding.status is FindingStatus.FAILURE]


def print_report(screen: Screen, findings: Sequence[Finding], *, short: bool) -> None:
    """Print findings by category; ``short`` leaves out the checks that passed."""
    hidden = {FindingStatus.SKIPPED, FindingStatus.OK} if short else {FindingStatus.SKIPPED}
    for title, group in _categories(findings):
        shown = [finding for finding in group if finding.status not in hidden]
        if shown:
            screen.say((title, "bold"))
            screen.say(("-" * len(title), "dim"))
            for finding in shown:
                _print_finding(screen, finding)
            screen.say("")
    _print_skipped(screen, findings, short=short)
    _print_summary(screen, findings)


def json_report(findings: Sequence[Finding]) -> Raw:
    """Return the report for scripts."""
    categories = [
        {"name": title, "checks": [_document(finding) for finding in group]} for title, group in _categories(findings)
    ]
    counts = {status.value: sum(finding.status is status for finding in findings) for status in FindingStatus}
    return Raw(msgspec.json.encode({"ok": not failed(findings), "counts": counts, "categories": categories}))


def sign(screen: Screen, status: FindingStatus) -> tuple[str, str]:
    """Return the sign of a status and its style."""
    sign, plain, style = _SIGNS[status]
    return screen.sign(sign, plain), style


def _document(finding: Finding) -> dict[str, object]:
    return {
        "id": finding.id,
        "holds": finding.holds,
        "headline": finding.headline,
        "result": finding.status.value,
        "said": _lines(finding),
        "see": link_of(finding.id),
    }


def _lines(finding: Finding) -> list[str]:
    """Return the lines that are shown, and how many others there are."""
    more = finding.more + max(0, len(finding.lines) - MAX_LINES)
    return [*(line.text for line in finding.lines[:MAX_LINES]), *([f"and {more:,} more"] if more else [])]


def _categories(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    for title, group in groupby(findings, key=lambda finding: finding.category):
        yield title, list(group)


def _print_finding(screen: Screen, finding: Finding) -> None:
    mark = sign(screen, finding.status)
    if finding.status is FindingStatus.OK:
        fact = f"  {finding.lines[0].text}" if finding.lines else ""
        screen.say(mark, f" {finding.headline}", (fact, "dim"))
        return
    screen.say(mark, f" {finding.headline}")
    for line in _lines(finding):
        screen.indented(line, mark[1].removeprefix("bold "), 4)
    screen.say((f"    see {link_of(finding.id)} for what to do", "dim"))


def _print_skipped(screen: Screen, findings: Sequence[Finding], *, short: bool) -> None:
    if short:
        return
    reasons = Counter(finding.lines[0].text for finding in findings if finding.status is FindingStatus.SKIPPED)
    for reason, number in reasons.items():
        mark = sign(screen, FindingStatus.SKIPPED)[0]
        screen.say((f"{mark} {counted(number, 'check', 'checks')} not made: {reason}", "dim"))
    if reasons:
        screen.say("")


def _print_summary(screen: Screen, findings: Sequence[Finding]) -> None:
    made = [finding for finding in findings if finding.status is not FindingStatus.SKIPPED]
    failures = len(failed(made))
    warnings = sum(finding.status is FindingStatus.WARNING for finding in made)
    worst = FindingStatus.FAILURE if failures else FindingStatus.WARNING if warnings else FindingStatus.OK
    parts = [
        counted(number, noun, f"{noun}s") for number, noun in ((failures, "failure"), (warnings, "warning")) if number
    ]
    screen.say(sign(screen, worst), f" {counted(len(made), 'check', 'checks')}: {' and '.join(parts) or 'all is well'}")
