"""OpenID Connect, the rules: what a sign-in of a browser is bound to, and which ID tokens prove a person.

The code flow with PKCE (RFC 7636), and the checks of OpenID Connect Core 1.0, 3.1.3.7. Parts that the standard leaves
open are fixed here: the algorithms, one audience, one issuer, a nonce. Nothing here does any I/O.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

ATTEMPT_TTL = 300.0
"""Seconds that a person may take to sign in at the provider."""
MAX_TOKEN_BYTES = 16_384
"""Bytes of an ID token."""
ALGORITHMS = ("RS256", "PS256", "ES256")
"""Signatures that are taken. Symmetric ones are not: their key would be known to two, or be a public one."""
CLOCK_SKEW = 60.0
"""Seconds by which the clock of a provider may differ."""

_MAX_TIME = 1e12
"""Seconds since 1970 that are a time: beyond it a provider writes something else."""

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
"""An address in ASCII, without the ``*`` of a match: two that look alike are never taken for each other."""


class BadIdTokenError(Exception):
    """A token, or the answer that brings it, proves nobody; the text says why, and has no secret."""


class Attempt(Struct, frozen=True):
    """A sign-in that one browser has begun, of which that browser alone keeps the secret.

    State, nonce and verifier follow from the secret. So what another browser began is of no use in this one, and no
    process has to keep anything until it ends.

    Attributes:
        secret: 256 random bits.
        begun_at: by PostgreSQL's clock.
        following: the page to go on to.
    """

    secret: str
    begun_at: float
    following: str

    def __repr__(self) -> str:
        """Show when it began alone."""
        return f"Attempt({self.begun_at})"

    @property
    def state(self) -> str:
        """The text that the provider gives back, which shows that the answer belongs to this browser."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """The text that the ID token has to have, so that a token of another sign-in proves nothing."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """The secret without which nobody can exchange the code."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """The hash of the verifier, which the provider learns first."""
        return _base64(hashlib.sha256(self.verifier.encode()).digest())

    @property
    def digest(self) -> bytes:
        """The name under which its use is stored, so that it ends one sign-in."""
        return hashlib.sha256(b"oidc:" + self.state.encode()).digest()

    def write(self) -> str:
        """Return it as the browser keeps it, in a cookie."""
        return f"{self.secret}.{self.begun_at:.0f}.{_base64(self.following.encode())}"

    def _derived(self, label: str) -> str:
        return _base64(hmac.digest(self.secret.encode(), label.encode(), "sha256"))


def new_attempt(following: str, now: float) -> Attempt:
    """Return a new sign-in of a browser."""
    return Attempt(secrets.token_urlsafe(32), now, following)


def read_attempt(cookie: str, now: float) -> Attempt:
    """Return the sign-in that a browser has begun.

    Raises:
        BadIdTokenError: it is none, or is too old.
    """
    parts = cookie.split(".")
    try:
        secret, begun_at, following = parts[0], float(parts[1]), base64.urlsafe_b64decode(parts[2] + "==").decode()
    except (IndexError, ValueError, binascii.Error):
        raise BadIdTokenError("this browser has not begun to sign in, or has finished already; begin again") from None
    # A number that is none compares as false, and is too old then.
    if len(parts) != 3 or len(secret) < 43 or not -CLOCK_SKEW <= now - begun_at <= ATTEMPT_TTL:
        raise BadIdTokenError(f"the sign-in took longer than {ATTEMPT_TTL / 60:g} minutes; begin again")
    return Attempt(secret, begun_at, following)


def check_state(attempt: Attempt, state: str) -> None:
    """Refuse an answer that belongs to a sign-in of another browser.

    Raises:
        BadIdTokenError: the state is another one.
    """
    if not hmac.compare_digest(attempt.state.encode(), state.encode()):
        raise BadIdTokenError("the answer belongs to another sign-in than the one that this browser began; begin again")


def email_of(claims: Mapping[str, Any]) -> str:
    """Return the address of a person, in small letters.

    Raises:
        BadIdTokenError: the provider names none, or does not vouch for it.
    """
    email = claims.get("email")
    if not isinstance(email, str) or not _EMAIL.fullmatch(email):
        raise BadIdTokenError("the provider names no e-mail address that is plain ASCII; ask for the scope email")
    # Some providers write it as a text.
    if claims.get("email_verified") not in (True, "true"):
        raise BadIdTokenError("the provider has not verified the e-mail address (email_verified)")
    return email.lower()


def check_id_token(claims: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str, now: float) -> None:
    """Refuse an ID token that was made by or for another one, at another time, or for another sign-in.

    Args:
        claims: of the token, whose signature was checked.
        issuer: our provider.
        client_id: what we are to our provider.
        nonce: of the sign-in.
        now: the time.

    Raises:
        BadIdTokenError: says which claim is wrong.
    """
    if claims.get("iss") != issuer:
        raise BadIdTokenError("the ID token is of another issuer (iss)")
    # A list of one is the same as the one. A token for several is for somebody else too.
    if claims.get("aud") not in (client_id, [client_id]):
        raise BadIdTokenError("the ID token is for another client (aud)")
    if claims.get("azp", client_id) != client_id:
        raise BadIdTokenError("the ID token was given to another client (azp)")
    check_times(claims, now)
    sent = claims.get("nonce")
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), nonce.encode()):
        raise BadIdTokenError("the ID token is of another sign-in (nonce)")


def check_times(claims: Mapping[str, Any], now: float) -> None:
    """Refuse a token that has ended, or that begins later.

    Raises:
        BadIdTokenError: says which time is wrong.
    """
    expires_at = claims.get("exp", 0)
    if not _is_number(expires_at) or not now < expires_at + CLOCK_SKEW:
        raise BadIdTokenError("the token has expired (exp)")
    for name in ("iat", "nbf"):
        begins_at = claims.get(name, now)
        if not _is_number(begins_at) or not begins_at <= now + CLOCK_SKEW:
            raise BadIdTokenError(f"the token begins later ({name}); compare the clocks of provider and PostgreSQL")


def header_of(token: str) -> dict[str, Any]:
    """Return the header of a signed token, which nothing has checked yet.

    Raises:
        BadIdTokenError: it is no token.
    """
    try:
        if len(token) > MAX_TOKEN_BYTES or token.count(".") != 2:
            raise ValueError  # noqa: TRY301  # is none, as below
        header = json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))
    except (ValueError, RecursionError):
        raise BadIdTokenError("the answer has no signed token (JWS)") from None
    if not isinstance(header, dict):
        raise BadIdTokenError("the answer has no signed token (JWS)")
    return header


def matches_of(email: str) -> tuple[str, str]:
    """Return the matches of identities that mean an address, the closest first."""
    return email, f"*@{email.rpartition('@')[2]}"


def _is_number(value: object) -> bool:
    # A number that is none, or has hundreds of digits, is no time, and cannot be reckoned with.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_TIME


def _base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
