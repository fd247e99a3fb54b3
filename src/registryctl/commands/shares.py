"""The verb about shares of traffic within a service."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import GivenReason, Service
from registryctl.paths import path_of
from registryctl.session import Session


@verb()
def share(
    session: Session,
    name: Service,
    groups: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE=PERCENT]...",
            help="Like revision=abc=10 or canary=true=5; the rest gets what is left. Shows the shares when not given.",
            show_default=False,
        ),
    ] = None,
    reason: GivenReason = "",
    clear: Annotated[bool, typer.Option("--clear", help="Back to the weights of the endpoints.")] = False,
) -> None:
    """Give groups of a service's endpoints shares of its traffic, show what they get, or take them back."""
    from registryctl.errors import UsageError
    from registryctl.shares import read_group, show_shares

    path = path_of(name, rest="/shares")
    if clear and groups:
        raise UsageError("share: received both shares and --clear", "name the shares, or --clear to take them back")
    if clear:
        answer = session.client.ask("DELETE", path, {"reason": reason or None})
    elif groups:
        document = {"shares": [read_group(group) for group in groups], "reason": reason}
        answer = session.client.ask("PUT", path, document=document)
    else:
        answer = session.client.ask("GET", path)
    show_shares(session, answer.content)
