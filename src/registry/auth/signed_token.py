"""Signatures of tokens of other parties, by joserfc, which the extra ``oidc`` brings."""

from collections.abc import Mapping, Sequence
from typing import Any

from registry.auth.oidc import BadIdTokenError
from registry.errors import BadSettingsError


def check_installed(setting: str) -> None:
    """Refuse a setting that needs the extra.

    Raises:
        BadSettingsError: it is not installed.
    """
    try:
        import joserfc.jwt  # noqa: F401, PLC0415  # only where people sign in by a provider
    except ImportError:
        raise BadSettingsError(f"{setting} needs joserfc: pip install headcount[server,oidc]") from None


def claims_of(token: str, keys: Mapping[str, Any], algorithms: Sequence[str]) -> dict[str, Any]:
    """Return the claims of a token that one of some public keys has signed.

    Args:
        token: as it was sent.
        keys: a JWK Set (RFC 7517).
        algorithms: of which one has to be the token's.

    Raises:
        BadIdTokenError: none of the keys has signed it, or by another algorithm.
    """
    from joserfc import jwt  # noqa: PLC0415  # as above
    from joserfc.errors import JoseError  # noqa: PLC0415
    from joserfc.jwk import KeySet  # noqa: PLC0415

    usable = [key for key in keys.get("keys", ()) if isinstance(key, dict) and key.get("kty") in ("RSA", "EC")]
    try:
        return jwt.decode(token, KeySet.import_key_set({"keys": usable}), list(algorithms)).claims
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise BadIdTokenError(f"the token is not signed by a key of its issuer ({type(error).__name__})") from None
