"""Verbs about the expiry of leases: expiry, pause, resume."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import Reason
from registryctl.session import Session

Scope = Annotated[
    str | None, typer.Argument(metavar="[SERVICE]", help="Everywhere when not given.", show_default=False)
]


@verb()
def expiry(session: Session) -> None:
    """Show what keeps leases from lapsing: operators' pauses, and the guard's suspects."""
    from registryctl.client import read
    from registryctl.pauses import show_expiry

    document = session.client.get("/v1/expiry")
    if session.json:
        session.screen.document(document)
    else:
        show_expiry(session.screen, read(document), session.client.now)


@verb()
def pause(
    session: Session,
    reason: Reason,
    lasting: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, like 30m; a day at most.")],
    scope: Scope = None,
) -> None:
    """Let no lease lapse for a while, in one service or everywhere: for work that silences registrars."""
    from msgspec import Raw

    from registryctl.client import read
    from registryctl.pauses import pause_text
    from registryctl.settings import read_duration

    request = {"service": scope, "reason": reason, "expires_in": read_duration(lasting, "--for")}
    document = Raw(session.client.ask("PUT", "/v1/expiry/pause", document=request).content)
    if session.json:
        session.screen.document(document)
    else:
        session.screen.say(pause_text(read(document), session.client.now))
        if scope:
            _note_unknown_service(session, scope)


def _note_unknown_service(session: Session, name: str) -> None:
    """Say that a paused service is not known, since its name may be misspelt."""
    from registryctl.errors import CtlError, MissingError
    from registryctl.paths import path_of

    try:
        session.client.get(path_of(name))
    except MissingError:
        session.screen.note(f"no service {name} is known now; `registryctl services` has the names")
    except CtlError:
        # What is paused was said. The name is not what this principal may read, or what a registry can say now.
        return


@verb()
def resume(session: Session, scope: Scope = None) -> None:
    """Let leases lapse again; what expired meanwhile lapses by the rules of the guard."""
    from msgspec import Raw

    session.client.ask("DELETE", "/v1/expiry/pause", {"service": scope})
    if session.json:
        session.screen.document(Raw(b"{}"))
    else:
        session.screen.say(f"the pause {f'in {scope}' if scope else 'everywhere'} is over")
