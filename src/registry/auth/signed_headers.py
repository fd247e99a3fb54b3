"""The people whom the signed headers of our load balancer mean."""

import hashlib
from typing import Any

from registry.auth.load_balancer import (
    ALGORITHM,
    LoadBalancer,
    SignedPerson,
    check_header,
    keep,
    person_of,
    read_statement,
)
from registry.auth.load_balancer_keys import LoadBalancerKeys
from registry.auth.oidc import BadIdTokenError

MAX_PEOPLE = 4_096
"""Headers that were verified, which are kept until they end."""


class SignedHeaders:
    """Tells who the header of the load balancer means.

    Args:
        ours: the load balancer whose headers are taken.
        keys: the public keys.
    """

    def __init__(self, ours: LoadBalancer, keys: LoadBalancerKeys) -> None:
        self._ours = ours
        self._keys = keys
        self._people: dict[bytes, SignedPerson] = {}
        """People by the SHA-256 of the header that was verified; those that have ended may still be in it."""

    async def close(self) -> None:
        """Close the connections to the keys."""
        await self._keys.close()

    async def person(self, value: bytes, now: float) -> SignedPerson:
        """Return the person whom a header means.

        Args:
            value: of the header.
            now: PostgreSQL's time.

        Raises:
            BadIdTokenError: the header proves nobody; the text says why.
            UnavailableError: the key cannot be asked for now.
        """
        digest = hashlib.sha256(value).digest()
        person = self._people.get(digest)
        if person is not None and now < person.expires_at:
            return person
        statement = read_statement(value)
        check_header(statement, self._ours, now)
        key = await self._keys.key(statement.key_id)
        if not _has_signed(key, statement.signed, statement.signature):
            raise BadIdTokenError("x-amzn-oidc-data is not signed by the key that it names")
        person = person_of(statement, self._ours, now)
        keep(self._people, digest, person, MAX_PEOPLE)
        return person


def _has_signed(key: Any, signed: bytes, signature: bytes) -> bool:  # noqa: ANN401  # a class of joserfc
    # Not by jwt.decode: it refuses the padding that AWS signs, and headers of more than 512 bytes.
    from joserfc.jws import JWSRegistry  # noqa: PLC0415  # only where a load balancer signs people in

    return JWSRegistry(algorithms=[ALGORITHM]).get_alg(ALGORITHM).verify(signed, signature, key)
