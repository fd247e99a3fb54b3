"""Verb that looks at the history: events."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.session import Session


@verb()
def events(  # noqa: PLR0913  # one argument a filter, as the API has them
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Of this service.", show_default=False)
    ] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint", metavar="IP:PORT", help="Of this endpoint.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="lapsed, health, drained, ...")] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="TEXT", help="By this actor, or a part of the name.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="DURATION", help="Of the last 10m, 2h, ...")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens next, until Ctrl-C.")] = False,
) -> None:
    """Show the events of endpoints: what happened, when, why and by whom; the newest last."""
    from registryctl.client import read
    from registryctl.event_lines import EventLines
    from registryctl.settings import read_duration
    from registryctl.stream import Stream

    client, screen = session.client, session.screen
    params: dict[str, object] = {"service": name, "endpoint": endpoint, "kind": kind, "actor": by}
    if since is not None:
        params["since"] = client.ask_time() - read_duration(since, "--since")
    if not follow:
        request = ("/v1/events", "events", params, limit)
        if session.json:
            screen.document(client.whole(*request))
        else:
            newest_first = list(client.pages(*request))
            EventLines(screen).all(map(read, reversed(newest_first)))
            if not newest_first:
                screen.note("no event that matches is kept; `registryctl services` has the names of services")
        return
    stream = Stream(
        client,
        params,
        lost=lambda reason: screen.note(f"the stream was lost ({reason}); it goes on when a registry answers"),
        back=lambda: screen.note("the stream goes on"),
    )
    lines = EventLines(screen)
    for event in stream.events():
        if session.json:
            screen.line(event)
        else:
            lines.line(read(event))
