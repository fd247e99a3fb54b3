"""The client certificate of a connection, whose names say who sends its requests.

TLS has verified it: an authority of REGISTRY_TLS_CLIENT_CA_FILE signed it, and its owner has its key. A front reads it
once, when the connection is made, and gives it to everything behind it.
"""

import ssl
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

_EXTENSION = "registry.client_certificate"
"""The key of the certificate in the extensions of an ASGI scope."""


class ClientCertificate(Struct, frozen=True):
    """The names in a verified client certificate.

    The common name is none of them: no authority promises that it is unique (RFC 9525, 2).

    Attributes:
        uris: the URIs among the subject's alternative names, as SPIFFE ids are.
        dns_names: the DNS names among them.
        not_after: the last second in which it is valid, since the epoch.
    """

    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    not_after: float

    def has_expired(self, now: float) -> bool:
        """Return whether the certificate is past its validity; TLS checks that in the handshake alone."""
        return now > self.not_after


def read_certificate(peer: Mapping[str, Any] | None) -> ClientCertificate | None:
    """Return the certificate that ``SSLObject.getpeercert`` describes; None where the client has shown none."""
    if not peer:
        return None
    names: tuple[tuple[str, str], ...] = peer.get("subjectAltName", ())
    return ClientCertificate(
        uris=tuple(name for kind, name in names if kind == "URI"),
        dns_names=tuple(name for kind, name in names if kind == "DNS"),
        not_after=float(ssl.cert_time_to_seconds(peer["notAfter"])),
    )


def certificate_names(certificate: ClientCertificate | None) -> tuple[tuple[str, str], ...]:
    """Return the names of a certificate as pairs of the source of an identity and what it matches: URIs first."""
    if certificate is None:
        return ()
    uris = tuple(("spiffe", uri) for uri in certificate.uris if uri.startswith("spiffe://"))
    return uris + tuple(("dns", name.lower()) for name in certificate.dns_names)


def scope_extensions(certificate: ClientCertificate) -> dict[str, Any]:
    """Return the extensions of an ASGI scope that carry a certificate to routes and middleware."""
    return {_EXTENSION: certificate}


def certificate_of(scope: Mapping[str, Any]) -> ClientCertificate | None:
    """Return the client certificate of the connection that an ASGI request came over."""
    certificate: ClientCertificate | None = scope.get("extensions", {}).get(_EXTENSION)
    return certificate
