"""The types of fields: what texts and numbers of definitions may be, in terms of checks, schemas and tables."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from wire.model import SERVICE_PATTERN

Protocol = Literal["http1", "http2", "grpc", "same"]
"""The protocol of a cluster: ``grpc`` is HTTP/2 with gRPC's rules; ``same`` is what the listener's client speaks."""

Upgrade = Literal["websocket"]
"""The protocols that a connection may change to. Not ``CONNECT``: a tunnel has no routes and no policies."""

DURATION = "duration"
"""Mark (in a type's ``Meta.extra``, as ``form``) of numbers that files write as texts such as ``250ms``."""
PERCENT = "percent"
"""Mark of numbers that have at most four decimals."""

_PORT = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HEADER_LETTER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # of RFC 9110, 5.6.2

Duration = Annotated[float, Meta(ge=0, extra={"form": DURATION})]
PositiveDuration = Annotated[float, Meta(gt=0, extra={"form": DURATION})]
RefreshDelay = Annotated[float, Meta(ge=0.01, extra={"form": DURATION})]
Percent = Annotated[float, Meta(ge=0, le=100, extra={"form": PERCENT})]
Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
ServiceName = Annotated[
    str,
    Meta(
        pattern=SERVICE_PATTERN.removesuffix(r"(?!\n)"),
        title="letters, digits and . _ : @ ~ -, with a letter or digit at its beginning, 255 at most",
        examples=["shop"],
    ),
]
DependencyName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._|:@~-]{0,254}$",
        title="letters, digits and . _ | : @ ~ -, with a letter or digit at its beginning, 255 at most",
        examples=["payments"],
    ),
]
"""A name in Envoy: of a cluster, and so of its statistics."""
HOST = re.compile(r"(\*\.)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}", re.ASCII)
"""The form of a `Host`."""
HOST_TITLE = "a host without scheme, port and path"
Host = Annotated[
    str,
    Meta(
        pattern=r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$",
        title=HOST_TITLE,
        examples=["shop", "*.shop.example"],
    ),
]
HostPort = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]+\]):" + _PORT + "$",
        title="host:port without a scheme, with a port from 1 to 65535",
        examples=["api.payments.example:443"],
    ),
]
EdgeAddress = Annotated[
    str,
    Meta(
        pattern=r"^(unix:/[^\x00-\x1f\x7f]+|(127\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}|\[::1\]):" + _PORT + ")$",
        title="a port at loopback, or unix: with the path of a socket",
        examples=["127.0.0.1:9903", "unix:/run/registrar/edge.sock"],
    ),
]
HeaderName = Annotated[
    str,
    Meta(
        pattern=rf"^{_HEADER_LETTER}+$",
        title="the name of a header: no spaces, no colon",
        examples=["x-user"],
    ),
]
HeaderValue = Annotated[
    str,
    Meta(
        pattern=r"^[^\x00-\x1f\x7f]{0,8192}$",
        title="a text without control characters, of 8,192 characters at most",
        examples=["web"],
    ),
]
HostHeader = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.-]{1,253}(:" + _PORT + ")?$",
        title="a host, with a port or without",
        examples=["user.internal"],
    ),
]
CookieName = Annotated[str, Meta(pattern=rf"^{_HEADER_LETTER}+$", title="the name of a cookie", examples=["canary"])]
Text = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]+$", title="a text that is not empty, without control characters", examples=["a"]),
]
File = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]+$", title="a path on the machine of the Envoy", examples=["/etc/tls/ca.pem"]),
]
Path = Annotated[
    str,
    Meta(
        pattern=r"^/[^?#\s\x00-\x1f\x7f]*$",
        title="a path that begins with / and has no query",
        examples=["/api"],
    ),
]
Method = Annotated[str, Meta(pattern=r"^[A-Z][A-Z_-]*$", title="an HTTP method in capitals", examples=["GET"])]
RETRY_CONDITIONS = (
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "envoy-ratelimited",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
)
"""Envoy's retry conditions, but for ``retriable-headers``, which needs headers that no definition names."""
GRPC_CONDITIONS = frozenset({"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"})
"""Conditions that only an answer with a grpc-status meets."""
SAFE_CONDITIONS = frozenset({"connect-failure", "refused-stream", "reset-before-request"})
"""Conditions that show that no app can have begun the request; they hold for every method."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that may be repeated for every condition."""
Condition = Annotated[str, Meta(extra_json_schema={"enum": list(RETRY_CONDITIONS)})]

RESERVED_CLUSTERS = frozenset({"registry", "tracing", "envoy-admin", "local-service"})
"""Names of clusters in the bootstrap: Envoy acknowledges a cluster of CDS with such a name, and ignores it."""
