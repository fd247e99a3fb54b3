"""The rules by which tokens and identities are worth a look of an operator. Times are arguments."""

from collections.abc import Iterable
from itertools import chain

from registry.auth.credential import Credential, Identity
from registry.auth.verbs import Verb

ENDS_SOON = 7 * 86_400.0
"""Seconds before its end from which on a token is reported, at most: for a short one a quarter of its time."""
ENDED_LATELY = 86_400.0
"""Seconds after its end for which a token that was in use is reported."""
LONG_LIVED = 30 * 86_400.0
"""Seconds for which a token that manages credentials may be good without being reported."""


def ending(tokens: Iterable[Credential], now: float) -> list[Credential]:
    """Return the tokens without a successor that end soon, or have just ended in use."""
    listed = [token for token in tokens if token.revoked_at is None and not token.is_session]
    last: dict[str, float] = {}
    for token in listed:
        last[token.name] = max(token.expires_at, last.get(token.name, token.expires_at))
    return sorted(
        (token for token in listed if token.expires_at == last[token.name] and _ends_soon(token, now)),
        key=lambda token: (token.expires_at, token.id),
    )


def long_lived(tokens: Iterable[Credential], now: float) -> list[Credential]:
    """Return the tokens that manage credentials and are good for more than 30 days in all."""
    return sorted(
        (
            token
            for token in tokens
            if token.revoked_at is None
            and token.expires_at > now
            and token.expires_at - token.created_at > LONG_LIVED
            and _manages_credentials(token)
        ),
        key=lambda token: (token.name, token.id),
    )


def open_to_networks(identities: Iterable[Identity]) -> list[Identity]:
    """Return the identities by which a whole network manages credentials, without a credential of its own."""
    return sorted(
        (each for each in identities if each.source == "network" and _manages_credentials(each)),
        key=lambda identity: identity.name,
    )


def _ends_soon(token: Credential, now: float) -> bool:
    lifetime, left = token.expires_at - token.created_at, token.expires_at - now
    if left > 0:
        return left < min(ENDS_SOON, lifetime / 4)
    in_use = token.used_at is not None and token.expires_at - token.used_at < ENDED_LATELY
    # A token that was made for a day or less was made to end.
    return in_use and lifetime > ENDED_LATELY and -left < ENDED_LATELY


def _manages_credentials(owner: Credential | Identity) -> bool:
    return Verb.ADMIN in chain.from_iterable(grant.verbs for grant in owner.grants)
