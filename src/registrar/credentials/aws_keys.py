"""The keys of this process's AWS role, from the sources that every AWS SDK asks, in the same order.

They are fetched for each login and not kept: the agents renew them before they expire, and a login is rare.
"""

import asyncio
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from registrar.credentials.sigv4 import AwsKeys
from registrar.errors import AwsIdentityUnavailable, MetadataUnavailable
from registrar.identity import lenient
from registrar.identity.exchange import exchange
from registrar.identity.imds import DISABLED, Imds, TokenLost, endpoint
from registrar.jitter import phase

ACCESS_KEY = "AWS_ACCESS_KEY_ID"
SECRET_KEY = "AWS_SECRET_ACCESS_KEY"  # noqa: S105 - the name of a variable
SESSION_TOKEN = "AWS_SESSION_TOKEN"  # noqa: S105 - as above
RELATIVE_URI = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
FULL_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
AUTHORIZATION = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
AUTHORIZATION_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
VARIABLES = (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, RELATIVE_URI, FULL_URI, AUTHORIZATION, AUTHORIZATION_FILE)
_ECS_AGENT = "http://169.254.170.2"
# The agents of ECS and EKS, to which an SDK sends the authorization token over plain HTTP; loopback is allowed too.
_AGENTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
_TIMEOUT = 2.0
"""Seconds for the response of a container's credentials endpoint."""
_ATTEMPTS = 3
_MIN_PAUSE = 0.1
_MAX_REASON_LENGTH = 200
_NO_ROLE = "give the task a role (taskRoleArn), the instance an instance profile, or set AWS_ACCESS_KEY_ID"

_HOP_LIMIT = "a container needs HttpPutResponseHopLimit=2 in the instance's metadata options to ask IMDSv2"


class KeysDocument(Struct, frozen=True, rename="pascal"):
    """The fields that are read of a credentials document of ECS, EKS or IMDS."""

    access_key_id: str = ""
    secret_access_key: str = ""
    token: str = ""
    message: str = ""


class KeySource(Struct, frozen=True):
    """A place that has keys.

    Attributes:
        name: the variable or service that it is named by, for messages.
        url: the container's credentials endpoint; empty for other sources.
    """

    name: str
    url: str = ""


ENVIRONMENT = KeySource(ACCESS_KEY)
INSTANCE = KeySource("IMDSv2")


def key_source(environ: Mapping[str, str]) -> KeySource:
    """Return the first source that the environment names, or else the EC2 instance.

    Raises:
        AwsIdentityUnavailable: a variable cannot be used.
    """
    if environ.get(ACCESS_KEY) or environ.get(SECRET_KEY):
        missing = next((name for name in (ACCESS_KEY, SECRET_KEY) if not environ.get(name)), "")
        if missing:
            raise AwsIdentityUnavailable(f"{missing} is not set beside its twin", f"set {missing} too, or neither")
        return ENVIRONMENT
    if relative := environ.get(RELATIVE_URI):
        return KeySource(RELATIVE_URI, _checked_url(RELATIVE_URI, f"{_ECS_AGENT}{relative}"))
    if full := environ.get(FULL_URI):
        return KeySource(FULL_URI, _checked_url(FULL_URI, full))
    if not endpoint(environ):
        raise AwsIdentityUnavailable(f"no source of keys is named, and {DISABLED} is set", _NO_ROLE)
    return INSTANCE


async def find_keys(environ: Mapping[str, str]) -> AwsKeys:
    """Return the keys of this process's role as they are now.

    Raises:
        AwsIdentityUnavailable: no source has keys, or its response cannot be used.
    """
    source = key_source(environ)
    if source is ENVIRONMENT:
        return _keys(
            KeysDocument(environ[ACCESS_KEY], environ[SECRET_KEY], environ.get(SESSION_TOKEN, "")), source.name
        )
    if source is INSTANCE:
        return await _from_instance(environ)
    return _keys(_read(await _ask(source, _authorization(environ)), source.name), source.name)


async def _from_instance(environ: Mapping[str, str]) -> AwsKeys:
    try:
        body = await Imds(endpoint(environ)).role_keys()
    except TokenLost as error:
        raise AwsIdentityUnavailable(f"{INSTANCE.name}: {error}", f"{_NO_ROLE}; {_HOP_LIMIT}") from error
    except MetadataUnavailable as error:
        raise AwsIdentityUnavailable(f"{INSTANCE.name}: {error}", _NO_ROLE) from error
    return _keys(_read(body, INSTANCE.name), INSTANCE.name)


async def _ask(source: KeySource, headers: Mapping[str, str]) -> bytes:
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            await asyncio.sleep(phase(_MIN_PAUSE * 2**attempt))
        try:
            response = await exchange("GET", source.url, headers, _TIMEOUT)
        except (OSError, ValueError) as error:
            reason = str(error) or f"no answer within {_TIMEOUT:g}s"
            continue
        if response.status == 200:
            return response.body
        reason = f"{response.status} {response.text[:_MAX_REASON_LENGTH]}".strip()
        if response.status != 429 and response.status < 500:
            break
    raise AwsIdentityUnavailable(f"{source.name}: {reason}", "see whether the agent at that address is well")


def _authorization(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the header that the credentials endpoint wants; the file is read each time, since EKS rotates it."""
    token = environ.get(AUTHORIZATION, "")
    if path := environ.get(AUTHORIZATION_FILE):
        try:
            token = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise AwsIdentityUnavailable(f"{AUTHORIZATION_FILE}: {path}: {reason}", "let this user read it") from error
    if not (token.isascii() and token.isprintable()):
        # An error of the request would quote it.
        name = AUTHORIZATION_FILE if environ.get(AUTHORIZATION_FILE) else AUTHORIZATION
        raise AwsIdentityUnavailable(f"{name}: it is no header's value", f"correct {name}; the agent sets it")
    return {"authorization": token} if token else {}


def _checked_url(variable: str, url: str) -> str:
    """Return the URL of a credentials endpoint to which an SDK would send the authorization token.

    Raises:
        AwsIdentityUnavailable: keys must not come from there.
    """
    try:
        parts = urlsplit(url)
        allowed = parts.scheme == "http" and _trusted(parts.hostname or "") and parts.port != 0
        allowed = allowed and "@" not in parts.netloc and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        allowed = False
    if not allowed:
        raise AwsIdentityUnavailable(
            f"{variable}: keys are fetched from http:// at loopback or at the agent of ECS or EKS alone",
            f"correct {variable}; the agent sets it",
        )
    return url


def _trusted(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or str(address) in _AGENTS


def _read(body: bytes, source: str) -> KeysDocument:
    try:
        return lenient.read(body, KeysDocument)
    except msgspec.DecodeError as error:
        raise AwsIdentityUnavailable(f"{source}: the answer is no JSON object", "see what answers there") from error


def _keys(document: KeysDocument, source: str) -> AwsKeys:
    keys = (document.access_key_id, document.secret_access_key)
    if not all(keys):
        reason = document.message[:_MAX_REASON_LENGTH] or "the answer has no keys"
        raise AwsIdentityUnavailable(f"{source}: {reason}", _NO_ROLE)
    # They become header values; the message must not contain them.
    if not all(text.isascii() and text.isprintable() and " " not in text for text in (*keys, document.token)):
        raise AwsIdentityUnavailable(f"{source}: the keys have characters that no keys have", f"correct {source}")
    return AwsKeys(*keys, document.token)
