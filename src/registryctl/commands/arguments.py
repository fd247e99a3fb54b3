"""Arguments that several verbs take: a service, an endpoint, a reason, a duration, grants."""

from pathlib import Path
from typing import Annotated

import typer

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.", show_default=False)]
Endpoint = Annotated[str, typer.Argument(metavar="IP:PORT", help="IPv6 in brackets.", show_default=False)]
Endpoints = Annotated[
    list[str], typer.Argument(metavar="IP:PORT...", help="One or several; IPv6 in brackets.", show_default=False)
]
Reason = Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it is written into the history.")]
GivenReason = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it is written into the history. May be left out.")
]
For = Annotated[
    str | None, typer.Option("--for", metavar="DURATION", help="End by itself after this long, like 30m or 2h.")
]

Verbs = Annotated[list[str] | None, typer.Option("--verb", metavar="VERB", help="What it may do; repeat for several.")]
Services = Annotated[
    list[str] | None,
    typer.Option("--service", metavar="NAME", help="With this service, or those that begin so: 'shop-*'; repeat."),
]
Addresses = Annotated[
    list[str] | None,
    typer.Option("--address", metavar="CIDR", help="Register here alone; peer: the address that asks; repeat."),
]
Instance = Annotated[
    str, typer.Option("--instance", metavar="any|session", help="Register any instance, or those of its own session.")
]
Preset = Annotated[
    str,
    typer.Option(
        "--for", metavar="SET", help="A ready-made set: registrar, envoy, operator, on-call, prometheus, admin."
    ),
]
GrantFile = Annotated[
    Path | None, typer.Option("--grants", metavar="FILE", help="Grants as the API has them, in JSON; - for a pipe.")
]
Kind = Annotated[
    str, typer.Option("--kind", metavar="KIND", help="For people to read: registrar, envoy, operator, machine.")
]
OutFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write it to this new file, which only you can read.")
]
Ttl = Annotated[str | None, typer.Option("--ttl", metavar="DURATION", help="For how long it is good, like 12h or 90d.")]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="As it was 10m ago, or at 2026-11-29T02:31:04Z, by the history."),
]
