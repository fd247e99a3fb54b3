"""Tokens and consent that requests at gateways and edges need."""

from collections.abc import Mapping

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import File, HeaderName, PositiveDuration, ServiceName, Text


class Jwt(StrictBlock, frozen=True, kw_only=True):
    """Requests need a token of this issuer; ``claims`` go to the app in headers of these names.

    Attributes:
        issuer: the issuer that tokens have to name.
        jwks_file: the file with the issuer's keys, on the machine of the Envoy.
        audiences: the audiences of which tokens have to name one; any without them.
        claims: claims that go to the app, each in the header of this name; a client's own header is removed.
    """

    issuer: Text
    jwks_file: File
    audiences: tuple[Text, ...] = ()
    claims: Mapping[Text, HeaderName] = {}


class ExternalAuthorization(StrictBlock, frozen=True, kw_only=True):
    """Ask a service about each request before it goes on.

    ``headers`` are those that the service sets for the app; a client's own are removed before it is asked.

    Attributes:
        service: the service that is asked.
        timeout: the time that it has to answer.
        fail_open: whether requests pass while it does not answer.
        headers: headers that it sets for the app; a client's own are removed before it is asked.
    """

    service: ServiceName
    timeout: PositiveDuration = 0.5
    fail_open: bool = False
    headers: tuple[HeaderName, ...] = ()


class Authentication(StrictBlock, frozen=True, kw_only=True):
    """A token or the consent of a service, which each request at a gateway or an edge needs.

    Attributes:
        jwt: tokens that requests need.
        external: a service that consents to each request.
    """

    jwt: Jwt | None = None
    external: ExternalAuthorization | None = None
