"""Arguments that several verbs take: a service, an endpoint, a reason, a duration."""

from typing import Annotated

import typer

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="The service's name.", show_default=False)]
Endpoint = Annotated[str, typer.Argument(metavar="IP:PORT", help="IPv6 in brackets.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it is written into the history.")]
For = Annotated[
    str | None, typer.Option("--for", metavar="DURATION", help="End by itself after this long, like 30m or 2h.")
]
