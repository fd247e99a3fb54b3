"""AWS login, the request: a workload proves its role by a signed request to AWS STS that the registry forwards.

The workload signs ``GetCallerIdentity`` (Signature Version 4) and sends the headers alone. The registry checks them,
and builds the request anew: URL, method and body are its own, and of the headers only those on a list are copied.
HashiCorp Vault's AWS login once forwarded more than that, and could be made to believe an answer that was not about the
caller (CVE-2020-16250). The signature covers three headers of this registry: the audience, so that a login for one
registry is of no use at another; the instance, so that it is of no use to a neighbour; and a nonce, since two
signatures of the same second would otherwise be equal.

Nothing here does any I/O. The signature itself is for STS to check, because only AWS has the key.
"""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec import Struct

from registry.auth.strict_json import parse_strictly
from wire.aws_partition import partition_of

MAX_DOCUMENT_BYTES = 8_192
"""Bytes of a login's document. A session token of AWS has one to two thousand."""
MAX_AGE = 300
"""Seconds after its signing within which a login is taken; STS takes no older signature either."""
MAX_AHEAD = 60
"""Seconds by which the clock of a workload may be ahead."""
BODY = b"Action=GetCallerIdentity&Version=2011-06-15"
"""The body of the request to STS; its hash is part of what the workload signs."""
AUDIENCE = "x-registry-audience"
"""Header that names the registry that a login is for."""
INSTANCE = "x-registry-instance"
"""Header with the instance id under which the workload is going to register."""
NONCE = "x-registry-nonce"
"""Header with at least 128 random bits, so that no two signatures are equal."""

_BODY_SHA256 = hashlib.sha256(BODY).hexdigest()
_REQUIRED = frozenset(
    {"authorization", "content-type", "host", "x-amz-date", "x-amz-security-token", AUDIENCE, INSTANCE, NONCE}
)
_ALLOWED = _REQUIRED | {"content-length", "x-amz-content-sha256"}
"""The names of headers in a login; the last two are those that some SDKs sign of their own accord."""
_FIXED = {
    "content-type": ("application/x-www-form-urlencoded; charset=utf-8", "application/x-www-form-urlencoded"),
    "content-length": (str(len(BODY)),),
    "x-amz-content-sha256": (_BODY_SHA256,),
}
"""Headers whose value follows from the request that the registry sends."""
# Signature Version 4 trims values and joins runs of blanks before it signs. Values that have neither are signed as they
# are, so that no two of them have the same signature.
_VALUE = re.compile(r"[!-~]+(?: [!-~]+)*")
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[A-Z0-9]{16,128}"
    r"/(?P<day>[0-9]{8})/(?P<region>[a-z0-9-]{1,32})/(?P<service>[a-z0-9-]{1,32})/aws4_request, "
    r"SignedHeaders=(?P<signed>[a-z0-9-]{1,64}(?:;[a-z0-9-]{1,64})*), "
    r"Signature=(?P<signature>[0-9a-f]{64})"
)
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
# 22 letters are 128 bits in base64url.
_NONCE = re.compile(r"[A-Za-z0-9_-]{22,128}")
_MAX_INSTANCE = 255
"""Characters of an instance id, as in a registration."""
_MAX_SHOWN = 80
"""Letters of a value that an error quotes."""


class BadLoginError(ValueError):
    """A login is refused before it is sent to STS; the text says why, without any secret."""


class LoginRules(Struct, frozen=True):
    """The settings of AWS login.

    Attributes:
        regions: the regions whose STS may be asked.
        audiences: the names of this registry that a login may be for.
    """

    regions: frozenset[str]
    audiences: frozenset[str]


class SignedRequest(Struct, frozen=True):
    """A request to STS that the registry built of a login; its headers are a credential for some minutes.

    Attributes:
        region: the region that it is signed for.
        host: the name of STS there, which is signed.
        instance: the instance id that is signed.
        signed_at: when it was signed, in seconds since 1970, by the workload's clock.
        digest: SHA-256 of the signature, by which a repetition is recognized.
        headers: the headers to send, the signed ones and ``authorization``.
    """

    region: str
    host: str
    instance: str
    signed_at: float
    digest: bytes
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        """Return a text without the headers, because logs show it."""
        return f"SignedRequest(region={self.region!r}, instance={self.instance!r})"


def read_login(document: bytes, rules: LoginRules, now: float) -> SignedRequest:
    """Check a login, and build the request to STS.

    Args:
        document: the body of the login, ``{"headers": {…}}``.
        rules: what this registry allows.
        now: the time, in seconds since 1970.

    Raises:
        BadLoginError: the login is refused.
    """
    headers = _headers_of(document)
    if missing := sorted(_REQUIRED - headers.keys()):
        raise BadLoginError(f"the login lacks {_listed(missing)}; sign all of {_listed(_REQUIRED - {'authorization'})}")
    match = _AUTHORIZATION.fullmatch(headers["authorization"])
    if match is None:
        raise BadLoginError(
            "the header authorization is not one of Signature Version 4: 'AWS4-HMAC-SHA256 Credential=…, "
            "SignedHeaders=…, Signature=…', with one blank after each comma"
        )
    _check_signed_names(match["signed"].split(";"), headers)
    host = _host_of(match["service"], match["region"], rules)
    if headers["host"] != host:
        raise BadLoginError(f"the signed host is {_shown(headers['host'])}; for {match['region']} it has to be {host}")
    for name, values in _FIXED.items():
        if headers.get(name, values[0]) not in values:
            raise BadLoginError(f"the header {name} is {_shown(headers[name])}; it has to be {values[0]!r}")
    signed_at = _check_date(headers["x-amz-date"], match["day"], now)
    _check_purpose(headers, rules)
    return SignedRequest(
        region=match["region"],
        host=host,
        instance=headers[INSTANCE],
        signed_at=signed_at,
        digest=hashlib.sha256(match["signature"].encode()).digest(),
        # The length is written by the client that sends the body.
        headers=tuple((name, headers[name]) for name in sorted(headers.keys() - {"content-length"})),
    )


def _headers_of(document: bytes) -> dict[str, str]:
    """Return the headers of a login by their lower-case names."""
    if len(document) > MAX_DOCUMENT_BYTES:
        raise BadLoginError(f"the login has {len(document):,} bytes; allowed are {MAX_DOCUMENT_BYTES:,}")
    try:
        parsed = parse_strictly(document.decode("ascii"))
    except ValueError:
        raise BadLoginError(
            'the login is not a JSON document in ASCII without repeated names, {"headers": {…}}'
        ) from None
    if not isinstance(parsed, dict) or parsed.keys() != {"headers"} or not isinstance(parsed["headers"], dict):
        raise BadLoginError('the login is not an object with the one key "headers", whose value is an object')
    headers: dict[str, str] = {}
    for name, value in parsed["headers"].items():
        lower = name.lower()
        # The Kelvin sign is a small k in lower case.
        if not name.isascii() or lower not in _ALLOWED:
            raise BadLoginError(f"the login has the header {_shown(name)}; allowed are {_listed(_ALLOWED)}")
        if lower in headers:
            raise BadLoginError(f"the login names the header {lower} twice; send each once")
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise BadLoginError(
                f"the header {lower} is not a string of printable ASCII without blanks at its ends or in a row"
            )
        headers[lower] = value
    return headers


def _check_signed_names(names: list[str], headers: Mapping[str, str]) -> None:
    if names != sorted(set(names)):
        raise BadLoginError(f"SignedHeaders are {_shown(';'.join(names))}; they have to be sorted, each once")
    expected = headers.keys() - {"authorization"}
    if set(names) != expected:
        raise BadLoginError(
            f"SignedHeaders are {_shown(';'.join(names))}; sign exactly the headers that are sent: {_listed(expected)}"
        )


def _host_of(service: str, region: str, rules: LoginRules) -> str:
    """Return the name of STS in a region."""
    if service != "sts":
        raise BadLoginError(f"the login is signed for the service {service!r}; sign it for 'sts'")
    partition = partition_of(region) if region in rules.regions else None
    if partition is None:
        raise BadLoginError(
            f"the login is signed for the region {region!r}; REGISTRY_AWS_REGIONS allows {_listed(rules.regions)}"
        )
    return f"sts.{region}.{partition.suffix}"


def _check_date(text: str, day: str, now: float) -> float:
    """Return the time of a signature in seconds since 1970."""
    signed_at = _timestamp_of(text)
    if signed_at is None:
        raise BadLoginError(f"the header x-amz-date is {_shown(text)}; write it like 20260131T235959Z")
    if day != text[:8]:
        raise BadLoginError(f"the login is signed with the key of {day}, and x-amz-date is {text}; the days must agree")
    if not -MAX_AHEAD <= now - signed_at <= MAX_AGE:
        raise BadLoginError(
            f"the login was signed at {text}, which is {now - signed_at:+,.0f} s ago by the registry's clock; allowed "
            f"are {-MAX_AHEAD} to {MAX_AGE} s. Sign a new one, and compare the clocks"
        )
    return signed_at


def _timestamp_of(text: str) -> float | None:
    # strptime alone takes fewer digits as well.
    if not _DATE.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _check_purpose(headers: Mapping[str, str], rules: LoginRules) -> None:
    if headers[AUDIENCE] not in rules.audiences:
        raise BadLoginError(
            f"the login is for the registry {_shown(headers[AUDIENCE])}; REGISTRY_AWS_AUDIENCE of this one is "
            f"{_listed(rules.audiences)}"
        )
    if len(headers[INSTANCE]) > _MAX_INSTANCE:
        raise BadLoginError(f"the header {INSTANCE} is no instance id, which has at most {_MAX_INSTANCE} characters")
    if not _NONCE.fullmatch(headers[NONCE]):
        raise BadLoginError(f"the header {NONCE} has to be 22 to 128 letters of A-Z, a-z, 0-9, - and _, made at random")


def _listed(names: frozenset[str] | set[str] | list[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _shown(text: str) -> str:
    return ascii(text[:_MAX_SHOWN])
