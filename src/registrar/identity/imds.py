"""The EC2 instance metadata service, version 2.

Version 1 is never used: it answers without a token, and so to every request that an attacker makes a process send.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from registrar.errors import MetadataUnavailable
from registrar.identity import lenient
from registrar.identity.exchange import exchange
from registrar.jitter import phase
from wire.http1 import Response

ENDPOINT = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
MODE = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"
DISABLED = "AWS_EC2_METADATA_DISABLED"
_IPV4, _IPV6 = "http://169.254.169.254", "http://[fd00:ec2::254]"
_ROLE_KEYS = "/latest/meta-data/iam/security-credentials/"
_TIMEOUT = 1.0
_ATTEMPTS = 3
_MIN_PAUSE = 0.1
_TOKEN_TTL = 60
"""Seconds: a start asks everything within a few, and a token that leaks soon expires."""
_TOKEN_RESERVE = 10


class Document(Struct, frozen=True, rename="camel"):
    """The fields that are read of the instance identity document."""

    instance_id: str = ""
    region: str = ""
    zone: str = field(default="", name="availabilityZone")


class TokenLost(MetadataUnavailable):
    """The request for a token was not answered."""


class NotThere(MetadataUnavailable):
    """The service has no such item: 404."""


class Imds:
    """Requests to the service, each with a token that is fetched first.

    Args:
        base: the service's URL.
    """

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self._token = ""
        self._token_ends = 0.0

    async def address(self) -> str:
        """Return the instance's primary private address, or its IPv6 address where it has no other.

        Raises:
            MetadataUnavailable: no answer, or none that can be used.
        """
        with contextlib.suppress(NotThere):
            return await self._text("/latest/meta-data/local-ipv4")
        return await self._text("/latest/meta-data/ipv6")

    async def _text(self, path: str) -> str:
        return (await self._get(path)).decode(errors="replace").strip()

    async def document(self) -> Document:
        """Return the instance identity document.

        Raises:
            MetadataUnavailable: no answer, or none that can be used.
        """
        try:
            return lenient.read(await self._get("/latest/dynamic/instance-identity/document"), Document)
        except msgspec.DecodeError as error:
            raise MetadataUnavailable(f"answer not understood: {error}") from error

    async def role_keys(self) -> bytes:
        """Return the document with the keys of the instance's role.

        Raises:
            MetadataUnavailable: the instance has no role, or no answer came.
        """
        role = await self._text(_ROLE_KEYS)
        return await self._get(f"{_ROLE_KEYS}{quote(role.partition(chr(10))[0], safe='')}")

    async def _get(self, path: str) -> bytes:
        now = asyncio.get_running_loop().time()
        if not self._token or now > self._token_ends:
            self._token_ends = now + _TOKEN_TTL - _TOKEN_RESERVE
            ttl = {"x-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL)}
            self._token = (await self._ask("PUT", "/latest/api/token", ttl)).decode("ascii", errors="replace")
        return await self._ask("GET", path, {"x-aws-ec2-metadata-token": self._token})

    async def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        reason = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(phase(_MIN_PAUSE * 2**attempt))
            try:
                response = await exchange(method, self.base + path, headers, _TIMEOUT)
            except TimeoutError as error:
                # Not repeated: a reply that the hop limit drops is dropped each time.
                raise TokenLost(f"{method} {path}: no answer within {_TIMEOUT:g}s") from error
            except (OSError, ValueError) as error:
                reason = str(error)
                continue
            if response.status == 200:
                return response.body
            reason = _reason(response)
            if response.status == 404:
                raise NotThere(f"{method} {path}: {reason}")
            if response.status != 429 and response.status < 500:
                break
        raise MetadataUnavailable(f"{method} {path}: {reason}")


def endpoint(environ: Mapping[str, str]) -> str:
    """Return the URL that an AWS SDK uses in this environment; empty where IMDS is disabled."""
    if environ.get(DISABLED, "").lower() == "true":
        return ""
    return environ.get(ENDPOINT) or (_IPV6 if environ.get(MODE, "").lower() == "ipv6" else _IPV4)


def _reason(response: Response) -> str:
    reasons = {403: "403, the metadata service is disabled (HttpEndpoint=disabled)", 404: "404, it does not know that"}
    return reasons.get(response.status, f"{response.status} {response.body[:100].decode(errors='replace')}".strip())
