"""Verbs about static tokens: token create, list, rotate, revoke."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import (
    Addresses,
    GrantFile,
    Instance,
    Kind,
    OutFile,
    Preset,
    Services,
    Ttl,
    Verbs,
)
from registryctl.session import Session

Token = Annotated[str, typer.Argument(metavar="TOKEN", help="Its id, or its name.", show_default=False)]


@verb()
def create(  # noqa: PLR0913  # the words of the command line
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name; it owns what it registers.", show_default=False)
    ],
    preset: Preset = "",
    verbs: Verbs = None,
    services: Services = None,
    addresses: Addresses = None,
    instance: Instance = "",
    networks: Annotated[
        list[str] | None,
        typer.Option("--network", metavar="CIDR", help="Accept it from this network alone; repeat for several."),
    ] = None,
    ttl: Ttl = None,
    kind: Kind = "",
    grants: GrantFile = None,
    out: OutFile = None,
) -> None:
    """Make a token and print it, this once; it is good for 90 days without --ttl."""
    from registryctl.grants import GrantOptions, grants_of, kind_of, preset_of
    from registryctl.new_tokens import make_token
    from registryctl.settings import read_duration

    options = GrantOptions(preset, verbs or (), services or (), addresses or (), instance, grants, kind)
    chosen = preset_of(options)
    lasting = ttl or (chosen.ttl if chosen is not None else "")
    request = {
        "name": name,
        "kind": kind_of(options, "machine"),
        "grants": grants_of(options),
        "networks": networks or [],
        **({"ttl": read_duration(lasting, "--ttl")} if lasting else {}),
    }
    make_token(session, "/v1/tokens", request, out)


@verb()
def list_(
    session: Session,
    every: Annotated[bool, typer.Option("--all", help="Also those that ended in the last 30 days.")] = False,
) -> None:
    """List the tokens: until when each is good, when it was last used, and what it may do."""
    from registryctl.access_tables import show_tokens
    from registryctl.client import read

    document = session.client.get("/v1/tokens")
    if session.json:
        session.screen.document(document)
    else:
        show_tokens(session.screen, read(document)["tokens"], session.client.now, every=every)


@verb()
def rotate(
    session: Session,
    token: Token,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="DURATION", help="How long the old one stays good; 0: not at all.")
    ] = "1h",
    ttl: Ttl = None,
    out: OutFile = None,
) -> None:
    """Make a successor with the same name and grants, and print it; the old one ends a while later."""
    from registryctl.errors import UsageError
    from registryctl.new_tokens import find_token, make_token
    from registryctl.settings import read_duration
    from wire.duration import parse_duration

    try:
        seconds = parse_duration(overlap)
    except ValueError as error:
        raise UsageError(f"--overlap: {error}") from None
    request = {"overlap": seconds} | ({} if ttl is None else {"ttl": read_duration(ttl, "--ttl")})
    make_token(session, f"/v1/tokens/{find_token(session, token)}/rotate", request, out)


@verb()
def revoke(session: Session, token: Token) -> None:
    """Revoke a token, or a session by its id: no registry process accepts it after five seconds."""
    from msgspec import Raw

    from registryctl.new_tokens import find_token

    token_id = find_token(session, token)
    session.client.ask("DELETE", f"/v1/tokens/{token_id}")
    if session.json:
        session.screen.document(Raw(b"{}"))
    else:
        session.screen.say(f"{token_id} is revoked: it ends everywhere within five seconds")
