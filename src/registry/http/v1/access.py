"""Routes of access: who am I, may I, tokens and identities."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request, Response

from registry.auth.credential import Identity
from registry.auth.decision import Request as AskedFor
from registry.errors import InvalidError
from registry.http.dependencies import Actor, ClockPart, CredentialsPart, Reader, SignInsPart, WhoamiPart
from registry.http.openapi import answers, body, problems
from registry.http.parameters import decode
from registry.http.responses import json
from registry.http.views.access import (
    AuthorizationView,
    AuthorizeRequest,
    IdentityList,
    IdentityRequest,
    IdentityView,
    NewTokenView,
    RotateRequest,
    SignInCodeView,
    TokenList,
    TokenRequest,
    WhoamiView,
    authorization_view,
    identity_view,
    new_token_view,
    sign_in_code_view,
    token_view,
    whoami_view,
)
from wire.address import format_endpoint, parse_endpoint

router = APIRouter(tags=["access"])

_authorize = msgspec.json.Decoder(AuthorizeRequest)
_token = msgspec.json.Decoder(TokenRequest)
_rotate = msgspec.json.Decoder(RotateRequest)
_identity = msgspec.json.Decoder(IdentityRequest)

TokenId = Annotated[str, Path(max_length=64, pattern="^[a-z2-7]+$", description="The public part of the token.")]
IdentityName = Annotated[str, Path(max_length=64, pattern="^[A-Za-z0-9._-]+$", description="The identity's own name.")]

_GRANT = {"verbs": ["register"], "services": ["shop"], "addresses": ["peer"], "instance": "any"}
_TOKEN = {"name": "ci-deploy", "kind": "machine", "grants": [{"verbs": ["operate"], "services": ["shop-*"]}]}
_IDENTITY = {
    "source": "aws",
    "match": "111122223333:shop-task-role",
    "kind": "registrar",
    "grants": [_GRANT | {"instance": "session"}],
}


@router.get(
    "/v1/whoami",
    operation_id="get_whoami",
    responses=answers(WhoamiView, "What is proven of the sender, and what it may do.", None) | problems(413, free=True),
)
async def get_whoami(whoami: WhoamiPart, reader: Reader) -> Response:
    """Tell the sender who it is here, by which credential, until when, and what it may do. Anybody may ask."""
    return json(whoami_view(reader, whoami))


@router.post(
    "/v1/authorize",
    operation_id="authorize",
    openapi_extra=body(AuthorizeRequest, {"verb": "register", "service": "shop", "endpoint": "10.0.0.5:8080"}),
    responses=answers(AuthorizationView, "The decision and its reason.", None)
    | problems(400, 401, 403, 404, 413, 422, 503, free=True),
)
async def authorize(request: Request, whoami: WhoamiPart, reader: Reader) -> Response:
    """Tell whether the sender may do something, and why not. To ask about another principal needs `admin`."""
    wanted = decode(_authorize, await request.body())
    asked = AskedFor(wanted.verb, wanted.service, _endpoint(wanted.endpoint), wanted.instance_id)
    return json(authorization_view(whoami.authorize(reader, asked, wanted.principal)))


def _endpoint(text: str) -> str:
    """Return an endpoint in the form in which it would be registered; empty: none is asked about."""
    if not text:
        return ""
    try:
        return format_endpoint(*parse_endpoint(text))
    except ValueError as error:
        raise InvalidError(str(error), "$.endpoint") from None


@router.get(
    "/v1/tokens",
    operation_id="list_tokens",
    responses=answers(TokenList, "The static tokens, without their text.", None) | problems(413, 503),
)
async def list_tokens(credentials: CredentialsPart, clock: ClockPart, reader: Reader) -> Response:
    """List the static tokens, the newest first. Their text is nowhere."""
    now = clock.now()
    return json(TokenList([token_view(token, now) for token in credentials.tokens(reader)]))


@router.post(
    "/v1/tokens",
    operation_id="create_token",
    status_code=201,
    openapi_extra=body(TokenRequest, _TOKEN),
    responses=answers(NewTokenView, "The token; its text is shown this once.", None, status=201)
    | problems(400, 413, 422, 503),
)
async def create_token(request: Request, credentials: CredentialsPart, clock: ClockPart, actor: Actor) -> Response:
    """Make a static token. Its text is in this answer and nowhere else; only a digest is stored."""
    wanted = decode(_token, await request.body())
    created = await credentials.create_token(
        actor,
        wanted.name,
        wanted.kind,
        [grant.grant_of() for grant in wanted.grants],
        networks=wanted.networks,
        ttl=wanted.ttl,
    )
    return json(new_token_view(created, clock.now()), 201)


@router.post(
    "/v1/tokens/{token_id}/rotate",
    operation_id="rotate_token",
    status_code=201,
    openapi_extra=body(RotateRequest, {"overlap": 3600}),
    responses=answers(NewTokenView, "The successor; its text is shown this once.", None, status=201)
    | problems(400, 404, 413, 422, 503),
)
async def rotate_token(
    token_id: TokenId, request: Request, credentials: CredentialsPart, clock: ClockPart, actor: Actor
) -> Response:
    """Make a successor of a token with the same name and grants; the token itself ends after the overlap."""
    wanted = decode(_rotate, await request.body() or b"{}")
    created = await credentials.rotate_token(actor, token_id, ttl=wanted.ttl, overlap=wanted.overlap)
    return json(new_token_view(created, clock.now()), 201)


@router.delete(
    "/v1/tokens/{token_id}", operation_id="revoke_token", status_code=204, responses=problems(404, 413, 422, 503)
)
async def revoke_token(token_id: TokenId, credentials: CredentialsPart, actor: Actor) -> Response:
    """Revoke a token or a session; no process accepts it any more within five seconds."""
    await credentials.revoke(actor, token_id)
    return Response(status_code=204)


@router.post(
    "/v1/login/code",
    operation_id="create_sign_in_code",
    status_code=201,
    responses=answers(SignInCodeView, "The code; it is shown this once.", None, status=201) | problems(413, 422, 503),
)
async def create_sign_in_code(sign_ins: SignInsPart, actor: Actor) -> Response:
    """Make a code that signs one browser on the registry's machine in, once, with the token of the sender."""
    return json(sign_in_code_view(await sign_ins.create_code(actor)), 201)


@router.get(
    "/v1/identities",
    operation_id="list_identities",
    responses=answers(IdentityList, "The identities by their names.", None) | problems(413, 503),
)
async def list_identities(credentials: CredentialsPart, reader: Reader) -> Response:
    """List the identities: what AWS roles, certificates, sign-ins and networks may do."""
    return json(IdentityList([identity_view(identity) for identity in credentials.identities(reader)]))


@router.put(
    "/v1/identities/{name}",
    operation_id="put_identity",
    openapi_extra=body(IdentityRequest, _IDENTITY),
    responses=answers(IdentityView, "As it is stored.", None) | problems(400, 413, 422, 503),
)
async def put_identity(name: IdentityName, request: Request, credentials: CredentialsPart, actor: Actor) -> Response:
    """Create an identity, or replace it as a whole; its living sessions follow within seconds."""
    wanted = decode(_identity, await request.body())
    identity = Identity(
        name,
        wanted.source,
        wanted.match,
        wanted.kind,
        tuple(grant.grant_of(bound=wanted.source == "aws") for grant in wanted.grants),
        wanted.unique_id,
        wanted.limits,
        created_by=actor.name,
    )
    return json(identity_view(await credentials.put_identity(actor, identity)))


@router.delete(
    "/v1/identities/{name}",
    operation_id="remove_identity",
    status_code=204,
    responses=problems(404, 413, 422, 503),
)
async def remove_identity(name: IdentityName, credentials: CredentialsPart, actor: Actor) -> Response:
    """Remove an identity, and with it its sessions. The endpoints that it owns are free once their leases lapse."""
    await credentials.remove_identity(actor, name)
    return Response(status_code=204)
