"""Verbs for trouble: check, bundle."""

from pathlib import Path
from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.session import Session

Envoys = Annotated[
    list[str] | None,
    typer.Option("--envoy", metavar="URL", help="Look at this Envoy's admin interface, too; repeat for several."),
]


@verb("table", "short", "json")
def check(
    session: Session,
    envoy: Envoys = None,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="DURATION", help="Try again for so long, until nothing fails.")
    ] = None,
    suspects: Annotated[
        int,
        typer.Option(
            "--suspects",
            metavar="N",
            min=0,
            help="Allow so many silent endpoints that still get traffic.",
            show_default=True,
        ),
    ] = 0,
) -> int:
    """Examine the whole system and say what is wrong and what to do. Exit status 1: something fails."""
    from registryctl.doctor.examination import examine_until_well
    from registryctl.doctor.report import failed, json_report, print_report
    from registryctl.errors import NEGATIVE
    from registryctl.settings import check_url, read_duration

    urls = [url.rstrip("/") for url in envoy or ()]
    for url in urls:
        check_url(url, "--envoy")
    limit = 0.0 if wait is None else read_duration(wait, "--wait")
    findings = examine_until_well(session.settings, urls, suspects, limit, session.screen)
    if session.json:
        session.screen.document(json_report(findings))
    else:
        print_report(session.screen, findings, short=session.output == "short")
    return NEGATIVE if failed(findings) else 0


@verb()
def bundle(
    session: Session,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="headcount-<time>.tar.gz when not given.", show_default=False),
    ] = None,
    envoy: Envoys = None,
) -> None:
    """Write a support archive: everything that can be asked, without secrets. It prints what is inside."""
    from registryctl.bundle import write_bundle
    from registryctl.settings import check_url

    urls = [url.rstrip("/") for url in envoy or ()]
    for url in urls:
        check_url(url, "--envoy")
    write_bundle(session, path, urls)
