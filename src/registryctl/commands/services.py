"""Verbs that look at services and endpoints: services, service, endpoints, explain."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import At, Endpoint, Service
from registryctl.paths import path_of
from registryctl.session import Session


@verb()
def services(
    session: Session,
    prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", help="Names that begin so.")] = "",
    at: At = None,
) -> None:
    """List services, with their endpoints by status."""
    from registryctl.client import read
    from registryctl.past import Past
    from registryctl.tables import show_services

    request = ("/v1/services", "services", {"prefix": prefix})
    if at is not None:
        past = Past(session.client, session.screen, at)
        names = [read(each)["name"] for each in session.client.pages(*request)]
        if session.json:
            session.screen.document(past.documents(names))
        else:
            past.show_services(names)
        return
    document = session.client.whole(*request)
    if session.json:
        session.screen.document(document)
    else:
        show_services(session.screen, read(document))


@verb()
def service(session: Session, name: Service, at: At = None) -> None:
    """Show one service: its endpoints by status and zone, and what is wrong with it."""
    from registryctl.past import Past
    from registryctl.tables import show_service

    if at is not None:
        past = Past(session.client, session.screen, at)
        if session.json:
            session.screen.document(past.document(name))
        else:
            past.show_services([name])
            past.show_endpoints(name)
        return
    document = session.client.get(path_of(name))
    if session.json:
        session.screen.document(document)
    else:
        listed = list(session.client.pages(path_of(name, rest="/endpoints"), "endpoints"))
        show_service(session.screen, document, listed, session.client.now)


@verb()
def endpoints(  # noqa: PLR0913  # one argument a filter, as the API has them
    session: Session,
    name: Service,
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help="HEALTHY, UNHEALTHY, ...; repeat for several."),
    ] = None,
    zone: Annotated[str | None, typer.Option("--zone", metavar="ZONE", help="Of this zone.")] = None,
    revision: Annotated[str | None, typer.Option("--revision", metavar="TEXT", help="Of this build.")] = None,
    instance: Annotated[str | None, typer.Option("--instance", metavar="ID", help="Of this instance.")] = None,
    canary: Annotated[bool | None, typer.Option("--canary/--no-canary", help="Canaries, or all others.")] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="KEY[=VALUE]", help="With this metadata; see them by -o json.")
    ] = None,
    at: At = None,
) -> None:
    """List the endpoints of a service."""
    from registryctl.errors import UsageError
    from registryctl.past import Past
    from registryctl.tables import show_endpoints

    if at is not None:
        if any(value is not None for value in (zone, revision, instance, canary, metadata)):
            raise UsageError("with --at there is no filter but --status: the history has no more of an endpoint")
        past = Past(session.client, session.screen, at)
        if session.json:
            session.screen.document(past.document(name))
        else:
            past.show_endpoints(name, [word.upper() for word in status or ()])
        return
    params = {
        "status": [word.upper() for word in status or ()],
        "zone": zone,
        "revision": revision,
        "instance_id": instance,
        "canary": None if canary is None else str(canary).lower(),
        "metadata": metadata,
    }
    request = (path_of(name, rest="/endpoints"), "endpoints", params)
    if session.json:
        session.screen.document(session.client.whole(*request))
    else:
        show_endpoints(session.screen, list(session.client.pages(*request)), session.client.now)


@verb()
def explain(session: Session, name: Service, endpoint: Endpoint, at: At = None) -> int:
    """Say why an endpoint is, or is not, getting traffic. Exit status 1: it is not."""
    from registryctl.client import read
    from registryctl.errors import NEGATIVE
    from registryctl.explanation import show_explanation
    from registryctl.past import Past

    if at is not None:
        past = Past(session.client, session.screen, at)
        if session.json:
            session.screen.document(past.events(name, endpoint))
            served = past.served(name, endpoint)
        else:
            served = past.explain(name, endpoint)
        return 0 if served else NEGATIVE

    document = session.client.get(path_of(name, endpoint, "/explain"))
    explanation = read(document)
    if session.json:
        session.screen.document(document)
    else:
        show_explanation(session.screen, explanation)
    return 0 if explanation["served"] else NEGATIVE
