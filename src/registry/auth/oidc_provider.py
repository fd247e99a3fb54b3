"""The OpenID Connect provider: where it sends people to, and what it says of who has signed in."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from msgspec import Struct

from registry.auth.bounded_client import TIMEOUT, BoundedClient, UnreachableError
from registry.auth.oidc import ALGORITHMS, Attempt, BadIdTokenError, check_id_token, email_of, header_of
from registry.auth.signed_token import claims_of
from registry.errors import UnavailableError

DOCUMENT_TTL = 3600.0
"""Seconds for which the provider's documents are used before they are asked for again."""
KEY_INTERVAL = 30.0
"""Seconds between two times that the keys are asked for because of a key that is not known."""
FAILURE_TTL = 3.0
"""Seconds after a failure within which the provider is not asked again."""
MAX_WAITING = 100
"""Sign-ins that wait at a time while another one asks for the provider's documents."""
MAX_EXCHANGES = 16
"""Codes that are exchanged for tokens at a time; a provider that hangs keeps each for the time of one request."""
_CONFIGURATION = "/.well-known/openid-configuration"
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
"""The URLs that a discovery document has to have."""


class OidcSettings(Struct, frozen=True):
    """The provider, and the client that the registry is to it.

    Attributes:
        issuer: its URL, which is compared as it stands.
        client_id: our name there.
        client_secret: our password there; empty: we are a public client.
        redirect: the URL of ours to which it sends people back.
    """

    issuer: str
    client_id: str
    client_secret: str
    redirect: str

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"OidcSettings({self.issuer}, {self.client_id})"


class _Outage:
    """The last time that the provider was asked in vain, after which nobody asks it for a moment."""

    __slots__ = ("_at", "_reason")

    def __init__(self) -> None:
        self._at = -FAILURE_TTL
        """The end of the request, which may time out (monotonic)."""
        self._reason = ""

    def note(self, error: UnavailableError) -> None:
        """Note that the provider was asked in vain now."""
        self._at, self._reason = time.monotonic(), str(error)

    def check(self) -> None:
        """Raise UnavailableError if that was a moment ago."""
        if time.monotonic() - self._at < FAILURE_TTL:
            raise UnavailableError(self._reason)


class OidcProvider:
    """Asks one provider, and keeps its discovery document and keys.

    Args:
        settings: which provider, and what we are to it.
        key_interval: seconds between two times that the keys are asked for because of a key that is not known.
    """

    def __init__(self, settings: OidcSettings, key_interval: float = KEY_INTERVAL) -> None:
        self._settings = settings
        self._key_interval = key_interval
        self._client = BoundedClient("the sign-in provider")
        self._asking = asyncio.Lock()
        """Held while documents are asked for, so that many who sign in ask once."""
        self._waiting = 0
        """How many wait for the lock above. Written by _turn()."""
        self._configuration: Mapping[str, Any] = {}
        """The discovery document; empty: not read yet."""
        self._configured_at = -DOCUMENT_TTL
        """When the discovery document was read (monotonic)."""
        self._keys: Mapping[str, Any] = {}
        """The provider's public keys, a JWK Set."""
        self._keys_at = -DOCUMENT_TTL
        """When the keys were read (monotonic)."""
        self._no_document = _Outage()
        """Of the documents, also where one of them is not what it should be. Written by _turn()."""
        self._no_exchange = _Outage()
        """Of the exchange of codes. Written by _exchange()."""
        self._exchanges = 0
        """Codes that are being exchanged. Written by _exchange()."""

    @property
    def settings(self) -> OidcSettings:
        """The provider, and the client that the registry is to it."""
        return self._settings

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def url_for(self, attempt: Attempt) -> str:
        """Return the URL at the provider at which a person signs in.

        Raises:
            UnavailableError: the provider is away, or its discovery document is not one.
        """
        query = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": self._settings.redirect,
            "scope": "openid email",
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        endpoint = await self._endpoint("authorization_endpoint")
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def email_of(self, code: str, attempt: Attempt, now: float) -> str:
        """Return the verified e-mail address of the person that a code is for.

        Raises:
            BadIdTokenError: the provider refuses the code, or its token does not prove this sign-in.
            UnavailableError: the provider is away.
        """
        token = await self._exchange(code, attempt)
        claims = claims_of(token, await self._keys_for(header_of(token)), ALGORITHMS)
        settings = self._settings
        check_id_token(claims, issuer=settings.issuer, client_id=settings.client_id, nonce=attempt.nonce, now=now)
        return email_of(claims)

    async def _exchange(self, code: str, attempt: Attempt) -> str:
        settings = self._settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": settings.redirect,
            "client_id": settings.client_id,
            "code_verifier": attempt.verifier,
        }
        authorization = None
        if settings.client_secret:
            # RFC 6749, 2.3.1: both are encoded as in a form before they are joined.
            pair = f"{quote(settings.client_id, safe='')}:{quote(settings.client_secret, safe='')}"
            authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
        status, body = await self._post(await self._endpoint("token_endpoint"), form, authorization)
        answer = self._client.object_of(body)
        token = answer.get("id_token")
        if status != 200 or not isinstance(token, str):
            raise BadIdTokenError(f"the sign-in provider refused the code ({status} {_error_of(answer)}); begin again")
        return token

    async def _post(self, url: str, form: Mapping[str, str], authorization: str | None) -> tuple[int, bytes]:
        """Send a code; few at a time, and none for a moment after the provider has not answered.

        An answer of an outage is none of those: a code that a stranger makes up could bring it about.
        """
        self._no_exchange.check()
        if self._exchanges >= MAX_EXCHANGES:
            raise UnavailableError(f"{MAX_EXCHANGES} sign-ins wait for the sign-in provider already; begin again")
        self._exchanges += 1
        try:
            return await self._client.post(url, form, authorization)
        except UnreachableError as error:
            self._no_exchange.note(error)
            raise
        finally:
            self._exchanges -= 1

    async def _endpoint(self, name: str) -> str:
        if self._configuration_is_old():
            async with self._turn():
                if self._configuration_is_old():
                    self._configuration = await self._configure()
                    self._configured_at = time.monotonic()
        return _url(self._configuration, name)

    async def _configure(self) -> Mapping[str, Any]:
        configuration = await self._document(self._settings.issuer.rstrip("/") + _CONFIGURATION)
        if configuration.get("issuer") != self._settings.issuer:
            raise UnavailableError(
                f"the discovery document of {self._settings.issuer} names another issuer; write REGISTRY_OIDC_ISSUER "
                "exactly as it stands there"
            )
        for name in _ENDPOINTS:
            _url(configuration, name)
        return configuration

    def _configuration_is_old(self) -> bool:
        return time.monotonic() - self._configured_at >= DOCUMENT_TTL

    async def _keys_for(self, header: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the provider's keys, asked for again when the key of a token is not among them."""
        url = await self._endpoint("jwks_uri")
        if self._keys_are_old(header):
            async with self._turn():
                if self._keys_are_old(header):
                    self._keys = await self._published_keys(url)
                    self._keys_at = time.monotonic()
        return self._keys

    async def _published_keys(self, url: str) -> Mapping[str, Any]:
        keys = await self._document(url)
        if not isinstance(keys.get("keys"), list):
            raise UnavailableError("the sign-in provider has no keys (jwks_uri)")
        return keys

    def _keys_are_old(self, header: Mapping[str, Any]) -> bool:
        age = time.monotonic() - self._keys_at
        if age >= DOCUMENT_TTL:
            return True
        known = {key.get("kid") for key in self._keys.get("keys", ()) if isinstance(key, dict)}
        return header.get("kid") not in known and age >= self._key_interval

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Hold the lock of the documents; nobody waits for it after a failure, nor for longer than one request.

        Strangers begin sign-ins too, so while the provider hangs they would otherwise make a queue for everybody.
        """
        self._no_document.check()
        if self._waiting >= MAX_WAITING:
            raise UnavailableError(
                f"{MAX_WAITING} sign-ins wait for the sign-in provider already; try again, or paste a token"
            )
        self._waiting += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._asking.acquire()
        except TimeoutError:
            raise UnavailableError("the sign-in provider does not answer; try again, or paste a token") from None
        finally:
            self._waiting -= 1
        try:
            self._no_document.check()
            try:
                yield
            except UnavailableError as error:
                self._no_document.note(error)
                raise
        finally:
            self._asking.release()

    async def _document(self, url: str) -> Mapping[str, Any]:
        return self._client.object_of(await self._client.get(url))


def _url(configuration: Mapping[str, Any], name: str) -> str:
    """Return a URL of the discovery document, which is as safe as the issuer's own."""
    url = configuration.get(name)
    if not isinstance(url, str) or not is_safe_url(url):
        raise UnavailableError(
            f"the discovery document of the sign-in provider has no {name} that begins with https://"
        )
    return url


def is_safe_url(url: str) -> bool:
    """Return whether nobody between can answer for a URL: it is of TLS, or of this machine."""
    parts = urlsplit(url)
    loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and loopback))


def _error_of(answer: Mapping[str, Any]) -> str:
    """Return the error code of an answer of OAuth (RFC 6749, 5.2), as far as it is one."""
    error = answer.get("error")
    return error if isinstance(error, str) and error.replace("_", "").isalnum() and len(error) <= 64 else ""
