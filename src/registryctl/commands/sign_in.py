"""Verbs about the sender itself: login, logout, whoami, can."""

from pathlib import Path
from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.session import Session

_OPERATIONS = ("drain", "weight", "share", "shift", "deregister")
"""Commands that somebody may ask about who means the verb behind them."""


@verb(signs_in=False)
def login(
    session: Session,
    file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="Take the token from this file.")
    ] = None,
    leaked: Annotated[str, typer.Argument(hidden=True)] = "",
) -> None:
    """Store a token for the registry's address once the registry has accepted it; paste or pipe it."""
    from msgspec import Raw

    from registryctl.errors import UsageError
    from registryctl.sign_in import log_in, read_pasted
    from registryctl.token import read_token_file

    if leaked:
        raise UsageError(
            "a token is no argument: the shell's history has it now, and every user sees arguments in `ps`",
            "rotate it; then run `registryctl login` and paste the new one, or use --token-file",
        )
    token = read_pasted() if file is None else read_token_file(file, "--token-file")
    document, paths = log_in(session, token)
    if session.json:
        session.screen.document(Raw(document))
    else:
        from registryctl.access_tables import show_whoami
        from registryctl.client import read

        show_whoami(session.screen, read(Raw(document)), session.client.now)
        for path in paths:
            session.screen.note(f"stored in {path}")


@verb(signs_in=False)
def logout(session: Session) -> None:
    """Forget the stored token of the registry's address; a session is ended at the registry, too."""
    from msgspec import Raw

    from registryctl.sign_in import log_out

    lines = log_out(session)
    if session.json:
        session.screen.document(Raw(b"{}"))
        return
    for line in lines:
        session.screen.say(line)


@verb()
def whoami(session: Session) -> int:
    """Show who you are to the registry and what you may do. Exit status 1: it knows nobody."""
    from registryctl.access_tables import show_whoami
    from registryctl.client import read
    from registryctl.errors import NEGATIVE

    document = session.client.get("/v1/whoami")
    view = read(document)
    if session.json:
        session.screen.document(document)
    else:
        show_whoami(session.screen, view, session.client.now, session.client.token)
    return NEGATIVE if view["problem"] or view["kind"] == "anonymous" else 0


@verb()
def can(
    session: Session,
    asked: Annotated[str, typer.Argument(metavar="VERB", help="Like register or operate.", show_default=False)],
    service: Annotated[str, typer.Argument(metavar="[SERVICE]", help="With this service.", show_default=False)] = "",
    endpoint: Annotated[str, typer.Option("--endpoint", metavar="IP:PORT", help="Register this endpoint of it.")] = "",
    instance: Annotated[str | None, typer.Option("--instance", metavar="ID", help="Register this instance.")] = None,
    named: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Ask about token:NAME or identity:NAME, which needs admin.")
    ] = "",
) -> int:
    """Say whether you may do something, and why not. Exit status 1: no."""
    from msgspec import Raw

    from registryctl.access_tables import show_decision
    from registryctl.client import read
    from registryctl.errors import NEGATIVE, UsageError
    from registryctl.grants import VERBS
    from wire.spelling import spelling_hint

    if asked not in VERBS:
        # Words of other commands are answered, and not taken for a misspelt verb: drain resembles admin.
        hint = f"to {asked} is `operate`" if asked in _OPERATIONS else spelling_hint(asked, VERBS)
        raise UsageError(f"the registry knows no verb {asked!r}", hint)
    question = {"verb": asked, "service": service, "endpoint": endpoint, "instance_id": instance, "principal": named}
    document = Raw(session.client.ask("POST", "/v1/authorize", document=question).content)
    decision = read(document)
    if session.json:
        session.screen.document(document)
    else:
        show_decision(session.screen, decision, asked, service, endpoint)
    return 0 if decision["allowed"] else NEGATIVE
