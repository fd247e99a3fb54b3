"""Verbs about traffic: stat, edges and routes."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import Service
from registryctl.session import Session

_Window = Annotated[str, typer.Option("--window", metavar="WINDOW", help="How far back: 1m, 10m or 1h.")]


@verb()
def stat(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="Its callers and what it calls.", show_default=False)
    ] = None,
    window: _Window = "1m",
) -> int:
    """Show who fails, and why: success, requests/s, latency, time-outs of each pair, the worst first."""
    from msgspec import Raw
    from msgspec.json import encode

    from registryctl.errors import NEGATIVE
    from registryctl.traffic import nobody_reports, pairs_of, show_pairs

    document = pairs_of(session, name, window)
    if session.json:
        session.screen.document(Raw(encode(document)))
    elif not document["pairs"]:
        session.screen.note(f"no traffic{f' of {name}' if name else ''} is known: see docs/traffic.md")
    else:
        show_pairs(session.screen, document, document["pairs"])
    return 0 if document["pairs"] and not nobody_reports(document) else NEGATIVE


@verb()
def edges(session: Session, window: _Window = "1m") -> int:
    """List who calls whom, with requests/s and success."""
    from registryctl.client import read
    from registryctl.errors import NEGATIVE
    from registryctl.traffic import ask, nobody_reports, show_edges

    content = ask(session, "/v1/traffic", {"window": window, "limit": 10_000})
    document = read(content)
    if session.json:
        session.screen.document(content)
    elif not document["pairs"]:
        session.screen.note("no traffic is known: see docs/traffic.md")
    else:
        show_edges(session.screen, document)
    return 0 if document["pairs"] and not nobody_reports(document) else NEGATIVE


@verb()
def routes(session: Session, name: Service, window: _Window = "1m") -> int:
    """Show the traffic of each route to a service, where routes have a `stat_prefix`."""
    from registryctl.client import read
    from registryctl.errors import NEGATIVE
    from registryctl.traffic import ask, show_routes

    content = ask(session, "/v1/traffic/routes", {"window": window, "callee": name})
    known = read(content)["routes"]
    if session.json:
        session.screen.document(content)
    elif not known:
        session.screen.note(f"no route to {name} has traffic, or none has a stat_prefix: see docs/traffic.md")
    else:
        show_routes(session, content)
    return 0 if known else NEGATIVE
