"""The public keys of AWS's load balancers."""

import asyncio
import time
from typing import Any

from registry.auth.bounded_client import BoundedClient
from registry.auth.load_balancer import keep, region_of
from registry.auth.oidc import BadIdTokenError
from registry.errors import UnavailableError

KEY_TTL = 43_200.0
"""Seconds for which a key is used before it is asked for again."""
MISS_TTL = 60.0
"""Seconds for which a key that AWS does not have is not asked for again."""
FAILURE_TTL = 3.0
"""Seconds after a failure within which no key is asked for."""
MAX_KEYS = 64
"""Keys that are kept."""
MAX_MISSES = 1_024
"""Names of keys that AWS does not have, which are kept."""
MAX_WAITING = 64
"""Requests that wait for a key at once."""


class LoadBalancerKeys:
    """Asks AWS for public keys by their names, one at a time, and keeps them.

    Args:
        base: the URL before the name of a key.
    """

    def __init__(self, base: str) -> None:
        self._base = base
        self._client = BoundedClient("the key server of AWS's load balancers")
        self._asking = asyncio.Lock()
        """Held while a key is asked for, so that many requests with a new one ask once."""
        self._waiting = 0
        """Requests that wait for a key, or ask for one."""
        self._keys: dict[str, tuple[Any, float]] = {}
        """Keys, and when they were read (monotonic), by their names."""
        self._misses: dict[str, float] = {}
        """When AWS had no key of a name (monotonic)."""
        self._failed_at = -FAILURE_TTL
        """When AWS was last asked in vain (monotonic)."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def key(self, key_id: str) -> Any:  # noqa: ANN401  # a class of joserfc, which is imported late
        """Return the key of a name.

        Raises:
            BadIdTokenError: AWS has none, or none of this kind.
            UnavailableError: AWS does not answer, or too many wait for it.
        """
        key = self._kept(key_id)
        if key is not None:
            return key
        if self._waiting >= MAX_WAITING:
            raise UnavailableError(f"{self._waiting} requests wait for a key of the load balancer already; try again")
        self._waiting += 1
        try:
            async with self._asking:
                # Another request may have asked for it meanwhile.
                return self._kept(key_id) or await self._ask(key_id)
        finally:
            self._waiting -= 1

    def _kept(self, key_id: str) -> Any:  # noqa: ANN401  # as above
        now = time.monotonic()
        key, read_at = self._keys.get(key_id, (None, 0.0))
        if key is not None and now - read_at < KEY_TTL:
            return key
        if now - self._misses.get(key_id, -MISS_TTL) < MISS_TTL:
            raise _no_key()
        return None

    async def _ask(self, key_id: str) -> Any:  # noqa: ANN401  # as above
        if time.monotonic() - self._failed_at < FAILURE_TTL:
            raise UnavailableError("the key server of AWS's load balancers could not be asked a moment ago; try again")
        try:
            document = await self._client.find(f"{self._base}/{key_id}")
        except UnavailableError:
            self._failed_at = time.monotonic()
            raise
        key = None if document is None else _key_of(document)
        if key is None:
            keep(self._misses, key_id, time.monotonic(), MAX_MISSES)
            raise _no_key()
        keep(self._keys, key_id, (key, time.monotonic()), MAX_KEYS)
        return key


def key_base(arn: str) -> str:
    """Return the URL before the name of a key, by our load balancer's region.

    Never by a token, which could name a server of its own.
    The two kinds of hosts are those of the Elastic Load Balancing user guide, "Authenticate users".
    """
    region = region_of(arn)
    if region.startswith("us-gov-"):
        return f"https://s3-{region}.amazonaws.com/aws-elb-public-keys-prod-{region}"
    return f"https://public-keys.auth.elb.{region}.amazonaws.com"


def _key_of(document: bytes) -> Any:  # noqa: ANN401  # as above
    """Return the key of a document in PEM; None if it is no public key of ES256."""
    from joserfc.errors import JoseError  # noqa: PLC0415  # only where a load balancer signs people in
    from joserfc.jwk import ECKey  # noqa: PLC0415  # as above

    try:
        key = ECKey.import_key(document)
    except (JoseError, ValueError, TypeError):
        return None
    return key if key.curve_name == "P-256" and not key.is_private else None


def _no_key() -> BadIdTokenError:
    return BadIdTokenError("x-amzn-oidc-data names a key that AWS does not have in this region (kid)")
