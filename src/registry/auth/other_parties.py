"""The parties outside that say who somebody is: AWS STS, the load balancer, and the sign-in provider of people.

What asks them is imported where it is set, because it brings httpx: 30 ms of each start, and 2 MiB of each process.
"""

from typing import TYPE_CHECKING

from registry.auth.load_balancer import LoadBalancer
from registry.auth.signed_token import check_installed
from registry.errors import BadSettingsError
from registry.settings import Settings

if TYPE_CHECKING:
    from registry.auth.oidc_provider import OidcProvider
    from registry.auth.signed_headers import SignedHeaders
    from registry.auth.sts_client import StsClient


def sts_of(settings: Settings) -> "StsClient | None":
    """Return what asks AWS STS whose login it is; None where AWS login is off."""
    if not settings.aws_regions:
        return None
    from registry.auth.sts_client import StsClient  # noqa: PLC0415  # only where it is set

    return StsClient(settings.aws_sts_endpoint)


def signed_headers_of(settings: Settings) -> "SignedHeaders | None":
    """Return what tells whom the load balancer has signed in; None where none does.

    Raises:
        BadSettingsError: what it needs is not installed.
    """
    if settings.alb_arn is None or settings.alb_client_id is None or settings.alb_issuer is None:
        return None
    check_installed("REGISTRY_ALB_ARN")
    from registry.auth.load_balancer_keys import LoadBalancerKeys, key_base  # noqa: PLC0415  # only where it is set
    from registry.auth.signed_headers import SignedHeaders  # noqa: PLC0415

    ours = LoadBalancer(settings.alb_arn, settings.alb_client_id, settings.alb_issuer)
    return SignedHeaders(ours, LoadBalancerKeys(settings.alb_keys_endpoint or key_base(settings.alb_arn)))


def oidc_provider_of(settings: Settings) -> "OidcProvider | None":
    """Return the sign-in provider that is set; None without one.

    Raises:
        BadSettingsError: what it needs is not installed, or its secret cannot be read.
    """
    if settings.oidc_issuer is None or settings.oidc_client_id is None:
        return None
    check_installed("REGISTRY_OIDC_ISSUER")
    from registry.auth.oidc_provider import OidcProvider, OidcSettings  # noqa: PLC0415  # only where it is set

    secret = "" if settings.oidc_client_secret is None else settings.oidc_client_secret.get_secret_value()
    if settings.oidc_client_secret_file is not None:
        try:
            secret = settings.oidc_client_secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadSettingsError(f"REGISTRY_OIDC_CLIENT_SECRET_FILE cannot be read: {error}") from None
        if not secret:
            raise BadSettingsError("REGISTRY_OIDC_CLIENT_SECRET_FILE is empty; leave it out for a public client")
    return OidcProvider(OidcSettings(settings.oidc_issuer, settings.oidc_client_id, secret, settings.oidc_redirect_url))
