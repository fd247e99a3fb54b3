"""The types of settings: how the text of a variable is read, and what is refused."""

import ipaddress
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    IPvAnyNetwork,
    SecretStr,
    ValidationInfo,
)
from pydantic_settings import NoDecode

from registry.database_url import check_url
from registry.link_template import ENDPOINT_PLACEHOLDERS, SERVICE_PLACEHOLDERS, LinkTemplate
from wire.address import parse_port
from wire.aws_partition import partition_of
from wire.duration import parse_duration

_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")

_LOAD_BALANCER = re.compile(
    r"arn:(?P<partition>aws|aws-us-gov):elasticloadbalancing:(?P<region>[a-z0-9-]{1,32}):[0-9]{12}:"
    r"loadbalancer/app/[A-Za-z0-9-]{1,32}/[0-9a-f]{16}"
)

BUCKET = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>[^\x00-\x1f\x7f]{0,512}))?")
"""The URL of a bucket, with a prefix or without."""

_AUDIENCE = re.compile(r"[!-~]{1,255}")

OIDC_CALLBACK = "/ui/login/oidc/callback"
"""The path to which a sign-in provider sends people back."""


def _seconds(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


def _listen(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{value!r} is no host:port, like 127.0.0.1:8080 or [::1]:8080")
    parse_port(port)
    if host == "*":
        raise ValueError(f"{value!r} names no address; all addresses are 0.0.0.0:{port} (IPv4) or [::]:{port} (both)")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{value!r}: an IPv6 address is written in brackets, like [::1]:{port}")
    return value


def _optional_listen(value: str | None) -> str | None:
    return None if value is None else _listen(value)


def _listen_or_off(value: str | None) -> str | None:
    return None if value in {None, "off"} else _optional_listen(value)


def _comma_separated(value: object) -> object:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


def _blank_separated(value: object) -> object:
    return value.split() if isinstance(value, str) else value


def _host_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_host_name(name) for name in names)


def _host_name(name: str) -> str:
    if not name.isascii():
        raise ValueError(f"{name!r} has to be written as browsers send it: in ASCII, beginning with xn--")
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no host name, like registry.example.com: without scheme, port, path and wildcard"
        )
    return name.removesuffix(".").lower()


def _database_url(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        check_url(value.get_secret_value())
    return value


def _service_links(links: tuple[str, ...]) -> tuple[str, ...]:
    return _links(links, SERVICE_PLACEHOLDERS)


def _endpoint_links(links: tuple[str, ...]) -> tuple[str, ...]:
    return _links(links, ENDPOINT_PLACEHOLDERS)


def _links(links: tuple[str, ...], allowed: frozenset[str]) -> tuple[str, ...]:
    names = [LinkTemplate.parse(link, allowed).name for link in links]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"there are two links {twice}; each needs a name of its own")
    return links


def check_publish_place(text: str) -> str:
    """Return the name of a place to publish to.

    Raises:
        ValueError: it is neither an absolute path nor the URL of a bucket.
    """
    if not text.startswith("/") and not BUCKET.fullmatch(text):
        raise ValueError(
            f"{text[:200]!r} is no absolute path of a directory, like /srv/fallback, and no s3://bucket/prefix"
        )
    return text


def _audiences(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _AUDIENCE.fullmatch(name):
            raise ValueError(f"{name[:80]!r} has to be 1 to 255 printable ASCII characters without blanks")
    return names


def _regions(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if partition_of(name) is None:
            raise ValueError(
                f"{name[:80]!r} is no region like eu-west-1 of the partitions aws, aws-cn and aws-us-gov, whose "
                "endpoints are known"
            )
    return names


def _with_audience(regions: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    # A field that is wrong itself is not in the data.
    if regions and info.data.get("aws_audience", "wrong") == ():
        raise ValueError(
            "AWS login needs REGISTRY_AWS_AUDIENCE too, a name that this installation alone has, like "
            "headcount-production"
        )
    return regions


def _sts_endpoint(value: str | None) -> str | None:
    """Refuse an endpoint that somebody between could answer for, and parts of a URL that would be ignored."""
    if value is None:
        return None
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
        # Not quoted: it may have a password.
        raise ValueError("has to be a URL like https://sts.eu-west-1.amazonaws.com, without user, query and fragment")
    if url.path not in ("", "/"):
        raise ValueError(f"{value!r} has a path; requests to STS have none")
    if url.port == 0:
        raise ValueError(f"{value!r} has no port that can be connected to")
    if url.scheme == "http" and not listens_on_loopback(f"{url.hostname}:80"):
        raise ValueError(f"{value!r} has to begin with https://: who answers for STS decides who is who")
    return value.removesuffix("/")


def _load_balancer(value: str | None) -> str | None:
    """Refuse what is no load balancer that can sign people in, and regions whose keys are at no known place."""
    if value is None:
        return None
    named = _LOAD_BALANCER.fullmatch(value)
    partition = partition_of(named["region"]) if named else None
    if named is None or partition is None or partition.name != named["partition"] or partition.name == "aws-cn":
        raise ValueError(
            f"{value[:200]!r} is no ARN like arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/app/name/"
            "0123456789abcdef, of the partitions aws and aws-us-gov, whose keys are at a known place"
        )
    return value


def _keys_endpoint(value: str | None) -> str | None:
    if value is None:
        return None
    _check_party(value)
    url = urlsplit(value)
    if not listens_on_loopback(f"{url.hostname}:80") or url.path not in ("", "/"):
        raise ValueError(f"{value!r} has to be on loopback, without a path: who has the keys decides who is who")
    return value.removesuffix("/")


def _issuer(value: str | None) -> str | None:
    if value is not None:
        _check_party(value)
    return value


def _redirect(value: str | None) -> str | None:
    if value is not None:
        _check_party(value)
        if urlsplit(value).path != OIDC_CALLBACK:
            raise ValueError(f"{value!r} has to end with {OIDC_CALLBACK}, where people come back to")
    return value


def _check_party(value: str) -> None:
    """Refuse a URL for which somebody between could answer, and parts that would be ignored."""
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
        # Not quoted: it may have a password.
        raise ValueError("has to be a URL like https://login.example.com/realm, without user, query and fragment")
    if url.scheme == "http" and not listens_on_loopback(f"{url.hostname}:80"):
        raise ValueError(f"{value!r} has to begin with https://: who answers for it decides who is who")


def listens_on_loopback(listen: str) -> bool:
    """Return whether a listen address can be reached from its own machine only."""
    host = listen.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Duration = Annotated[float, BeforeValidator(_seconds)]
HostNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_host_names)]
AuditVerb = Literal["discover", "read", "register", "operate", "configure", "inspect", "debug", "observe"]
"""The verbs of ``registry.auth.verbs`` but ``admin``, whose refusals are always enforced; a test compares them."""
Verbs = Annotated[tuple[AuditVerb, ...], NoDecode, BeforeValidator(_comma_separated)]
Audiences = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_audiences)]
Links = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_blank_separated)]
Regions = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated), AfterValidator(_regions)]
Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_comma_separated)]
PublishPlace = Annotated[str, AfterValidator(lambda text: text and check_publish_place(text))]
OptionalListen = Annotated[str | None, AfterValidator(_optional_listen)]
ListenOrOff = Annotated[str | None, AfterValidator(_listen_or_off)]
Issuer = Annotated[str | None, AfterValidator(_issuer)]
Redirect = Annotated[str | None, AfterValidator(_redirect)]
LoadBalancerArn = Annotated[str | None, AfterValidator(_load_balancer)]
KeysEndpoint = Annotated[str | None, AfterValidator(_keys_endpoint)]
DatabaseUrlSecret = Annotated[SecretStr | None, AfterValidator(_database_url)]
StsEndpoint = Annotated[str | None, AfterValidator(_sts_endpoint)]
LoginRegions = Annotated[Regions, AfterValidator(_with_audience)]
ServiceLinks = Annotated[Links, AfterValidator(_service_links)]
EndpointLinks = Annotated[Links, AfterValidator(_endpoint_links)]
