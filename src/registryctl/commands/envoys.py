"""Who polls: subscribers."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.session import Session


@verb()
def subscribers(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Of this service.", show_default=False)
    ] = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", metavar="STATE", help="current, behind, stuck or silent; repeat for several."),
    ] = None,
    node: Annotated[str | None, typer.Option("--node", metavar="ID", help="The Envoy with this node id.")] = None,
    zone: Annotated[str | None, typer.Option("--zone", metavar="ZONE", help="Of this zone.")] = None,
) -> None:
    """List the Envoys that poll: the version that each holds against ours, and who is stuck or behind."""
    from registryctl.client import read
    from registryctl.subscriber_table import show_subscribers

    wanted = {"service": name, "state": state or [], "node": node, "zone": zone}
    asked = ("/v1/subscribers", "subscribers", wanted)
    if session.json:
        session.screen.document(session.client.whole(*asked))
    else:
        found = list(session.client.pages(*asked))
        # Asked last: what is complete then was complete when the pages were read, or lacks what came since.
        complete = bool(read(session.client.get("/v1/subscribers", {"limit": 1}))["complete"])
        show_subscribers(session.screen, found, session.client.now, complete=complete)
