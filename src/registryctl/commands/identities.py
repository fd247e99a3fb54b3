"""Verbs about identities: identity set, list, remove."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import Addresses, GrantFile, Instance, Kind, Preset, Services, Verbs
from registryctl.session import Session

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Its own name; it owns what it registers.", show_default=False)
]


@verb()
def put(  # noqa: PLR0913  # the words of the command line
    session: Session,
    name: Name,
    aws: Annotated[str, typer.Option("--aws", metavar="ACCOUNT:ROLE", help="This AWS role.")] = "",
    spiffe: Annotated[str, typer.Option("--spiffe", metavar="URI", help="A certificate with this SPIFFE id.")] = "",
    dns: Annotated[str, typer.Option("--dns", metavar="NAME", help="A certificate with this DNS name.")] = "",
    oidc: Annotated[str, typer.Option("--oidc", metavar="E-MAIL", help="This person; *@example.org: all there.")] = "",
    network: Annotated[
        str, typer.Option("--network", metavar="CIDR", help="Whatever asks from this network without a credential.")
    ] = "",
    preset: Preset = "",
    verbs: Verbs = None,
    services: Services = None,
    addresses: Addresses = None,
    instance: Instance = "",
    kind: Kind = "",
    grants: GrantFile = None,
    unique_id: Annotated[
        str, typer.Option("--unique-id", metavar="AROA…", help="AWS's id of the role: one made again is another.")
    ] = "",
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=N", help="endpoints, changes (a second) or services; repeat."),
    ] = None,
) -> None:
    """Say what an AWS role, a certificate, a person or a network may do; replaces what was said before."""
    from msgspec import Raw

    from registryctl.access_tables import show_identity
    from registryctl.client import read
    from registryctl.grants import GrantOptions, grants_of, kind_of
    from registryctl.identities import limits_of, match_of, path_of

    source, match = match_of({"aws": aws, "spiffe": spiffe, "dns": dns, "oidc": oidc, "network": network})
    options = GrantOptions(preset, verbs or (), services or (), addresses or (), instance, grants, kind)
    request = {
        "source": source,
        "match": match,
        "kind": kind_of(options, "operator" if source == "oidc" else "registrar"),
        "grants": grants_of(options, bound=source == "aws"),
        "unique_id": unique_id,
        "limits": limits_of(limit or ()),
    }
    document = Raw(session.client.ask("PUT", path_of(name), document=request).content)
    if session.json:
        session.screen.document(document)
    else:
        show_identity(session.screen, read(document))


@verb()
def list_(session: Session) -> None:
    """List the identities: what proves each, and what it may do."""
    from registryctl.access_tables import show_identities
    from registryctl.client import read

    document = session.client.get("/v1/identities")
    if session.json:
        session.screen.document(document)
    else:
        show_identities(session.screen, read(document)["identities"])


@verb()
def remove(session: Session, name: Name) -> None:
    """Remove an identity, and end its sessions; what it registered is free once its leases lapse."""
    from msgspec import Raw

    from registryctl.identities import path_of

    session.client.ask("DELETE", path_of(name))
    if session.json:
        session.screen.document(Raw(b"{}"))
    else:
        session.screen.say(f"{name} is removed, and its sessions end everywhere within five seconds")
