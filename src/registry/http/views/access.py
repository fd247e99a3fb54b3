"""The JSON documents of access: principals, decisions, tokens and identities."""

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta, Struct

from registry.auth.credential import MAX_TTL, Credential, Identity, Limits, Source
from registry.auth.grants import PEER, Grant
from registry.auth.policy import Mode
from registry.auth.principal import Principal
from registry.auth.subject import Kind
from registry.auth.verbs import Verb
from registry.http.openapi import show_examples
from registry.http.views.epoch import Epoch
from registry.usecases.credentials import DEFAULT_TTL, CreatedToken
from registry.usecases.sign_in import SignInCode
from registry.usecases.whoami import Authorization, Whoami
from wire.model import Text

CredentialName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}(?!\n)$", description="Its own name; it owns what it registers.")
]
Ttl = Annotated[float, Meta(gt=0, le=MAX_TTL, description="Seconds for which it is good.")]


class GrantRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A grant as an operator asks for it."""

    verbs: tuple[Verb, ...]
    services: Annotated[tuple[str, ...] | None, Meta(description="Null: all.")] = None
    addresses: Annotated[
        tuple[str, ...] | None, Meta(description="Null: `peer` alone for an AWS role, everywhere for all else.")
    ] = None
    instance: Annotated[
        Literal["any", "session"] | None, Meta(description="Null: `session` for an AWS role, `any` for all else.")
    ] = None

    def grant_of(self, *, bound: bool = False) -> Grant:
        """Return the grant.

        Args:
            bound: whether registrations are bound to the sender's address and session unless somebody says otherwise,
                as for AWS roles, whose many tasks have one identity.
        """
        return Grant(
            self.verbs,
            Grant(()).services if self.services is None else self.services,
            ((PEER,) if bound else ()) if self.addresses is None else self.addresses,
            self.instance or ("session" if bound else "any"),
        )


class GrantView(Struct, frozen=True):
    """A grant as it is stored."""

    verbs: list[Verb]
    services: list[str]
    addresses: Annotated[list[str], Meta(description="Empty: everywhere that the registry allows.")]
    instance: Literal["any", "session"]


class WhoamiView(Struct, frozen=True):
    """The sender of a request, as far as it is proven."""

    principal: Annotated[str, Meta(description="As the history has it.")]
    kind: Kind
    credential: Annotated[str | None, Meta(description="The id of its token or session.")]
    owner: Annotated[str | None, Meta(description="The owner of the endpoints that it registers.")]
    expires_at: Epoch | None
    grants: list[GrantView]
    mode: Annotated[Mode, Meta(description="REGISTRY_AUTH.")]
    noted_verbs: Annotated[list[Verb], Meta(description="Verbs whose refusals are only noted; none while it is off.")]
    problem: Annotated[str | None, Meta(description="Why the credential that was sent is not accepted.")]


class AuthorizeRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A question about a permission."""

    verb: Verb
    service: Annotated[str, Meta(max_length=255)] = ""
    endpoint: Annotated[str, Meta(max_length=64, pattern=r"^(.+:\d+)?$")] = ""
    instance_id: Annotated[str, Meta(max_length=255)] | None = None
    principal: Annotated[
        str, Meta(max_length=128, description="`token:<name>` or `identity:<name>`; empty: the sender itself.")
    ] = ""


class AuthorizationView(Struct, frozen=True):
    """A decision, and its reason."""

    principal: str
    allowed: bool
    enforced: Annotated[bool, Meta(description="Whether a refusal would be enforced now, by REGISTRY_AUTH.")]
    reason: str


class TokenRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A static token as an operator asks for it."""

    name: CredentialName
    grants: tuple[GrantRequest, ...]
    kind: Kind = "machine"
    networks: Annotated[tuple[str, ...], Meta(description="Where requests may come from; empty: anywhere.")] = ()
    ttl: Ttl = DEFAULT_TTL


class RotateRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A successor of a token as an operator asks for it."""

    overlap: Annotated[float, Meta(ge=0, le=MAX_TTL, description="Seconds until the replaced token ends.")] = 3600.0
    ttl: Annotated[Ttl | None, Meta(description="Null: as long as the replaced token was made for.")] = None


class TokenView(Struct, frozen=True):
    """A static token, without its text."""

    id: str
    name: str
    kind: Kind
    grants: list[GrantView]
    networks: list[str]
    created_by: str
    created_at: Epoch
    expires_at: Epoch
    revoked_at: Epoch | None
    successor_of: str | None
    used_at: Annotated[Epoch | None, Meta(description="To the hour.")]
    state: Annotated[str, Meta(description="active, expired or revoked.")]


class NewTokenView(Struct, frozen=True):
    """A token that was just made."""

    token: Annotated[str, Meta(description="Shown this once; only its digest is stored.")]
    id: str
    details: TokenView

    def __repr__(self) -> str:
        """Name the token by its id alone."""
        return f"NewTokenView({self.id})"


class TokenList(Struct, frozen=True):
    """All static tokens."""

    tokens: list[TokenView]


class SignInCodeView(Struct, frozen=True):
    """A code that begins the session of a browser."""

    code: Annotated[str, Meta(description="Shown this once; it is good once, from loopback.")]
    path: Annotated[str, Meta(description="The page that uses it, on whatever address the registry has.")]
    expires_at: Epoch

    def __repr__(self) -> str:
        """Show the end alone."""
        return f"SignInCodeView({self.expires_at})"


class IdentityRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """An identity as an operator asks for it."""

    source: Source
    match: Annotated[str, Meta(max_length=512)]
    grants: tuple[GrantRequest, ...]
    kind: Kind = "registrar"
    unique_id: Annotated[
        str, Meta(max_length=64, description="AWS's id of the role (AROA…); empty: whichever has the name.")
    ] = ""
    limits: Limits = Limits()


class IdentityView(Struct, frozen=True):
    """An identity as it is stored."""

    name: str
    source: Source
    match: str
    unique_id: str
    kind: Kind
    grants: list[GrantView]
    limits: Limits
    created_by: Text
    updated_at: Epoch


class IdentityList(Struct, frozen=True):
    """All identities."""

    identities: list[IdentityView]


def grant_views(grants: Iterable[Grant]) -> list[GrantView]:
    """Return grants as they are stored."""
    return [
        GrantView(list(grant.verbs), list(grant.services), list(grant.addresses), grant.instance) for grant in grants
    ]


def whoami_view(principal: Principal, whoami: Whoami) -> WhoamiView:
    """Return what is proven of a principal, and whether refusals are enforced."""
    subject = principal.subject
    return WhoamiView(
        principal.name,
        subject.kind,
        subject.credential or None,
        subject.owner or None,
        subject.expires_at,
        grant_views(subject.grants),
        whoami.mode,
        whoami.noted_verbs,
        subject.problem or None,
    )


def authorization_view(authorization: Authorization) -> AuthorizationView:
    """Return a decision with its reason."""
    refusal = authorization.refusal
    reason = "a grant allows it" if refusal is None else refusal.reason
    return AuthorizationView(authorization.principal, refusal is None, authorization.enforced, reason)


def token_view(token: Credential, now: float) -> TokenView:
    """Return a token without its text, as it is at a time of PostgreSQL's clock."""
    state = "revoked" if token.revoked_at is not None else "expired" if token.expires_at <= now else "active"
    return TokenView(
        token.id,
        token.name,
        token.kind,
        grant_views(token.grants),
        list(token.networks),
        token.created_by,
        token.created_at,
        token.expires_at,
        token.revoked_at,
        token.successor_of or None,
        token.used_at,
        state,
    )


def new_token_view(created: CreatedToken, now: float) -> NewTokenView:
    """Return a new token with its text."""
    return NewTokenView(created.text, created.credential.id, token_view(created.credential, now))


def sign_in_code_view(code: SignInCode) -> SignInCodeView:
    """Return a new code with the page that uses it."""
    return SignInCodeView(code.text, f"/ui/login?code={code.text}", code.expires_at)


def identity_view(identity: Identity) -> IdentityView:
    """Return an identity as it is stored."""
    return IdentityView(
        identity.name,
        identity.source,
        identity.match,
        identity.unique_id,
        identity.kind,
        grant_views(identity.grants),
        identity.limits,
        identity.created_by,
        identity.updated_at,
    )


_OPERATING = GrantView([Verb.OPERATE], ["shop-*"], [], "any")
_REGISTERING = GrantView([Verb.REGISTER], ["shop"], ["peer"], "session")
_TOKEN = TokenView(
    "s33426zjxtxv6ttz",
    "ci-deploy",
    "machine",
    [_OPERATING],
    [],
    "token:admin from 10.0.0.9",
    1_763_600_000.0,
    1_771_376_000.0,
    None,
    None,
    1_763_604_000.0,
    "active",
)
_IDENTITY = IdentityView(
    "shop",
    "aws",
    "111122223333:shop-task-role",
    "",
    "registrar",
    [_REGISTERING],
    Limits(),
    "token:admin from 10.0.0.9",
    1_763_600_000.0,
)

show_examples(
    WhoamiView(
        "token:ci-deploy from 10.0.0.9",
        "machine",
        "s33426zjxtxv6ttz",
        "token:ci-deploy",
        1_771_376_000.0,
        [_OPERATING],
        "on",
        [Verb.DISCOVER, Verb.READ],
        None,
    ),
    AuthorizationView(
        "token:ci-deploy", False, True, "no grant of token:ci-deploy allows the verb register for the service shop"
    ),
    _TOKEN,
    NewTokenView("hct_s33426zjxtxv6ttz_…", "s33426zjxtxv6ttz", _TOKEN),
    TokenList([_TOKEN]),
    _IDENTITY,
    IdentityList([_IDENTITY]),
)
