"""Credentials and identities, as the registry keeps them."""

import ipaddress
import re
from typing import Literal, get_args

from msgspec import Struct

from registry.auth.grants import Grant, check_grants, check_networks
from registry.auth.oidc import matches_of
from registry.auth.subject import CREDENTIAL_KINDS, Kind
from registry.errors import InvalidError

Source = Literal["aws", "spiffe", "dns", "oidc", "network"]
"""What proves an identity: an AWS role, a name of a certificate, a sign-in, or the address of the peer."""
SOURCES = get_args(Source)


MAX_TTL = 10 * 365 * 86_400.0
"""The longest life of a static token, in seconds: ten years."""
_MAX_TIME = 253_402_300_800.0
"""The end of the year 9999, in seconds since 1970: later times have no name."""

_FORMS: dict[str, tuple[str, str]] = {
    "aws": (r"\d{12}:[\w+=,.@-]{1,64}", "an account and the name of a role, like 111122223333:shop-task-role"),
    "spiffe": (r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)*", "a SPIFFE id, like spiffe://example.org/shop"),
    "dns": (r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", "a name in small letters, like shop.example.org"),
    "oidc": (
        r"[^\s@]{1,128}@[^\s@]{1,128}|\*@[^\s@*]{1,128}",
        "an e-mail address, like ann@example.org, or *@example.org",
    ),
}


def check_match(source: str, match: str) -> None:
    """Refuse what a source can never prove.

    Raises:
        InvalidError: says what the source proves, with an example.
    """
    if source == "network":
        try:
            network = ipaddress.ip_network(match)
        except ValueError as error:
            raise InvalidError(f"{match[:60]!r} is no network: {error}; write it like 10.1.0.0/16", "$.match") from None
        if str(network) != match:
            raise InvalidError(f"write the network as {network}", "$.match")
        return
    if source not in _FORMS:
        raise InvalidError(f"the source {source[:60]!r} is none of {', '.join(SOURCES)}", "$.source")
    pattern, meaning = _FORMS[source]
    if source == "oidc" and match != match.lower():
        raise InvalidError(f"write {match[:60]!r} in small letters, as addresses are compared", "$.match")
    if not re.fullmatch(pattern, match, re.ASCII):
        raise InvalidError(f"{match[:60]!r} cannot be proven by {source}; write {meaning}", "$.match")


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits of an identity that differ from those of the settings; None: those of the settings hold.

    Attributes:
        endpoints: endpoints of one instance.
        changes: changes a second of one instance.
        services: names of services that it may create.
    """

    endpoints: int | None = None
    changes: float | None = None
    services: int | None = None


class Identity(Struct, frozen=True):
    """A rule that gives grants to whoever proves to be what it matches.

    Attributes:
        name: its own name, by which endpoints are owned.
        source: what proves it.
        match: what has to be proven: ``111122223333:shop-task-role``, ``spiffe://example.org/shop``,
            ``ann@example.org``, ``10.1.0.0/16``.
        kind: for people to read.
        grants: what it may do.
        unique_id: AWS's id of the role (``AROA…``), so that a role that is created again is another one; empty: any.
        limits: limits that differ from the settings.
        created_by: the principal that set it.
        updated_at: when it was last set, in seconds since 1970.
    """

    name: str
    source: Source
    match: str
    kind: Kind
    grants: tuple[Grant, ...]
    unique_id: str = ""
    limits: Limits = Limits()
    created_by: str = ""
    updated_at: float = 0.0

    @property
    def owner(self) -> str:
        """The owner of the endpoints that it registers."""
        return f"identity:{self.name}"

    def means(self, session: "Credential") -> bool:
        """Return whether it still means the role or the person of a session that it has given grants to.

        The session of a person is named ``oidc:ann@example.org``. That of a role is named
        ``aws:111122223333:shop-task-role/0123456789abcdef``, and made by AWS's user id,
        ``AROA…:0123456789abcdef``.
        """
        if self.source == "oidc":
            prefix, _, email = session.name.partition(":")
            return prefix == "oidc" and self.match in matches_of(email)
        if self.source != "aws":
            return False
        return session.name.startswith(f"aws:{self.match}/") and self.unique_id in (
            "",
            session.created_by.partition(":")[0],
        )


class Credential(Struct, frozen=True, omit_defaults=True):
    """A static token, or a session of an identity or of a token.

    Times are seconds since 1970 by PostgreSQL's clock.

    Attributes:
        id: the public part of the token.
        digest: of the whole token.
        name: of a static token, as the history has it; of a session, the principal that signed in.
        kind: for people to read.
        grants: of a static token; a session has those of its identity or of its token.
        networks: where requests with it may come from; empty: from anywhere.
        created_by: the principal that made it.
        created_at: when it was made.
        expires_at: when it ends.
        revoked_at: when it was revoked; None: it was not.
        successor_of: the id of the token that it replaces; empty: of none.
        used_at: when it was last used, to the hour; None: never.
        identity: of a session, the identity that signed in; empty for a static token and for its sessions.
        session_name: of a session, the name that AWS gives it.
        login_at: of a session, when its full login was.
        discovers: whether a session may only discover, as that of an Envoy.
        parent: of a session that a person began by a static token, the id of that token, with which it ends.
    """

    id: str
    digest: bytes
    name: str
    kind: Kind
    expires_at: float
    grants: tuple[Grant, ...] = ()
    networks: tuple[str, ...] = ()
    created_by: str = ""
    created_at: float = 0.0
    revoked_at: float | None = None
    successor_of: str = ""
    used_at: float | None = None
    identity: str = ""
    session_name: str = ""
    login_at: float = 0.0
    discovers: bool = False
    parent: str = ""

    def __repr__(self) -> str:
        """Name the credential by its id and name, without its digest."""
        return f"Credential({self.id}, {self.name})"

    @property
    def is_session(self) -> bool:
        """Whether it is a session, of an identity or of a token."""
        return bool(self.identity or self.parent)

    @property
    def owner(self) -> str:
        """The owner of the endpoints that it registers: a successor owns those of the token that it replaces."""
        return f"identity:{self.identity}" if self.identity else f"token:{self.name}"


def check_credential(credential: Credential) -> None:
    """Refuse a stored credential that this registry would not have made.

    Raises:
        InvalidError: names the value, and what is allowed.
    """
    _check_kind(credential.kind)
    for field in ("expires_at", "created_at", "revoked_at", "used_at", "login_at"):
        _check_time(field, getattr(credential, field))
    check_grants(credential.grants)
    check_networks(credential.networks)


def check_identity(identity: Identity) -> None:
    """Refuse a stored identity that this registry would not have made.

    Raises:
        InvalidError: names the value, and what is allowed.
    """
    _check_kind(identity.kind)
    _check_time("updated_at", identity.updated_at)
    check_match(identity.source, identity.match)
    check_grants(identity.grants)


def _check_kind(kind: str) -> None:
    if kind not in CREDENTIAL_KINDS:
        raise InvalidError(f"the kind {kind[:60]!r} is none of {', '.join(CREDENTIAL_KINDS)}", "$.kind")


def _check_time(field: str, value: float | None) -> None:
    # Also what is no number fails the comparison.
    if value is not None and not 0.0 <= value < _MAX_TIME:
        raise InvalidError(
            f"{field} is {value:g} s since 1970, which no clock shows; write a time from 1970 to 9999", f"$.{field}"
        )
