"""Verb that looks at the Envoys that poll: subscribers."""

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
        typer.Option(
            "--state", metavar="STATE", help="current, behind, stuck, rejected or silent; repeat for several."
        ),
    ] = None,
    node: Annotated[str | None, typer.Option("--node", metavar="ID", help="The Envoy with this node id.")] = None,
    zone: Annotated[str | None, typer.Option("--zone", metavar="ZONE", help="Of this zone.")] = None,
) -> None:
    """List the Envoys that poll or have streams: the version of each, ours, and why it is not current."""
    from registryctl.client import read
    from registryctl.subscriber_table import reason_incomplete, show_subscribers

    params = {"service": name, "state": state or [], "node": node, "zone": zone}
    request = ("/v1/subscribers", "subscribers", params)
    if session.json:
        session.screen.document(session.client.whole(*request))
    else:
        listed = list(session.client.pages(*request))
        # Asked last: a list that is complete then was complete when the pages were read, or lacks newer ones only.
        page = read(session.client.get("/v1/subscribers", {"limit": 1}))
        incomplete = reason_incomplete(page["complete"], page.get("refused_ago"))
        show_subscribers(session.screen, listed, session.client.now, incomplete)
