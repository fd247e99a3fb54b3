"""Filters whose settings a route brings along: faults, strict sessions, rate limits."""

from math import ceil

from meshconfig.definition.fault_injection import FaultInjection
from meshconfig.definition.rate_limit import RateLimit
from meshconfig.definition.sticky import Sticky
from meshconfig.proto_json import Document, duration, extension, fraction, typed

FAULT = "envoy.filters.http.fault"
SESSION = "envoy.filters.http.stateful_session"
RATE_LIMIT = "envoy.filters.http.local_ratelimit"

_FAULT_TYPE = "envoy.extensions.filters.http.fault.v3.HTTPFault"
_SESSION_TYPE = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
_SESSION_ROUTE = "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"
_COOKIE_SESSION = "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
_HEADER_SESSION = "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState"
_RATE_LIMIT_TYPE = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_MIN_FILL = 0.05
"""Seconds between two fills of a token bucket, the shortest that Envoy takes."""
_MAX_CLIENTS = 10_000
"""Clients whose buckets are kept at once; Envoy's own default is 20."""


def fault_filter() -> Document:
    """Return the filter that injects the faults of routes; without it in the chain they are silently ignored."""
    return extension(FAULT, _FAULT_TYPE)


def fault_of_route(fault: FaultInjection) -> Document:
    """Return the settings of the fault filter for one route."""
    document: Document = {}
    if fault.abort is not None:
        document["abort"] = {"http_status": fault.abort.status, "percentage": fraction(fault.abort.percent)}
    if fault.delay is not None:
        document["delay"] = {
            "fixed_delay": duration(fault.delay.time),
            "percentage": fraction(fault.delay.percent),
        }
    if fault.only is not None:
        document["headers"] = [{"name": fault.only.header, "string_match": {"exact": fault.only.value}}]
    return typed(_FAULT_TYPE, document)


def session_filter() -> Document:
    """Return the filter that keeps the sessions of routes at their endpoints, once they bring settings."""
    return extension(SESSION, _SESSION_TYPE)


def has_session(sticky: Sticky | None) -> bool:
    """Tell whether requests carry the endpoint that they belong to, instead of being hashed; an address cannot."""
    return sticky is not None and sticky.strict and sticky.by != "source_ip"


def session_of_route(sticky: Sticky) -> Document:
    """Return the settings of the session filter for one route."""
    name = sticky.name or "session"
    if sticky.by == "header":
        state = extension("envoy.http.stateful_session.header", _HEADER_SESSION, {"name": name})
    else:
        cookie = {"name": name, "path": "/", "ttl": duration(sticky.ttl or 0.0)}
        state = extension("envoy.http.stateful_session.cookie", _COOKIE_SESSION, {"cookie": cookie})
    return typed(_SESSION_ROUTE, {"stateful_session": {"session_state": state}})


def rate_limit_filter(stat_prefix: str) -> Document:
    """Return the filter that enforces the rate limits of routes; without their settings it does nothing."""
    return extension(RATE_LIMIT, _RATE_LIMIT_TYPE, {"stat_prefix": stat_prefix})


def rate_limit_of_route(limit: RateLimit, stat_prefix: str) -> Document:
    """Return the settings of the rate limit filter for one route.

    Requests that lack the header by which clients are counted share one bucket.
    """
    tokens = max(1, ceil(limit.per_second * _MIN_FILL - 1e-9))
    bucket = {
        "max_tokens": max(tokens, limit.burst or ceil(limit.per_second)),
        "tokens_per_fill": tokens,
        "fill_interval": duration(tokens / limit.per_second),
    }
    always = {"default_value": {"numerator": 100}}
    document: Document = {
        "stat_prefix": stat_prefix,
        "token_bucket": bucket,
        # Envoy's default of both is 0 %.
        "filter_enabled": always,
        "filter_enforced": always,
    }
    if limit.by != "none":
        source: Document = {"remote_address": {}}
        header = {"request_headers": {"header_name": limit.header, "descriptor_key": "client"}}
        client, key = (source, "remote_address") if limit.by == "source_ip" else (header, "client")
        document["rate_limits"] = [{"actions": [client]}]
        # An entry without a value makes a bucket for each value.
        document["descriptors"] = [{"entries": [{"key": key}], "token_bucket": bucket}]
        document["always_consume_default_token_bucket"] = False
        document["max_dynamic_descriptors"] = _MAX_CLIENTS
    return typed(_RATE_LIMIT_TYPE, document)
