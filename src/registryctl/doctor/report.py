"""What `registryctl check` says: a mark a line under its category, a hint below each trouble; or JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import msgspec
from msgspec import Raw

from registryctl.catalogue import CHECKS
from registryctl.doctor.finding import Finding, Mark
from registryctl.output import Screen

_MARKS = {
    Mark.OK: ("√", "ok", "green"),
    Mark.WARNING: ("‼", "!!", "yellow"),
    Mark.FAILURE: ("\N{MULTIPLICATION SIGN}", "XX", "bold red"),
    Mark.SKIPPED: ("-", "--", "dim"),
}


def failed(findings: Iterable[Finding]) -> list[Finding]:
    """Return the failures."""
    return [one for one in findings if one.mark is Mark.FAILURE]


def print_report(screen: Screen, findings: Sequence[Finding], *, short: bool) -> None:
    """Print findings by category; ``short`` leaves out what is well."""
    for title, group in _categories(findings):
        told = [one for one in group if one.mark is not Mark.SKIPPED and not (short and one.mark is Mark.OK)]
        if told:
            screen.say((title, "bold"))
            screen.say(("-" * len(title), "dim"))
            for one in told:
                _print_one(screen, one)
            screen.say("")
    _print_skipped(screen, findings, short=short)
    _print_verdict(screen, findings)


def json_report(findings: Sequence[Finding]) -> Raw:
    """Return the same for scripts."""
    categories = [
        {"name": title, "checks": [_document(one) for one in group]} for title, group in _categories(findings)
    ]
    counts = {mark.value: sum(one.mark is mark for one in findings) for mark in Mark}
    return Raw(msgspec.json.encode({"ok": not failed(findings), "counts": counts, "categories": categories}))


def sign(screen: Screen, mark: Mark) -> tuple[str, str]:
    """Return a mark and its style."""
    sign, plain, style = _MARKS[mark]
    return screen.sign(sign, plain), style


def _document(one: Finding) -> dict[str, object]:
    check = CHECKS[one.id]
    return {"id": one.id, "holds": check.holds, "result": one.mark.value, "said": list(one.said), "see": check.link}


def _categories(findings: Sequence[Finding]) -> Iterator[tuple[str, list[Finding]]]:
    for title, group in groupby(findings, key=_title):
        yield title, list(group)


def _title(one: Finding) -> str:
    category = CHECKS[one.id].category
    return f"{category} {one.subject}" if one.subject else category


def _print_one(screen: Screen, one: Finding) -> None:
    check, mark = CHECKS[one.id], sign(screen, one.mark)
    if one.mark is Mark.OK:
        fact = f"  {one.said[0]}" if one.said else ""
        screen.say(mark, f" {check.holds}", (fact, "dim"))
        return
    screen.say(mark, f" {check.holds}")
    for line in one.said:
        screen.indented(line, mark[1].removeprefix("bold "), 4)
    screen.say((f"    see {check.link} for what to do", "dim"))


def _print_skipped(screen: Screen, findings: Sequence[Finding], *, short: bool) -> None:
    if short:
        return
    reasons = Counter(one.said[0] for one in findings if one.mark is Mark.SKIPPED)
    for reason, number in reasons.items():
        screen.say((f"{sign(screen, Mark.SKIPPED)[0]} {_counted(number, 'check')} not made: {reason}", "dim"))
    if reasons:
        screen.say("")


def _print_verdict(screen: Screen, findings: Sequence[Finding]) -> None:
    made = [one for one in findings if one.mark is not Mark.SKIPPED]
    failures, warnings = len(failed(made)), sum(one.mark is Mark.WARNING for one in made)
    worst = Mark.FAILURE if failures else Mark.WARNING if warnings else Mark.OK
    said = [_counted(number, noun) for number, noun in ((failures, "failure"), (warnings, "warning")) if number]
    screen.say(sign(screen, worst), f" {_counted(len(made), 'check')}: {' and '.join(said) or 'all is well'}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
