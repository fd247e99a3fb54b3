"""An HTTP client for the few documents of another party: bounded, without redirects, cookies and proxies."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from registry.errors import UnavailableError

TIMEOUT = 5.0
"""Seconds for one document."""
MAX_BYTES = 262_144
"""Bytes of one document."""


class UnreachableError(UnavailableError):
    """The other party did not answer at all, which no request of a stranger brings about."""


class BoundedClient:
    """Asks another party, and takes what it answers with 200.

    Args:
        party: its name, for errors.
    """

    def __init__(self, party: str) -> None:
        self._party = party
        # The transport, not a client: a client keeps cookies, reads proxies and decompresses without a bound.
        self._transport = httpx.AsyncHTTPTransport(verify=ssl.create_default_context(), trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def get(self, url: str) -> bytes:
        """Return a document.

        Raises:
            UnavailableError: there is none now.
        """
        status, body = await self._ask(httpx.Request("GET", url, headers=_HEADERS))
        if status != 200:
            raise self._unavailable(f"answered {status}")
        return body

    async def find(self, url: str) -> bytes | None:
        """Return a document; None if there is none of this name, as the party says by 403 or 404.

        Raises:
            UnavailableError: the party does not say.
        """
        status, body = await self._ask(httpx.Request("GET", url, headers=_HEADERS))
        if status in (403, 404):
            return None
        if status != 200:
            raise self._unavailable(f"answered {status}")
        return body

    async def post(self, url: str, form: Mapping[str, str], authorization: str | None) -> tuple[int, bytes]:
        """Send a form, and return the status and the document that it is answered with.

        Raises:
            UnavailableError: there is no answer, or one of an outage.
        """
        headers = _HEADERS | {"content-type": "application/x-www-form-urlencoded"}
        if authorization is not None:
            headers["authorization"] = authorization
        status, body = await self._ask(httpx.Request("POST", url, headers=headers, content=urlencode(form)))
        if status >= 500 or status == 429:
            raise self._unavailable(f"answered {status}")
        return status, body

    def object_of(self, body: bytes) -> dict[str, Any]:
        """Return the JSON object that a document is.

        Raises:
            UnavailableError: it is none.
        """
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._unavailable("answered something that is no JSON object") from None

    async def _ask(self, request: httpx.Request) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(TIMEOUT):
                response = await self._transport.handle_async_request(request)
                try:
                    body = bytearray()
                    async for piece in response.aiter_raw():
                        body += piece
                        if len(body) > MAX_BYTES:
                            raise self._unavailable(f"answered more than {MAX_BYTES:,} bytes")
                finally:
                    await response.aclose()
        except TimeoutError:
            raise UnreachableError(self._said(f"did not answer within {TIMEOUT:g} s")) from None
        except (OSError, httpx.TransportError) as error:
            raise UnreachableError(self._said(f"cannot be reached: {type(error).__name__}")) from error
        return response.status_code, bytes(body)

    def _unavailable(self, what: str) -> UnavailableError:
        return UnavailableError(self._said(what))

    def _said(self, what: str) -> str:
        return f"{self._party} {what}; try again, or paste a token"


_HEADERS = {"accept": "application/json", "accept-encoding": "identity"}
