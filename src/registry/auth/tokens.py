"""The form of tokens: a prefix, a public id and a secret, like ``hct_<id>_<secret>``.

``hct`` is a static token and ``hcs`` the session of a login, which come as bearer tokens. ``hcb`` is the session of a
browser, which comes as a cookie, and ``hcl`` a code that signs a browser in once.

A secret has 256 random bits, so its SHA-256 is kept: a slow hash protects passwords that people choose, and would cost
235 ms a request. The prefix lets scanners of repositories find a token that was committed.
"""

import base64
import hashlib
import re
import secrets

from msgspec import Struct

TOKEN = "hct"  # noqa: S105  # a prefix
"""The prefix of static tokens."""
SESSION = "hcs"
"""The prefix of sessions that come as a bearer token."""
BROWSER = "hcb"
"""The prefix of sessions of browsers. They come as a cookie, and are no bearer tokens."""
CODE = "hcl"
"""The prefix of codes that sign a browser in once."""

_FORM = re.compile(rb"(hct|hcs|hcb|hcl)_([a-z2-7]{16})_([A-Za-z0-9_-]{43})")
_ID_BYTES = 10
_SECRET_BYTES = 32


class TokenParts(Struct, frozen=True):
    """A token that was sent: its prefix, its id, and the digest of the whole token."""

    prefix: str
    id: str
    digest: bytes


class NewToken(Struct, frozen=True):
    """A token that was just made; ``text`` is shown once, and only the digest is stored."""

    text: str
    id: str
    digest: bytes

    def __repr__(self) -> str:
        """Name the token by its id alone."""
        return f"NewToken({self.id})"


def new_token(prefix: str) -> NewToken:
    """Return a new random token of a kind."""
    token_id = base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().lower()
    text = f"{prefix}_{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return NewToken(text, token_id, digest_of(text.encode()))


def digest_of(token: bytes) -> bytes:
    """Return the digest by which a token is stored."""
    return hashlib.sha256(token).digest()


def read_token(token: bytes) -> TokenParts | None:
    """Return the parts of a token; None if it has not the form of one."""
    match = _FORM.fullmatch(token)
    if match is None:
        return None
    prefix, token_id, _ = match.groups()
    return TokenParts(prefix.decode(), token_id.decode(), digest_of(token))
