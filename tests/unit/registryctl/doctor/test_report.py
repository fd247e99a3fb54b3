"""Report of `registryctl check`: the headline of each finding, its lines and a link, for people and for scripts."""

import io

import msgspec
from msgspec.structs import replace

from registryctl.doctor.finding import skipped
from registryctl.doctor.report import json_report, print_report
from registryctl.output import Screen
from wire.finding import Finding, FindingStatus, Line, counted


def served(check: str, category: str, status: str, headline: str, *lines: str) -> Finding:
    """Return a finding of a registry."""
    return Finding(check, category, "whole", FindingStatus(status), headline, "it is well", [*map(Line, lines)])


FINDINGS = [
    served("postgresql-answers", "postgresql", "ok", "PostgreSQL answers the registry", "18.4 in 2 ms"),
    served("registrars-heard", "registrars", "warning", "2 registrars are silent", "a", "b"),
    served("services-routable", "services", "failure", "1 service has no routable endpoint", "cart: 1 UNHEALTHY"),
    skipped("replicas-agree", "one address"),
    skipped("replicas-one-database", "one address"),
]


def printed(findings: list[Finding], *, short: bool) -> str:
    """Return the report as it is printed where there is no terminal."""
    out = io.StringIO()
    print_report(Screen(out), findings, short=short)
    return out.getvalue()


def test_the_report_has_a_line_for_each_check_that_passed_and_all_of_every_other() -> None:
    """Checks that were not made are counted by their reason, and the last line sums up."""
    assert printed(FINDINGS, short=False).splitlines() == [
        "postgresql",
        "----------",
        "ok PostgreSQL answers the registry  18.4 in 2 ms",
        "",
        "registrars",
        "----------",
        "!! 2 registrars are silent",
        "    a",
        "    b",
        "    see docs/checks.md#registrars-heard for what to do",
        "",
        "services",
        "--------",
        "XX 1 service has no routable endpoint",
        "    cart: 1 UNHEALTHY",
        "    see docs/checks.md#services-routable for what to do",
        "",
        "-- 2 checks not made: one address",
        "",
        "XX 3 checks: 1 failure and 1 warning",
    ]


def test_the_short_report_leaves_out_what_passed() -> None:
    """Neither checks that passed nor checks that were not made are in it."""
    short = printed(FINDINGS, short=True)
    assert "PostgreSQL" not in short
    assert "not made" not in short
    assert printed(FINDINGS[:1], short=True) == "ok 1 check: all is well\n"


def test_the_document_has_the_headline_beside_what_holds_when_all_is_well() -> None:
    """Scripts read the result and the lines; the exit status follows from `ok`."""
    document = msgspec.json.decode(json_report(FINDINGS))
    assert (document["ok"], document["counts"]) == (False, {"ok": 1, "warning": 1, "failure": 1, "skipped": 2})
    [registrars] = [category for category in document["categories"] if category["name"] == "registrars"]
    assert registrars["checks"] == [
        {
            "id": "registrars-heard",
            "holds": "it is well",
            "headline": "2 registrars are silent",
            "result": "warning",
            "said": ["a", "b"],
            "see": "docs/checks.md#registrars-heard",
        }
    ]
    assert msgspec.json.decode(json_report(FINDINGS[:2]))["ok"] is True


def test_a_number_has_its_words() -> None:
    """One is in the singular, none and several are in the plural."""
    assert [counted(number, "row is", "rows are") for number in (0, 1, 2)] == ["0 rows are", "1 row is", "2 rows are"]


def test_of_many_lines_the_first_are_shown() -> None:
    """A thousand silent registrars do not scroll the cause away; those that the registry left out count, too."""
    lines = [f"line {number}" for number in range(20)]
    many = served("registrars-heard", "registrars", "warning", "1,000 registrars are silent", *lines)
    many = replace(many, more=980)
    text = printed([many], short=False).splitlines()
    assert text[2:12] == [
        "!! 1,000 registrars are silent",
        *(f"    line {number}" for number in range(8)),
        "    and 992 more",
    ]
    assert msgspec.json.decode(json_report([many]))["categories"][0]["checks"][0]["said"][-1] == "and 992 more"
