"""Verbs about the strength of services: expect a number of endpoints, acknowledge lost ones."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import GivenReason, Service
from registryctl.paths import path_of
from registryctl.session import Session


@verb()
def expect(
    session: Session,
    name: Service,
    number: Annotated[
        int | None, typer.Argument(metavar="[NUMBER]", help="How many endpoints there should be.", show_default=False)
    ] = None,
    reason: GivenReason = "",
    clear: Annotated[bool, typer.Option("--clear", help="Back to what registrations say, or is observed.")] = False,
) -> None:
    """Set how many endpoints a service should have, so that one that is missing is noticed."""
    from msgspec import Raw

    from registryctl.client import read
    from registryctl.errors import UsageError
    from registryctl.tables import strength

    if clear == (number is not None):
        received = "both a number and --clear" if clear else "neither a number nor --clear"
        raise UsageError(f"expect: received {received}", "name how many there should be, or --clear to take it back")
    document = {"expected": number, "reason": reason}
    body = Raw(session.client.ask("PUT", path_of(name, rest="/expected"), document=document).content)
    if session.json:
        session.screen.document(body)
    else:
        service = read(body)
        session.screen.say(f"{name}: {strength(service)}; the number is {_SOURCES[service['expected_source']]}")


@verb()
def acknowledge(
    session: Session,
    name: Service,
    endpoint: Annotated[
        str | None, typer.Argument(metavar="[IP:PORT]", help="Of all lost ones when not given.", show_default=False)
    ] = None,
    reason: GivenReason = "",
) -> None:
    """Acknowledge that a lost endpoint, or all of a service, will not come back: they are expected no more."""
    from msgspec import Raw

    from registryctl.client import read

    rest = "/lost/acknowledge" if endpoint is None else f"/lost/{quote_endpoint(endpoint)}/acknowledge"
    body = Raw(session.client.ask("POST", path_of(name, rest=rest), {"reason": reason or None}).content)
    if session.json:
        session.screen.document(body)
    else:
        session.screen.say(f"{name}: acknowledged the loss of {', '.join(read(body)['endpoints'])}")


def quote_endpoint(endpoint: str) -> str:
    """Return an endpoint as a part of a path."""
    from urllib.parse import quote

    return quote(endpoint, safe="")


_SOURCES = {
    "operator": "an operator's",
    "registration": "the registrations'",
    "ecs": "ECS's",
    "observed": "what was observed",
}
"""Where an expected number comes from, in words."""
