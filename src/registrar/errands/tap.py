"""The errands `tap` and `top`: requests that Envoy's tap filter shows, of which an allow list of headers leaves.

Envoy shows every header of a request, `authorization` among them, and nothing of its body, because no tap asks for it.
"""

import asyncio
import base64
import binascii
import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct, field

from registrar.errands.admin import ErrandAdmin
from registrar.errands.refused import RefusedError
from registrar.errors import EnvoyAdminError
from registrar.thread_call import call_in_thread
from wire.errand import Requests, Tap, TapResult, Trace, printable

_TAP_TYPE: Final = "envoy.extensions.filters.http.tap.v3.Tap"
_MISSING = (
    "this Envoy has no tap filter; its listeners lack, as the first of http_filters: "
    '{"name": "envoy.filters.http.tap", "typed_config": {"@type": "type.googleapis.com/' + _TAP_TYPE + '", '
    '"common_config": {"admin_config": {"config_id": "NAME"}}}}; generated configurations have it; idle, it is free'
)
_BUSY = "another tap runs on this Envoy, which has one at a time; ask again when it is over, in at most 60 s"
_MAX_SHOWN_BYTES = 200 * 1024
"""Bytes of the requests in a result."""
_ALLOWED: Final[Mapping[str, str]] = {
    ":method": "method",
    ":path": "path",
    ":authority": "authority",
    "x-request-id": "request_id",
    "content-type": "content_type",
    "user-agent": "user_agent",
}
"""The headers of a request that leave the registrar, with the field of a trace that each becomes. No other does."""
_ALLOWED_OF_RESPONSE: Final[Mapping[str, str]] = {
    ":status": "status",
    "content-type": "content_type",
    "x-request-id": "request_id",
    "grpc-status": "grpc_status",
    "x-envoy-upstream-service-time": "upstream_milliseconds",
}
"""The same for the headers and trailers of a response."""
_BEHIND_PATH = re.compile(r"[?#;]|%3F|%23|%3B", re.IGNORECASE)
_MAX_VALUE = 256
"""Characters of a header's value."""


class TapFilter(Struct, frozen=True):
    """A tap filter of an Envoy."""

    config_id: str
    direction: str


class _Header(Struct):
    key: str = ""
    value: str = ""
    raw_value: str = ""


class _Message(Struct):
    headers: list[_Header] = []
    trailers: list[_Header] = []


class _Buffered(Struct):
    request: _Message = field(default_factory=_Message)
    response: _Message = field(default_factory=_Message)


class _Wrapper(Struct):
    http_buffered_trace: _Buffered = field(default_factory=_Buffered)


class _AdminConfig(Struct):
    config_id: str = ""


class _CommonConfig(Struct):
    admin_config: _AdminConfig = field(default_factory=_AdminConfig)


class _TapConfig(Struct):
    common_config: _CommonConfig = field(default_factory=_CommonConfig)


async def look(admin: ErrandAdmin, wanted: Tap, callee: str) -> TapResult:
    """Return the requests that a tap saw.

    Args:
        admin: the Envoy.
        wanted: which requests.
        callee: the service that they are sent to, where this Envoy is its caller's; else empty.

    Raises:
        EnvoyAdminError: Envoy did not answer, or refused.
        RefusedError: it has no tap filter, or another tap runs.
    """
    loop = asyncio.get_running_loop()
    config_id = await choose_filter(admin, wanted, callee)
    began = loop.time()
    traces = await tapped(admin, wanted, callee, config_id, wanted.max_traces, wanted.seconds)
    shown: list[Trace] = []
    room = _MAX_SHOWN_BYTES
    for trace in traces:
        room -= len(msgspec.json.encode(trace))
        if room < 0:
            break
        shown.append(trace)
    seconds = round(loop.time() - began, 1)
    return TapResult(printable(config_id), seconds, wanted.percent, shown, len(traces) - len(shown))


async def tapped(
    admin: ErrandAdmin, wanted: Requests, callee: str, config_id: str, max_traces: int, seconds: int
) -> list[Trace]:
    """Return what one tap saw, until it has as many requests, or the time is over.

    Raises:
        EnvoyAdminError, RefusedError: as ``look``.
    """
    request = msgspec.json.encode(tap_request(wanted, callee, config_id, max_traces, seconds))
    try:
        content = await admin.tap(request, seconds)
    except EnvoyAdminError as error:
        if "already exists" in error.reason:
            raise RefusedError(_BUSY) from error
        if error.status == 404 or "Unknown config id" in error.reason:
            raise RefusedError(_MISSING) from error
        raise
    return list(read_traces(content))


def tap_request(wanted: Requests, callee: str, config_id: str, max_traces: int, seconds: int) -> dict[str, Any]:
    """Return the request of a tap, with each matcher made of a typed value."""
    rules = list(_rules(wanted, callee))
    match = {"any_match": True} if not rules else rules[0] if len(rules) == 1 else {"and_match": {"rules": rules}}
    sampled = {"numerator": max(1, round(wanted.percent * 100)), "denominator": "TEN_THOUSAND"}
    sink = {
        "format": "JSON_BODY_AS_STRING",
        "buffered_admin": {"max_traces": max_traces, "timeout": f"{seconds}s"},
    }
    output = {"sinks": [sink], "max_buffered_rx_bytes": 0, "max_buffered_tx_bytes": 0}
    return {
        "config_id": config_id,
        "tap_config": {"match": match, "tap_enabled": {"default_value": sampled}, "output_config": output},
    }


def _rules(wanted: Requests, callee: str) -> Iterator[dict[str, Any]]:
    if wanted.status:
        digits = wanted.status.replace("x", "[0-9]")
        yield _header_rule("http_response_headers_match", ":status", {"safe_regex": {"regex": digits}})
    if wanted.method:
        yield _header_rule("http_request_headers_match", ":method", {"exact": wanted.method})
    if wanted.path:
        yield _header_rule("http_request_headers_match", ":path", {"prefix": wanted.path})
    if callee:
        # The name that callers write into Host, with a port or a domain behind it where they do.
        host = {"safe_regex": {"regex": f"{re.escape(callee)}([.:].*)?"}}
        yield _header_rule("http_request_headers_match", ":authority", host)


def _header_rule(kind: str, name: str, match: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: {"headers": [{"name": name, "string_match": match}]}}


def read_traces(content: bytes) -> Iterator[Trace]:
    """Yield the traces of Envoy's response, which are JSON documents one behind the other."""
    text = content.decode(errors="replace")
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text):
            return
        try:
            document, at = decoder.raw_decode(text, at)
            wrapper = msgspec.convert(document, _Wrapper)
        except (ValueError, RecursionError):
            # The last one is cut, or Envoy's format is another one.
            return
        yield _trace(wrapper.http_buffered_trace)


def _trace(buffered: _Buffered) -> Trace:
    values: dict[str, str] = {}
    for allowed, headers in (
        (_ALLOWED, buffered.request.headers),
        (_ALLOWED_OF_RESPONSE, (*buffered.response.headers, *buffered.response.trailers)),
    ):
        for header in headers:
            name = allowed.get(header.key.lower())
            if name is not None:
                values[name] = printable(_value(header), _MAX_VALUE)
    values["path"] = without_query(values.get("path", ""))
    # A user name and a password in front of a host are secret.
    values["authority"] = values.get("authority", "").rpartition("@")[2]
    return Trace(**values)


def _value(header: _Header) -> str:
    if header.value or not header.raw_value:
        return header.value
    try:
        return base64.b64decode(header.raw_value).decode(errors="replace")
    except binascii.Error:
        return ""


def without_query(path: str) -> str:
    """Return a path without its query and its parameters, which may be secret, also where they are encoded."""
    return _BEHIND_PATH.split(path, maxsplit=1)[0]


async def choose_filter(admin: ErrandAdmin, wanted: Requests, callee: str) -> str:
    """Return the ``config_id`` of the tap filter that sees what is asked for.

    Raises:
        EnvoyAdminError: Envoy did not answer.
        RefusedError: it has none, or several fit.
    """
    listeners = await admin.config("listeners")
    # As for the errand `config`: megabytes must not keep heartbeats waiting.
    filters = await call_in_thread(lambda: list(find_filters(listeners)))
    names = ", ".join(sorted({each.config_id for each in filters}))
    if not filters:
        raise RefusedError(_MISSING)
    if wanted.config_id:
        if all(each.config_id != wanted.config_id for each in filters):
            raise RefusedError(f"this Envoy has no tap filter {wanted.config_id}; it has {printable(names, 1000)}")
        return wanted.config_id
    # What a caller sends passes its outbound listener; what a service gets, its inbound one, where it has one.
    preferred = {each.config_id for each in filters if (each.direction == "OUTBOUND") == bool(callee)}
    fitting = preferred or {each.config_id for each in filters}
    if len(fitting) > 1:
        raise RefusedError(
            f"this Envoy has the tap filters {printable(names, 1000)}; name one by config_id (registryctl: --config-id)"
        )
    return fitting.pop()


def find_filters(listeners: Sequence[msgspec.Raw]) -> Iterator[TapFilter]:
    """Yield the tap filters of HTTP in a dump of listeners."""
    for listener in listeners:
        document = msgspec.json.decode(listener)
        direction = next((each for each in _values(document, "traffic_direction") if isinstance(each, str)), "")
        for typed in _typed(document):
            with contextlib.suppress(msgspec.ValidationError):
                config_id = msgspec.convert(typed, _TapConfig).common_config.admin_config.config_id
                if config_id:
                    yield TapFilter(config_id, direction)


def _typed(value: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401  # any JSON
    if isinstance(value, dict):
        if str(value.get("@type", "")).endswith(_TAP_TYPE):
            yield value
        for each in value.values():
            yield from _typed(each)
    elif isinstance(value, list):
        for each in value:
            yield from _typed(each)


def _values(value: Any, name: str) -> Iterator[Any]:  # noqa: ANN401  # any JSON
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for each in value.values():
            yield from _values(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each, name)
