"""Routes of sessions: log in with an AWS role, renew, log out. Nobody needs a grant for them."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from msgspec import Meta, Struct

from registry.auth.principal import peer_of
from registry.http.dependencies import LoginsPart, Reader
from registry.http.openapi import PUBLIC, answers, body, problems
from registry.http.responses import json
from registry.http.views.epoch import Epoch
from registry.usecases.login import Login

router = APIRouter(tags=["access"])

_SECRET = {"cache-control": "no-store"}


class LoginRequest(Struct, frozen=True):
    """A login of a workload with an AWS role."""

    headers: Annotated[
        dict[str, str],
        Meta(
            description="The headers of a `POST` of `Action=GetCallerIdentity&Version=2011-06-15` to STS of a region, "
            "with its Signature Version 4 in `authorization`. Exactly these are signed: host, content-type, "
            "x-amz-date, x-amz-security-token, x-registry-audience, x-registry-instance and x-registry-nonce."
        ),
    ]


class SessionView(Struct, frozen=True):
    """A session that was just begun."""

    token: Annotated[str, Meta(description="To be sent as `Authorization: Bearer …`; only its digest is stored.")]
    expires_at: Epoch

    def __repr__(self) -> str:
        """Show the end alone."""
        return f"SessionView({self.expires_at})"


class LoginView(Struct, frozen=True):
    """The sessions of a login or of a renewal."""

    principal: Annotated[str, Meta(description="The workload, as the history has it.")]
    registrar: Annotated[SessionView, Meta(description="With the grants of the identity that matched.")]
    envoy: Annotated[SessionView, Meta(description="For the Envoy beside the registrar: it may discover, no more.")]


_HEADERS = {
    "authorization": "AWS4-HMAC-SHA256 Credential=ASIA…/20261128/eu-west-1/sts/aws4_request, "
    "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-registry-audience;x-registry-instance;"
    "x-registry-nonce, Signature=…",
    "content-type": "application/x-www-form-urlencoded; charset=utf-8",
    "host": "sts.eu-west-1.amazonaws.com",
    "x-amz-date": "20261128T221500Z",
    "x-amz-security-token": "…",
    "x-registry-audience": "headcount-production",
    "x-registry-instance": "0123456789abcdef0123456789abcdef",
    "x-registry-nonce": "6f1c8a0e4b0d4c1e9b1f0a3a5d2c7e88",
}
_LOGIN = {
    "principal": "aws:111122223333:shop-task-role/0123456789abcdef0123456789abcdef",
    "registrar": {"token": "hcs_…", "expires_at": 1_795_907_700.0},
    "envoy": {"token": "hcs_…", "expires_at": 1_795_907_700.0},
}


@router.post(
    "/v1/login/aws",
    operation_id="log_in_with_aws",
    openapi_extra=body(LoginRequest, {"headers": _HEADERS}) | PUBLIC,
    responses=answers(LoginView, "The sessions; their tokens are shown this once.", _LOGIN)
    | problems(401, 403, 404, 413, 429, 503, free=True),
)
async def log_in_with_aws(request: Request, logins: LoginsPart) -> Response:
    """Begin sessions for a workload that proves its AWS role. The registry asks STS, and never sees a key.

    A login is good once, within five minutes of its signing. 503 with Retry-After: STS or PostgreSQL did not answer;
    sign a new one.
    """
    return _view(await logins.login_aws(peer_of(request.client), await request.body()))


@router.post(
    "/v1/login/renew",
    operation_id="renew_session",
    responses=answers(LoginView, "New sessions; the former ones are good until their end.", _LOGIN)
    | problems(401, 413, 429, 503, free=True),
)
async def renew_session(logins: LoginsPart, reader: Reader) -> Response:
    """Begin new sessions for a registrar whose own is still good.

    It may do so for 12 hours after its login. STS is not asked.
    """
    return _view(await logins.renew(reader))


@router.post("/v1/logout", operation_id="log_out", status_code=204, responses=problems(401, 413, 503, free=True))
async def log_out(logins: LoginsPart, reader: Reader) -> Response:
    """End the session that the request brings, and all others of the same login. That of an Envoy ends alone."""
    await logins.logout(reader)
    return Response(status_code=204)


def _view(login: Login) -> Response:
    view = LoginView(
        login.principal,
        SessionView(login.registrar.token, login.registrar.expires_at),
        SessionView(login.envoy.token, login.envoy.expires_at),
    )
    response = json(view)
    response.headers.update(_SECRET)
    return response
