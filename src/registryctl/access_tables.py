"""Texts and tables of access: the sender, a decision, tokens, identities."""

import ipaddress
from collections.abc import Sequence

from rich.text import Text

from registryctl.client import Document
from registryctl.grants import grant_text
from registryctl.output import Cell, Screen
from registryctl.refusals import LOG_IN
from registryctl.token import AccessToken
from wire.duration import ago

ENDS_SOON = 7 * 86_400.0
"""Seconds before the end of a token from which on it is marked."""
_HOUR = 3_600.0
_MODES = {
    "off": "access is off: everything is allowed but the management of credentials",
    "audit": "access is in audit: what would be refused is noted and allowed, but for the management of credentials",
    "on": "access is on",
}


def show_whoami(screen: Screen, view: Document, now: float, token: AccessToken | None = None) -> None:
    """Print who the sender is, until when, and what it may do."""
    if view["problem"]:
        screen.say(Text(f"nobody: {view['problem']}", "red"))
    elif view["kind"] == "anonymous":
        screen.say(Text(f"nobody: no credential was sent from {view['principal']}", "yellow"))
    else:
        screen.say((view["principal"], "bold"), f"  {view['kind']}")
        credential = f"credential {view['credential']}" if view["credential"] else "without a token"
        ends = "" if view["expires_at"] is None else f" ends in {ago(view['expires_at'] - now)}"
        screen.say(f"  {credential}{ends}")
        for grant in view["grants"]:
            screen.say(f"  {grant_text(grant)}")
    if token is not None:
        screen.say((f"  the token is from {token.source}", "dim"))
    screen.say((f"  {_mode(view)}", "dim"))
    if view["problem"] or (view["kind"] == "anonymous" and view["mode"] != "off"):
        screen.note(LOG_IN)


def show_decision(screen: Screen, decision: Document, verb: str, service: str, endpoint: str) -> None:
    """Print whether a principal may do something, and what to do when it may not."""
    what = " ".join(part for part in (verb, service, endpoint) if part)
    if decision["allowed"]:
        screen.say(("yes", "green"), f"  {decision['principal']}: {what}")
        return
    screen.say(("no", "red"), f"  {decision['principal']}: {what}")
    screen.say(f"  {decision['reason']}")
    if not decision["enforced"]:
        screen.say(("  it is not refused now, because REGISTRY_AUTH does not enforce it", "dim"))
    screen.note(_way_to(decision["principal"], verb, service))


def _mode(view: Document) -> str:
    """Return whether refusals are enforced; a registry before this version does not say which verbs wait."""
    waiting = view.get("noted_verbs", ())
    if view["mode"] == "on" and waiting:
        return f"{_MODES['on']}, but what would be refused of {', '.join(waiting)} is noted and allowed"
    mode: str = view["mode"]
    return _MODES.get(mode, mode)


def show_tokens(screen: Screen, tokens: Sequence[Document], now: float, *, every: bool) -> None:
    """Print tokens, the newest first; those that ended only when asked for."""
    shown = [token for token in tokens if every or token["state"] == "active"]
    if shown:
        head = ("id", "name", "kind", "ends", "used", "may")
        screen.table(head, [_token(token, now) for token in shown], right=("ends", "used"))
    else:
        screen.note("there is no token that is good")
    if len(shown) < len(tokens):
        screen.note(f"{len(tokens) - len(shown)} more have ended; --all lists them")


def show_identity(screen: Screen, identity: Document) -> None:
    """Print one identity, each of its grants on a line."""
    screen.say((identity["name"], "bold"), f"  {identity['kind']}  {identity['source']} {identity['match']}")
    for grant in identity["grants"]:
        screen.say(f"  {grant_text(grant)}")
    for name, limit in identity["limits"].items():
        screen.say(f"  {limit:g} {name} at most")


def show_identities(screen: Screen, identities: Sequence[Document]) -> None:
    """Print identities, each with what proves it and what it may do."""
    if not identities:
        screen.note("there is no identity; `registryctl identity set` makes one")
        return
    screen.table(
        ("name", "kind", "proven by", "may"),
        [
            (identity["name"], identity["kind"], f"{identity['source']} {identity['match']}", _grants(identity))
            for identity in identities
        ],
    )


def _token(token: Document, now: float) -> Sequence[Cell]:
    left = token["expires_at"] - now
    if token["state"] != "active":
        ends = Text(token["state"], "dim")
    else:
        ends = Text(ago(left), "yellow" if left < ENDS_SOON else "")
    used = "never" if token["used_at"] is None else _used(now - token["used_at"])
    return (token["id"], token["name"], token["kind"], ends, used, _grants(token))


def _used(seconds: float) -> str:
    """Return how long ago a token was used.

    The registry stores the hour of it, so that a shorter time would be made up.
    """
    return "<1h" if seconds < _HOUR else ago(seconds)


def _grants(document: Document) -> str:
    return "; ".join(map(grant_text, document["grants"])) or "nothing"


def _way_to(principal: str, verb: str, service: str) -> str:
    """Return what would make a decision another one."""
    if _is_address(principal):
        return LOG_IN
    grant = f"--verb {verb}" + (f" --service {service}" if service else "")
    kind, _, name = principal.partition(":")
    if kind == "identity":
        return f"its grants are set as a whole, by an administrator: registryctl identity set {name} …"
    return f"a token that may is made by an administrator: registryctl token create NAME {grant}"


def _is_address(principal: str) -> bool:
    """Return whether a decision is about a sender of whom nothing is proven, which the registry names so."""
    try:
        ipaddress.ip_address(principal)
    except ValueError:
        return principal == "local"
    return True
