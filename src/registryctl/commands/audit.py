"""Verb that looks at the audit: audit."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.session import Session


@verb()
def audit(  # one argument a filter, as the API has them
    session: Session,
    principal: Annotated[
        str | None, typer.Option("--principal", metavar="TEXT", help="Of this principal, or a part of its name.")
    ] = None,
    asked: Annotated[str | None, typer.Option("--verb", metavar="VERB", help="That asked for this verb.")] = None,
    service: Annotated[str | None, typer.Option("--service", metavar="NAME", help="With this service.")] = None,
    decision: Annotated[
        str | None, typer.Option("--decision", metavar="TEXT", help="allowed, refused, would_refuse or failed.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="DURATION", help="Of the last 10m, 2h, ...")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
) -> None:
    """Show who did what, and who was refused or would be, and why; the newest last."""
    from registryctl.audit_lines import DECISIONS, show_audit
    from registryctl.client import read
    from registryctl.errors import UsageError
    from registryctl.grants import VERBS
    from registryctl.settings import read_duration
    from wire.spelling import spelling_hint

    for option, text, allowed in (("--verb", asked, VERBS), ("--decision", decision, tuple(DECISIONS))):
        if text is not None and text not in allowed:
            raise UsageError(f"{option}: the audit has no {text!r}", spelling_hint(text, allowed))
    params: dict[str, object] = {"principal": principal, "verb": asked, "service": service, "decision": decision}
    if since is not None:
        params["since"] = session.client.ask_time() - read_duration(since, "--since")
    request = ("/v1/audit", "entries", params, limit)
    if session.json:
        session.screen.document(session.client.whole(*request, cursor="after"))
    else:
        show_audit(session.screen, map(read, reversed(list(session.client.pages(*request, cursor="after")))))
