"""The validity of certificates, held beside what the library that wrote them says."""

import base64
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from wire.x509 import Validity, common_validity, validities

KEY = ec.generate_private_key(ec.SECP256R1())
TIMES = st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(9999, 12, 31), timezones=st.just(dt.UTC)).map(  # noqa: DTZ001
    lambda time: time.replace(microsecond=0)
)


def pem(begin: dt.datetime, end: dt.datetime, name: str = "x") -> str:
    """Return a certificate with that validity."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(KEY.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .sign(KEY, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@given(st.tuples(TIMES, TIMES).map(sorted), st.text("abc", min_size=1, max_size=64))
@settings(max_examples=60)
def test_the_validity_is_that_of_the_certificate(times: list[dt.datetime], name: str) -> None:
    """Whatever the century, and however long the names before it."""
    begin, end = times
    assert validities(pem(begin, end, name)) == [Validity(begin.timestamp(), end.timestamp())]


def test_a_chain_is_valid_while_all_of_it_is() -> None:
    """An intermediate that expires first ends the validity of the chain; text around the certificates is no matter."""
    times = [dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2020, 2022, 2030, 2040)]
    chain = f"leaf\n{pem(times[0], times[3])}\nsubject=/CN=x\r\n{pem(times[1], times[2])}".replace("\n", "\r\n")
    assert common_validity(chain) == Validity(times[1].timestamp(), times[2].timestamp())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no certificate in PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n", "certificate 1 of it cannot be read"),
        ("-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n", "certificate 1 of it cannot be read"),
    ],
)
def test_what_is_no_certificate_is_named(text: str, reason: str) -> None:
    """With the number of the one that is meant."""
    with pytest.raises(ValueError, match=reason):
        validities(text)


@given(st.data())
@settings(max_examples=200)
def test_a_damaged_certificate_raises_value_error_alone(data: st.DataObject) -> None:
    """Cut or changed anywhere, it is read, or refused; no other error comes of it."""
    der = bytearray(base64.b64decode("".join(DAMAGED.splitlines()[1:-1])))
    del der[data.draw(st.integers(0, len(der))) :]
    for place in data.draw(st.lists(st.integers(0, max(0, len(der) - 1)), max_size=4)) if der else ():
        der[place] = data.draw(st.integers(0, 255))
    text = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"
    try:
        validity = common_validity(text)
    except ValueError:
        return
    assert validity.contains(validity.not_before) or validity.not_before > validity.not_after


DAMAGED = pem(dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(2051, 1, 1, tzinfo=dt.UTC))


def test_both_ends_are_inside() -> None:
    """And the complaint says which end was missed."""
    validity = Validity(100.0, 200.0)
    assert [validity.contains(now) for now in (99.9, 100, 200, 200.1)] == [False, True, True, False]
    assert validity.complaint(150) is None
    assert validity.complaint(99) == "is not valid before 1970-01-01 00:01:40 UTC"
    assert validity.complaint(201) == "has expired at 1970-01-01 00:03:20 UTC"
