"""Verbs of an operator that overrule the registrar: drain, undrain, weight, canary, deregister."""

from typing import Annotated

import typer

from registryctl.command import verb
from registryctl.commands.arguments import Endpoint, Endpoints, For, GivenReason, Reason, Service
from registryctl.paths import path_of
from registryctl.session import Session
from wire.model import MAX_WEIGHT


@verb()
def overrides(
    session: Session,
    service: Annotated[str | None, typer.Argument(metavar="[SERVICE]", help="Of this service alone.")] = None,
) -> None:
    """List what operators have overridden: who, what, since when, until when, why."""
    from registryctl.override import show_overrides

    request = ("/v1/overrides", "overrides", {"service": service})
    if session.json:
        session.screen.document(session.client.whole(*request))
    else:
        show_overrides(session.screen, session.client.pages(*request), session.client.now)


@verb()
def drain(session: Session, name: Service, endpoints: Endpoints, reason: Reason, lasting: For = None) -> int:
    """Take endpoints out of rotation, until `undrain` or for a while; they go on serving what they have."""
    if len(endpoints) == 1:
        _set(session, name, endpoints[0], {"drain": True}, reason, lasting)
        return 0
    return _change_several(session, name, endpoints, "drain", reason, _ends(lasting))


@verb()
def undrain(session: Session, name: Service, endpoints: Endpoints, reason: GivenReason = "") -> int:
    """Take drains back that operators set. A drain by the registrar itself is final for its incarnation."""
    from registryctl.errors import UsageError

    if len(endpoints) == 1:
        _clear(session, name, endpoints[0], "drain", reason)
        return 0
    if not reason:
        raise UsageError("undrain: for several endpoints, say why with --reason; it is written into the history")
    return _change_several(session, name, endpoints, "undrain", reason)


@verb()
def weight(  # the words of the command line
    session: Session,
    name: Service,
    endpoint: Endpoint,
    value: Annotated[int | None, typer.Argument(metavar="[WEIGHT]", help="1 to 10000.", show_default=False)] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; required with a weight.")] = "",
    lasting: For = None,
    clear: Annotated[bool, typer.Option("--clear", help="Back to the registration's weight.")] = False,
) -> None:
    """Set the load balancing weight of an endpoint, or take it back."""
    from registryctl.errors import UsageError

    if value is not None and not 1 <= value <= MAX_WEIGHT:
        raise UsageError(
            f"weight: {value} is not from 1 to {MAX_WEIGHT}, the weights that Envoy takes",
            "an endpoint that is to get no requests is drained: registryctl drain" if value == 0 else "",
        )
    _set_or_clear(session, (name, endpoint), "weight", value, reason, lasting, clear)


@verb()
def canary(  # the words of the command line
    session: Session,
    name: Service,
    endpoint: Endpoint,
    value: Annotated[
        str | None, typer.Argument(metavar="[yes|no]", help="Whether it is one.", show_default=False)
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; required with yes or no.")] = "",
    lasting: For = None,
    clear: Annotated[bool, typer.Option("--clear", help="Back to the registration's word.")] = False,
) -> None:
    """Say that an endpoint is a canary or is none, whatever its registration says, or take that back."""
    from registryctl.errors import UsageError

    if value not in (None, "yes", "no"):
        raise UsageError(f"canary: {value!r} is neither yes nor no")
    flag = None if value is None else value == "yes"
    _set_or_clear(session, (name, endpoint), "canary", flag, reason, lasting, clear)


@verb()
def deregister(
    session: Session,
    name: Service,
    reason: Reason,
    endpoints: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IP:PORT]...", help="Of all its endpoints when not given.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Deregister even if the guard's limit is exceeded (otherwise refused).")
    ] = False,
) -> int:
    """Deregister endpoints, or a whole service, that are gone for good. Exit status 4: too many at once."""
    from msgspec import Raw

    if endpoints and len(endpoints) > 1:
        return _change_several(session, name, endpoints, "deregister", reason, {"force": force})
    endpoint = endpoints[0] if endpoints else None
    params = {"reason": reason, "force": "true" if force else None}
    body = session.client.ask("DELETE", path_of(name, endpoint), params).content
    if session.json:
        session.screen.document(Raw(body or b"{}"))
    else:
        session.screen.say(
            f"{name}{f' {endpoint}' if endpoint else ''} is deregistered: out of rotation now, unlisted soon"
        )
    return 0


def _change_several(
    session: Session,
    name: str,
    endpoints: list[str],
    action: str,
    reason: str,
    more: dict[str, object] | None = None,
) -> int:
    from registryctl.bulk import change_endpoints

    return change_endpoints(session, name, endpoints, action, reason, more)


def _set_or_clear(  # as above
    session: Session,
    place: tuple[str, str],
    what: str,
    value: int | bool | None,
    reason: str,
    lasting: str | None,
    clear: bool,
) -> None:
    from registryctl.errors import UsageError

    if clear == (value is not None):
        received = "both a value and --clear" if clear else "neither a value nor --clear"
        raise UsageError(f"{what}: received {received}", "name what to set, or --clear to take it back")
    if clear:
        _clear(session, *place, what, reason)
        return
    if not reason:
        raise UsageError(f"{what}: say why with --reason; it is written into the history")
    _set(session, *place, {what: value}, reason, lasting)


def _set(
    session: Session, name: str, endpoint: str, change: dict[str, object], reason: str, lasting: str | None
) -> None:
    from registryctl.override import change_override

    change_override(session, path_of(name, endpoint), change | {"reason": reason} | _ends(lasting))


def _ends(lasting: str | None) -> dict[str, object]:
    """Return the end of an override; without --for it keeps the end that it has, if it has one."""
    from registryctl.settings import read_duration

    return {} if lasting is None else {"expires_in": read_duration(lasting, "--for")}


def _clear(session: Session, name: str, endpoint: str, what: str, reason: str) -> None:
    from registryctl.override import change_override

    # Without a reason the parts that stay keep theirs.
    change = {what: False if what == "drain" else None} | ({"reason": reason} if reason else {})
    change_override(session, path_of(name, endpoint), change)
