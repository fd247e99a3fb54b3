"""The names that a client certificate gives its owner."""

import pytest

from registry.auth.certificate import ClientCertificate, certificate_of, read_certificate, scope_extensions

PEER = {
    "subject": ((("commonName", "admin"),),),
    "subjectAltName": (
        ("URI", "spiffe://example.org/shop"),
        ("DNS", "shop.internal"),
        ("IP Address", "10.0.0.1"),
        ("email", "shop@example.org"),
        ("DNS", "*.shop.internal"),
    ),
    "notAfter": "Jan  1 00:01:40 1970 GMT",
}


def test_only_uris_and_dns_names_are_names() -> None:
    """In their order; addresses, mail and the common name are none."""
    certificate = read_certificate(PEER)
    assert certificate == ClientCertificate(
        ("spiffe://example.org/shop",), ("shop.internal", "*.shop.internal"), not_after=100.0
    )
    assert [certificate.has_expired(now) for now in (99.0, 100.0, 100.1)] == [False, False, True]


@pytest.mark.parametrize("peer", [None, {}])
def test_no_certificate_is_none(peer: None) -> None:
    """None is what a client without one has shown, and an empty one what TLS has not verified."""
    assert read_certificate(peer) is None


def test_a_scope_carries_the_certificate() -> None:
    """And one of a plain connection has none."""
    certificate = ClientCertificate((), ("shop",), 1.0)
    assert certificate_of({"extensions": scope_extensions(certificate)}) is certificate
    assert certificate_of({"extensions": {}}) is None
    assert certificate_of({}) is None
