"""Logins of AWS workloads: what is built of them, and what is refused."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from harness.aws_login import BODY, FORM, Workload, document
from hypothesis import example, given
from hypothesis import strategies as st

from registry.auth import aws_login
from registry.auth.aws_login import BadLoginError, LoginRules, read_login

NOW = 1_795_903_200.0
DAY = 86_400
RULES = LoginRules(
    frozenset({"eu-west-1", "cn-north-1", "us-gov-west-1"}), frozenset({"registry.example.com", "10.0.0.1"})
)
ALLOWED = {
    "authorization",
    "content-type",
    "host",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
    "x-registry-audience",
    "x-registry-instance",
    "x-registry-nonce",
}
SHOP = Workload()

Headers = dict[str, Any]


def refusal(login: bytes, now: float = NOW) -> str:
    """Return the reason for which a login is refused."""
    with pytest.raises(BadLoginError) as caught:
        read_login(login, RULES, now)
    return str(caught.value)


def test_a_login_becomes_a_request_of_our_own() -> None:
    """The headers are those that were signed and the signature; the body is the one that every workload signs."""
    headers = SHOP.headers(NOW)
    request = read_login(document(headers), RULES, NOW)
    assert dict(request.headers) == headers
    assert (request.host, request.region) == ("sts.eu-west-1.amazonaws.com", "eu-west-1")
    assert (request.instance, request.signed_at) == (SHOP.instance, NOW)
    assert request.digest == hashlib.sha256(headers["authorization"][-64:].encode()).digest()
    assert aws_login.BODY.decode() == BODY


def test_names_of_headers_have_no_case() -> None:
    """Some SDKs write Host, X-Amz-Date and Authorization."""
    headers = SHOP.headers(NOW)
    shouted = {name.title(): value for name, value in headers.items()}
    assert dict(read_login(document(shouted), RULES, NOW).headers) == headers


def test_what_sdks_sign_of_their_own_accord_is_taken_where_it_says_the_same() -> None:
    """The length is not copied: the client that sends the body writes it."""
    sha256 = hashlib.sha256(BODY.encode()).hexdigest()
    login = SHOP.login(NOW, content_length=str(len(BODY)), x_amz_content_sha256=sha256)
    assert {name for name, _ in read_login(login, RULES, NOW).headers} == ALLOWED
    assert "content-length is '44'" in refusal(SHOP.login(NOW, content_length="44"))
    assert "x-amz-content-sha256 is 'UNSIGNED" in refusal(SHOP.login(NOW, x_amz_content_sha256="UNSIGNED-PAYLOAD"))


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
        ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
    ],
)
def test_the_host_follows_from_the_region(region: str, host: str) -> None:
    """China's partition has names of its own."""
    assert read_login(replace(SHOP, region=region).login(NOW), RULES, NOW).host == host


# Attacks: what is sent, and why it is refused.
Attack = tuple[str, Callable[[], bytes], str]


def _headers(**changed: str | None) -> Headers:
    return SHOP.headers(NOW, **changed)


def _written(old: str, new: str) -> bytes:
    """Return a login whose Authorization is written otherwise."""
    headers = _headers()
    assert old in headers["authorization"]
    return document(headers | {"authorization": headers["authorization"].replace(old, new)})


def _raw(headers: str) -> bytes:
    return b'{"headers": {' + headers.encode() + b"}}"


ATTACKS: list[Attack] = [
    # URL, method and body are the registry's (CVE-2020-16250).
    ("a URL", lambda: json.dumps({"headers": _headers(), "url": "https://evil.example"}).encode(), "one key"),
    ("a method", lambda: json.dumps({"headers": _headers(), "method": "GET"}).encode(), "one key"),
    ("a body", lambda: json.dumps({"headers": _headers(), "body": "QWN0aW9u"}).encode(), "one key"),
    ("Vault's form", lambda: json.dumps({"iam_request_headers": _headers()}).encode(), "one key"),
    # Another host.
    ("a foreign host", lambda: replace(SHOP, host="evil.example").login(NOW), "signed host is 'evil.example'"),
    ("the host of an S3 bucket", lambda: replace(SHOP, host="b.s3.amazonaws.com").login(NOW), "signed host"),
    ("the global endpoint", lambda: replace(SHOP, host="sts.amazonaws.com").login(NOW), "signed host"),
    ("another region's host", lambda: replace(SHOP, host="sts.us-east-1.amazonaws.com").login(NOW), "signed host"),
    ("a port", lambda: replace(SHOP, host="sts.eu-west-1.amazonaws.com:80").login(NOW), "signed host"),
    ("a user", lambda: replace(SHOP, host="sts.eu-west-1.amazonaws.com@evil").login(NOW), "signed host"),
    ("a dot at the end", lambda: replace(SHOP, host="sts.eu-west-1.amazonaws.com.").login(NOW), "signed host"),
    (
        "China's suffix elsewhere",
        lambda: replace(SHOP, host="sts.eu-west-1.amazonaws.com.cn").login(NOW),
        "signed host",
    ),
    ("a region of no list", lambda: replace(SHOP, region="us-east-1").login(NOW), "region 'us-east-1'"),
    ("a region that is a host", lambda: _written("/eu-west-1/", "/eu-west-1.evil.example/"), "Signature Version 4"),
    # Another service or another kind of signature.
    ("another service", lambda: replace(SHOP, service="iam").login(NOW), "service 'iam'"),
    ("another algorithm", lambda: _written("HMAC-SHA256", "ECDSA-P256-SHA256"), "Signature Version 4"),
    ("two signatures", lambda: _written("Signature=", "Signature=a, Signature="), "Signature Version 4"),
    ("two credentials", lambda: _written("Credential=", "Credential=A, Credential="), "Signature Version 4"),
    ("a signature in capitals", lambda: _written("Signature=", "Signature=A"), "Signature Version 4"),
    ("no blank", lambda: _written(", SignedHeaders", ",SignedHeaders"), "Signature Version 4"),
    ("a query", lambda: document(_headers() | {"x-amz-signature": "0" * 64}), "header 'x-amz-signature'"),
    ("a presigned URL", lambda: document({"host": "sts.eu-west-1.amazonaws.com"}), "lacks authorization, content-type"),
    # Headers that would mean something to STS or to a proxy.
    ("a target", lambda: document(_headers(x_amz_target="AWSSecurityTokenService.AssumeRole")), "x-amz-target"),
    ("another host behind", lambda: document(_headers(x_forwarded_host="evil.example")), "x-forwarded-host"),
    ("a connection", lambda: document(_headers(connection="host")), "'connection'"),
    ("chunks", lambda: document(_headers(transfer_encoding="chunked")), "'transfer-encoding'"),
    ("a method behind", lambda: document(_headers(x_http_method_override="GET")), "x-http-method-override"),
    ("JSON as an answer", lambda: document(_headers(accept="application/json")), "'accept'"),
    ("a JSON protocol", lambda: document(_headers(content_type="application/x-amz-json-1.1")), "content-type is"),
    ("a part of a form", lambda: document(_headers(content_type="multipart/form-data; boundary=x")), "content-type is"),
    # A name twice.
    ("two hosts", lambda: _raw('"host": "sts.eu-west-1.amazonaws.com", "host": "evil.example"'), "repeated names"),
    ("two hosts, in another case", lambda: document(_headers() | {"Host": "evil.example"}), "header host twice"),
    ("two documents", lambda: b'{"headers": {}, "headers": {}}', "repeated names"),
    ("a list of values", lambda: document(_headers() | {"host": ["a", "b"]}), "not a string"),
    ("a number", lambda: document(_headers() | {"content-length": 43}), "not a string"),
    # What another reader of headers takes for two.
    ("a line", lambda: document(_headers() | {"host": "a\r\nx-evil: b"}), "printable ASCII"),
    ("a line in a name", lambda: document(_headers() | {"host\r\n": "a"}), "allowed are"),
    ("NUL", lambda: document(_headers() | {"x-amz-security-token": "a\x00"}), "printable ASCII"),
    ("DEL", lambda: document(_headers() | {"x-amz-security-token": "a\x7f"}), "printable ASCII"),
    ("a letter outside of ASCII", lambda: document(_headers() | {"x-registry-audience": "\u017f"}), "printable ASCII"),
    ("a name outside of ASCII", lambda: document(_headers() | {"ho\u017ft": "a"}), "allowed are"),
    ("the Kelvin sign", lambda: document(_headers() | {"x-amz-security-to\u212aen": "a"}), "allowed are"),
    ("half a character", lambda: _raw('"host": "\\ud800"'), "printable ASCII"),
    ("UTF-8 itself", lambda: json.dumps({"headers": {"host": "é"}}, ensure_ascii=False).encode(), "in ASCII"),
    ("UTF-16", lambda: json.dumps({"headers": _headers()}).encode("utf-16"), "in ASCII"),
    ("two blanks", lambda: document(_headers(x_registry_audience="a  b")), "blanks at its ends or in a row"),
    ("a blank at the end", lambda: document(_headers(x_registry_audience="a ")), "blanks at its ends or in a row"),
    ("no value", lambda: document(_headers(x_amz_security_token="")), "printable ASCII"),
    # What is not signed.
    *(
        (
            f"{name} not signed",
            lambda name=name: document(_headers(**{name: None}) | {name.replace("_", "-"): "x"}),
            "sign",
        )
        for name in ("x_registry_audience", "x_registry_instance", "x_registry_nonce", "x_amz_security_token", "host")
    ),
    *(
        (f"no {name}", lambda name=name: document(_headers(**{name: None})), f"lacks {name.replace('_', '-')}")
        for name in ("content_type", "x_registry_audience", "x_registry_instance", "x_registry_nonce", "x_amz_date")
    ),
    ("names in another order", lambda: _written("content-type;host", "host;content-type"), "sorted, each once"),
    ("a name signed twice", lambda: _written("host;", "host;host;"), "sorted, each once"),
    ("a name that is not sent", lambda: _written("host;", "host;user-agent;"), "sign exactly"),
    ("a name in capitals", lambda: _written("host;", "Host;"), "Signature Version 4"),
    # Time.
    ("too old", lambda: SHOP.login(NOW - 301), "ago"),
    ("too far ahead", lambda: SHOP.login(NOW + 61), "ago"),
    ("yesterday's key", lambda: replace(SHOP, day="20261127").login(NOW), "days must agree"),
    (
        "a day that is not",
        lambda: replace(SHOP, day="20261301").login(NOW, x_amz_date="20261301T000000Z"),
        "x-amz-date is",
    ),
    (
        "a date of HTTP",
        lambda: replace(SHOP, day="20261128").login(NOW, x_amz_date="Sat, 28 Nov 2026"),
        "x-amz-date is",
    ),
    ("digits of elsewhere", lambda: document(_headers() | {"x-amz-date": "2026112٨T000000Z"}), "printable ASCII"),
    # Purpose.
    (
        "another registry",
        lambda: replace(SHOP, audience="dev.example.com").login(NOW),
        "for the registry 'dev.example.com'",
    ),
    ("another case", lambda: replace(SHOP, audience="Registry.example.com").login(NOW), "for the registry"),
    ("an endless instance", lambda: replace(SHOP, instance="a" * 256).login(NOW), "no instance id"),
    ("a short nonce", lambda: SHOP.login(NOW, x_registry_nonce="1"), "x-registry-nonce has to be"),
    (
        "a nonce of words",
        lambda: SHOP.login(NOW, x_registry_nonce="a" * 20 + " " + "b" * 20),
        "x-registry-nonce has to be",
    ),
    # Documents.
    ("no document", lambda: b"", "not a JSON document"),
    ("a list around", lambda: b"[" + SHOP.login(NOW) + b"]", "one key"),
    ("pairs", lambda: json.dumps([["headers", _headers()]]).encode(), "one key"),
    ("headers as pairs", lambda: json.dumps({"headers": list(_headers().items())}).encode(), "one key"),
    ("nothing", lambda: b"null", "one key"),
    ("too much", lambda: SHOP.login(NOW) + b" " * 8_192, "allowed are 8,192"),
    ("depth", lambda: b"[" * 8_000, "not a JSON document"),
    ("objects in depth", lambda: b'{"a":' * 1_600, "not a JSON document"),
    ("a number without end", lambda: b'{"headers": ' + b"9" * 8_000 + b"}", "not a JSON document"),
    ("more behind", lambda: SHOP.login(NOW) + b"{}", "not a JSON document"),
]


@pytest.mark.parametrize(
    ("attack", "reason"), [attack[1:] for attack in ATTACKS], ids=[attack[0] for attack in ATTACKS]
)
def test_an_attack_is_refused_for_its_reason(attack: Callable[[], bytes], reason: str) -> None:
    """The reason says what was received and what is allowed, and never shows the token or the signature."""
    said = refusal(attack())
    assert reason in said
    assert SHOP.keys.token not in said
    assert "Signature=" not in said.replace("Signature=…", "")


@pytest.mark.parametrize("age", [-60, -59.5, 0, 299.5, 300])
def test_a_login_is_taken_within_its_minutes(age: float) -> None:
    """A clock that is a minute ahead, and a login that was five minutes on its way."""
    login = SHOP.login(NOW)
    assert read_login(login, RULES, NOW + age).signed_at == NOW


def test_midnight_between_signing_and_login_is_no_reason() -> None:
    """The day of the key is that of the signature, not that of the registry."""
    midnight = NOW - NOW % DAY
    assert read_login(SHOP.login(midnight - 1), RULES, midnight + 1).signed_at == midnight - 1
    assert read_login(SHOP.login(midnight + 1), RULES, midnight - 1).signed_at == midnight + 1


def test_the_same_second_has_two_signatures() -> None:
    """The nonce makes them different; without one the second login would look like a repetition of the first."""
    first, second = (read_login(SHOP.login(NOW), RULES, NOW) for _ in range(2))
    assert first.digest != second.digest


def test_a_request_in_a_log_shows_no_credential() -> None:
    """A repr is what a traceback or a log has."""
    request = read_login(SHOP.login(NOW), RULES, NOW)
    for secret in (SHOP.keys.token, SHOP.keys.access_key_id, dict(request.headers)["authorization"][-64:]):
        assert secret not in f"{request!r} {request}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=300))
@example(b"\xff\xfe")
@example(b"\xef\xbb\xbf{}")
def test_bytes_are_refused_and_nothing_else_happens(login: bytes) -> None:
    """No error but the one that the caller handles."""
    refusal(login)


@given(JSON)
def test_documents_are_refused_and_nothing_else_happens(parsed: Any) -> None:
    """Whatever JSON can say instead of headers."""
    refusal(json.dumps(parsed).encode())
    refusal(document(parsed))


@given(st.sampled_from(sorted(_headers())), JSON | st.text(max_size=60))
@example("host", "sts.eu-west-1.amazonaws.com\n")
@example("authorization", "")
def test_one_header_of_another_value_is_refused_or_copied(name: str, value: Any) -> None:
    """A value that is taken is the signed one, or one that the signature covers: STS refuses a change of that."""
    headers = _headers()
    try:
        request = read_login(document(headers | {name: value}), RULES, NOW)
    except BadLoginError:
        return
    assert dict(request.headers)[name] == value
    assert name in ("x-amz-security-token", "x-registry-instance", "x-registry-nonce")
    assert set(dict(request.headers)) <= ALLOWED
    assert all(text.isascii() and text.isprintable() for pair in request.headers for text in pair)


@given(st.integers(min_value=0, max_value=2_000), st.characters(max_codepoint=127))
def test_one_changed_letter_never_sends_a_request_elsewhere(place: int, letter: str) -> None:
    """Whatever one letter of a login is changed to, the host and the names of the headers stay those of the rules."""
    login = SHOP.login(NOW).decode()
    place %= len(login)
    try:
        request = read_login(f"{login[:place]}{letter}{login[place + 1 :]}".encode(), RULES, NOW)
    except BadLoginError:
        return
    headers = dict(request.headers)
    assert request.host == headers["host"] == "sts.eu-west-1.amazonaws.com"
    assert headers["content-type"] == FORM
    assert headers["x-registry-audience"] == "registry.example.com"
    assert set(headers) <= ALLOWED


@given(st.floats(min_value=-1e6, max_value=1e6))
def test_the_window_of_time_is_exact(age: float) -> None:
    """From a minute ahead to five minutes ago, by whatever clock the registry goes."""
    login = SHOP.login(NOW)
    if -60 <= age <= 300:
        assert read_login(login, RULES, NOW + age).signed_at == NOW
    else:
        assert "ago by the registry's clock" in refusal(login, NOW + age)
