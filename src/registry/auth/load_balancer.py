"""The rules of what the header of a load balancer of AWS proves of a person.

An Application Load Balancer signs people in by itself, and signs for the targets who they are (x-amzn-oidc-data). Its
keys are those of every load balancer of the region, also of other customers. So a signature says nothing until the
signer in the header is our own load balancer ("ALBeast"). Nothing here does any I/O.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import Struct

from registry.auth.oidc import CLOCK_SKEW, MAX_TOKEN_BYTES, BadIdTokenError, check_times, email_of

Key = TypeVar("Key")
Value = TypeVar("Value")

HEADER = b"x-amzn-oidc-data"
"""The header of a request that has the statement of the load balancer."""
ALGORITHM = "ES256"
"""The only signature that load balancers make."""
MAX_STATEMENT_AGE = 3600.0
"""Seconds for which a statement is taken at most, whatever its end is; load balancers make new ones in minutes."""

_KEY_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_PART = re.compile(r"[A-Za-z0-9_-]+={0,2}")
_SIGNATURE_BYTES = 64
"""Bytes of a signature by ES256 (RFC 7518, 3.4)."""


class LoadBalancer(Struct, frozen=True):
    """The load balancer whose statements are taken, and the client that it is to its provider.

    Attributes:
        arn: its name in AWS.
        client_id: its name at the provider.
        issuer: the provider, as the load balancer has it.
    """

    arn: str
    client_id: str
    issuer: str


class SignedPerson(Struct, frozen=True):
    """A person of whom the load balancer says that he has signed in.

    Attributes:
        email: the verified address.
        expires_at: when the statement is no longer taken.
    """

    email: str
    expires_at: float


class Statement(Struct, frozen=True):
    """A statement of a load balancer as it was sent, which nothing has checked yet.

    Attributes:
        header: what it says of its signature.
        claims: what it says of the person.
        signed: the bytes that are signed: with the padding that AWS writes, against RFC 7515.
        signature: of these bytes.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "Statement()"

    @property
    def key_id(self) -> str:
        """The name of the key that has signed it, once its header is checked."""
        return str(self.header["kid"])


def read_statement(value: bytes) -> Statement:
    """Return the statement that a header has.

    Raises:
        BadIdTokenError: it is none.
    """
    parts = value.decode("latin-1").split(".")
    try:
        if len(value) > MAX_TOKEN_BYTES or len(parts) != 3:
            raise ValueError  # noqa: TRY301  # is none, as below
        header, claims = (json.loads(_decode(part)) for part in parts[:2])
        signature = _decode(parts[2])
    except (ValueError, RecursionError):
        raise BadIdTokenError("x-amzn-oidc-data is no signed token of a load balancer (JWS)") from None
    if not isinstance(header, dict) or not isinstance(claims, dict) or len(signature) != _SIGNATURE_BYTES:
        raise BadIdTokenError("x-amzn-oidc-data is no signed token of a load balancer (JWS with ES256)")
    return Statement(header, claims, value.rpartition(b".")[0], signature)


def check_header(statement: Statement, ours: LoadBalancer, now: float) -> None:
    """Refuse a statement of another load balancer, for another client, of another provider, or at another time.

    Done before a key is asked for, so that a statement which nobody could take costs no request.

    Raises:
        BadIdTokenError: says which field is wrong.
    """
    header = statement.header
    if header.get("alg") != ALGORITHM or "crit" in header:
        raise BadIdTokenError(f"x-amzn-oidc-data is not signed by {ALGORITHM} (alg)")
    if header.get("signer") != ours.arn:
        raise BadIdTokenError("x-amzn-oidc-data is of another load balancer (signer); ours is REGISTRY_ALB_ARN")
    if header.get("client") != ours.client_id:
        raise BadIdTokenError("x-amzn-oidc-data is for another client (client); ours is REGISTRY_ALB_CLIENT_ID")
    if header.get("iss") != ours.issuer:
        raise BadIdTokenError("x-amzn-oidc-data is of another issuer (iss); ours is REGISTRY_ALB_ISSUER")
    check_times(header, now)
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise BadIdTokenError("x-amzn-oidc-data names a key that is no UUID (kid)")


def person_of(statement: Statement, ours: LoadBalancer, now: float) -> SignedPerson:
    """Return the person that a statement means, whose header and signature were checked.

    Raises:
        BadIdTokenError: its claims prove nobody.
    """
    claims, ends = statement.claims, float(statement.header["exp"])
    if claims.get("iss", ours.issuer) != ours.issuer:
        raise BadIdTokenError("x-amzn-oidc-data has claims of another issuer (iss)")
    check_times({"exp": ends, **claims}, now)
    ends = min(ends, float(claims.get("exp", ends)))
    return SignedPerson(email_of(claims), min(ends + CLOCK_SKEW, now + MAX_STATEMENT_AGE))


def region_of(arn: str) -> str:
    """Return the region of a load balancer by its ARN."""
    return arn.split(":")[3]


def keep(kept: dict[Key, Value], key: Key, value: Value, limit: int) -> None:
    """Keep a value as the newest, and drop the oldest beyond the limit."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > limit:
        del kept[next(iter(kept))]


def _decode(part: str) -> bytes:
    if not _PART.fullmatch(part):
        raise ValueError
    return base64.urlsafe_b64decode(part.rstrip("=") + "==")
