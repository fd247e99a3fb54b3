"""Routes: which requests go to which cluster, and the policies of each. A dependency is a virtual host."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from math import gcd

import msgspec
from msgspec import Raw, Struct, structs

from meshconfig.authentication import Guards
from meshconfig.cluster import config_source, host_port, name_of, speaks_http2, versions_name
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.header_changes import HeaderChanges
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.policies import RoutePolicies
from meshconfig.definition.retry import Retry
from meshconfig.definition.route import HeaderMatch, Rewrite, Route
from meshconfig.definition.sticky import Sticky
from meshconfig.field_types import SAFE_CONDITIONS, SAFE_METHODS
from meshconfig.policy_filters import (
    FAULT,
    RATE_LIMIT,
    SESSION,
    fault_of_route,
    has_session,
    rate_limit_of_route,
    session_of_route,
)
from meshconfig.proto_json import Document, duration, extension, fraction, literal
from meshconfig.resource import Resource, make_resource

ROUTES = "default"
"""The name of the one RouteConfiguration of a caller."""

_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_STREAM_IDLE_TIMEOUT = 300.0
"""Seconds after which listeners end an idle stream, unless its route says otherwise."""
_WEBSOCKET_IDLE_TIMEOUT = 3600.0
"""Seconds after which a websocket without messages ends, unless its route says otherwise: those of TCP in Envoy."""
_MIN_SHARING = 2
"""Routes of a virtual host that have the same retry policy, from which on it stands there once."""
_NO_RETRIES = b"null"
_STATUS_CODES, _GATEWAY_ERROR = "retriable-status-codes", "gateway-error"
_GATEWAY_ERRORS = frozenset({502, 503, 504})
"""The statuses that ``gateway-error`` means."""
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9]+")


class Way(Struct, frozen=True):
    """The targets of the routes of one dependency.

    Attributes:
        dependency: its effective values.
        clusters: the cluster of each service that splits and shadows of its routes name.
        guards: at gateways and edges, the authentication of the listener; there rate limits can be enforced, too.
        separated: whether a prefix ends at a segment of the path: ``/api`` takes ``/api/x`` and not ``/apix``.
    """

    dependency: Dependency
    clusters: Mapping[str, str] = {}
    guards: Guards | None = None
    separated: bool = False


def named_services(routes: Collection[Route]) -> Iterator[str]:
    """Yield the services that splits and shadows of routes lead to."""
    for route in routes:
        if route.split is not None:
            yield from route.split
        if route.shadow is not None:
            yield route.shadow.service


def version_keys(routes: Collection[Route]) -> tuple[tuple[str, ...], ...]:
    """Return the sets of metadata keys by which routes choose a version, in order."""
    return tuple(sorted({tuple(sorted(route.version)) for route in routes if route.version}))


def uses(routes: Iterable[tuple[Way, Route]]) -> frozenset[str]:
    """Return the clusters that routes send requests to."""
    names: set[str] = set()
    for way, route in routes:
        names.update(way.clusters[service] for service in named_services((route,)))
        if route.split is None:
            cluster = name_of(way.dependency)
            names.add(versions_name(cluster) if route.version else cluster)
    return frozenset(names)


def route_table(name: str, hosts: Sequence[Document | Raw], used: Iterable[str]) -> Resource:
    """Return the RouteConfiguration of these virtual hosts."""
    document = {"name": name, "ignore_port_in_host_matching": True, "virtual_hosts": hosts}
    return make_resource("routes", document, uses=tuple(sorted(set(used))))


def virtual_host(way: Way) -> Document:
    """Return the virtual host of a dependency: its hosts, header changes and routes."""
    dependency, routes = way.dependency, own_routes(way)
    document: Document = {
        "name": dependency.name,
        "domains": list(dependency.hosts or (dependency.name,)),
        **_with_shared_retries(route_list(routes)),
        **header_changes(dependency.headers),
    }
    if not any(takes_all(route) for _, route in routes):
        sentence = f"{dependency.name} has routes, but none for this path, method or header"
        document["routes"].append(answer(404, sentence, way.guards))
    return document


def routes_of(dependency: Dependency) -> tuple[Route, ...]:
    """Return the routes of a dependency; without any, one that takes everything with its policies."""
    if dependency.routes:
        return dependency.routes
    return (
        Route(
            prefix="/",
            timeout=dependency.timeout,
            idle_timeout=dependency.idle_timeout,
            retry=dependency.retry,
            shadow=dependency.shadow,
            fault=dependency.fault,
            rate_limit=dependency.rate_limit,
            auth=dependency.auth,
            upgrade=dependency.upgrade,
        ),
    )


def own_routes(way: Way) -> list[tuple[Way, Route]]:
    """Return the routes of a dependency with their targets."""
    return [(way, route) for route in routes_of(way.dependency)]


def takes_all(route: Route) -> bool:
    """Tell whether every request matches a route."""
    return route.prefix == "/" and not (route.methods or route.headers or route.cookie or route.query)


def route_list(routes: Iterable[tuple[Way, Route]]) -> list[Document]:
    """Return the routes in Envoy's form: two of each whose retries depend on the method, and one for websockets."""
    taken: set[str] = set()
    documents: list[Document] = []
    for way, route in routes:
        prefix = _stat_prefix(route, taken)
        taken.add(prefix)
        if takes_websockets(way.dependency, route):
            documents.append(_websockets(way, route, f"{prefix}_websocket"))
        documents += _split_by_method(way, route, prefix)
    return documents


def _with_shared_retries(routes: list[Document]) -> Document:
    """Return routes, and beside them the retry policy that most have, which then stands in these no more.

    A route without retries has an empty policy instead, which is the same to Envoy as none. The policy of a route
    replaces that of its virtual host whole.
    """
    policies = Counter(msgspec.json.encode(route["route"].get("retry_policy"), order="sorted") for route in routes)
    del policies[_NO_RETRIES]
    shared, count = max(policies.items(), key=lambda each: (each[1], each[0]), default=(_NO_RETRIES, 0))
    if count < _MIN_SHARING:
        return {"routes": routes}
    policy: Document = msgspec.json.decode(shared)
    for route in routes:
        action: Document = route["route"]
        if "retry_policy" not in action:
            action["retry_policy"] = {}
        elif action["retry_policy"] == policy:
            del action["retry_policy"]
    return {"retry_policy": policy, "routes": routes}


def answer(status: int, sentence: str, guards: Guards | None = None) -> Document:
    """Return a route that answers everything with a sentence; gRPC clients get it as their status message."""
    document: Document = {
        "match": {"prefix": "/"},
        "direct_response": {"status": status, "body": {"inline_string": f"{sentence}\n"}},
    }
    settings = guards.of_route(None) if guards is not None else {}
    return {**document, "typed_per_filter_config": settings} if settings else document


def other_hosts(*routes: Document) -> Document:
    """Return the virtual host of all hosts that no other one names."""
    return {"name": "*", "domains": ["*"], "routes": list(routes)}


def header_changes(changes: HeaderChanges) -> Document:
    """Return the changes of request headers, in the order of the headers' names."""
    added = [
        {"header": {"key": name, "value": literal(value)}, "append_action": action}
        for action, headers in (
            ("OVERWRITE_IF_EXISTS_OR_ADD", changes.set),
            ("APPEND_IF_EXISTS_OR_ADD", changes.add),
        )
        for name, value in sorted(headers.items())
    ]
    document: Document = {"request_headers_to_add": added} if added else {}
    if changes.remove:
        document["request_headers_to_remove"] = list(changes.remove)
    return document


def served_routes(mesh: Mesh, name: str, initial_fetch_timeout: float = 0.0) -> Document:
    """Return the ``rds`` of a listener: the RouteConfiguration of this name, as the registries serve it."""
    return {"config_source": config_source(mesh, initial_fetch_timeout), "route_config_name": name}


def _split_by_method(way: Way, route: Route, stat_prefix: str) -> Iterator[Document]:
    retry = route.retry if route.retry is not None and route.retry.attempts > 1 else None
    if retry is None:
        yield _document(way, route, stat_prefix, route.methods, None)
        return
    repeatable = (*sorted(SAFE_METHODS), *(method for method in retry.idempotent if method not in SAFE_METHODS))
    first = tuple(method for method in repeatable if not route.methods or method in route.methods)
    rest = tuple(method for method in route.methods if method not in repeatable)
    if first:
        yield _document(way, route, stat_prefix, first, _full_retries(retry, route.timeout), hedge=retry.hedge)
    if rest or not route.methods:
        yield _document(way, route, stat_prefix, rest, _careful_retries(retry))


def takes_websockets(dependency: Dependency, route: RoutePolicies) -> bool:
    """Tell whether a route of a dependency takes handshakes of websockets, which are requests of HTTP/1.1."""
    return bool(route.upgrade) and not speaks_http2(dependency.protocol)


def _websockets(way: Way, route: Route, stat_prefix: str) -> Document:
    """Return the route of the handshakes among the requests that a route takes.

    Envoy's timeout ends with the response to the handshake, as does every retry; then the idle timeout alone counts.
    A handshake is repeated where no app can have begun it. It is not copied to a shadow, which would get none of the
    messages behind it (all measured with Envoy 1.40).
    """
    document = _document(
        way, structs.replace(route, shadow=None), stat_prefix, route.methods, _handshake_retries(route)
    )
    document["match"].setdefault("headers", []).append(_HANDSHAKE)
    idle_timeout = _WEBSOCKET_IDLE_TIMEOUT if route.idle_timeout is None else route.idle_timeout
    document["route"] |= {
        "timeout": duration(route.timeout),
        "idle_timeout": duration(idle_timeout),
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    return document


_HANDSHAKE: Document = {"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}
"""The condition on headers that a handshake of a websocket meets, and no other request."""


def _handshake_retries(route: Route) -> Document | None:
    retry = route.retry
    return None if retry is None or retry.attempts == 1 else _careful_retries(retry)


def _document(
    way: Way,
    route: Route,
    stat_prefix: str,
    methods: tuple[str, ...],
    retries: Document | None,
    *,
    hedge: bool = False,
) -> Document:
    action = {
        **_target(way, route),
        **_timeouts(route, way.dependency),
        **_host_rewrite(way.dependency),
        **_path_rewrite(route),
        **_hashing(way.dependency.sticky),
        **_shadow(way, route),
    }
    if retries is not None:
        action["retry_policy"] = retries
    if hedge:
        action["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    document = {"match": _match(way, route, methods), "route": action, "stat_prefix": stat_prefix}
    settings = _filter_settings(way, route, stat_prefix)
    return {**document, "typed_per_filter_config": settings} if settings else document


def _filter_settings(way: Way, route: Route, stat_prefix: str) -> Document:
    settings: Document = {}
    if route.fault is not None:
        settings[FAULT] = fault_of_route(route.fault)
    sticky = way.dependency.sticky
    if sticky is not None and has_session(sticky):
        settings[SESSION] = session_of_route(sticky)
    if way.guards is not None:
        settings |= way.guards.of_route(route.auth)
        if route.rate_limit is not None:
            settings[RATE_LIMIT] = rate_limit_of_route(route.rate_limit, stat_prefix)
    return settings


def _target(way: Way, route: Route) -> Document:
    cluster = name_of(way.dependency)
    if route.split is not None:
        return {"weighted_clusters": {"clusters": _weights(way, route.split)}}
    if not route.version:
        return {"cluster": cluster}
    # A version without endpoints falls back to all of them at once; one without healthy ones by the second choice.
    wanted = {"fallback_list": [dict(sorted(route.version.items())), {}]}
    return {"cluster": versions_name(cluster), "metadata_match": {"filter_metadata": {"envoy.lb": wanted}}}


def _weights(way: Way, split: Mapping[str, float]) -> list[Document]:
    weights = {service: round(percent * 10_000) for service, percent in sorted(split.items())}
    unit = reduce(gcd, weights.values()) or 1
    return [{"name": way.clusters[service], "weight": weight // unit} for service, weight in weights.items()]


def _timeouts(route: Route, dependency: Dependency) -> Document:
    if dependency.protocol == "grpc":
        # The client's grpc-timeout rules below the route's; what exceeds them gets DEADLINE_EXCEEDED, not UNAVAILABLE.
        most = {"max_stream_duration": duration(route.timeout)} if route.timeout else {}
        document: Document = {
            "timeout": "0s",
            "max_stream_duration": {"grpc_timeout_header_max": duration(route.timeout), **most},
        }
    else:
        document = {"timeout": duration(route.timeout)}
    if route.idle_timeout is not None:
        document["idle_timeout"] = duration(route.idle_timeout)
    elif not route.timeout or route.timeout >= _STREAM_IDLE_TIMEOUT:
        # The listener's would cut a request that waits for its response.
        document["idle_timeout"] = duration(route.timeout + 5.0 if route.timeout else 0.0)
    return document


def _host_rewrite(dependency: Dependency) -> Document:
    if dependency.host_header is not None:
        # Never host_rewrite: since Envoy 1.37 that is a format string.
        return {"host_rewrite_literal": dependency.host_header}
    return {"auto_host_rewrite": True} if dependency.service is None and host_port(dependency)[0] else {}


def _path_rewrite(route: Route) -> Document:
    rewrite = route.rewrite or Rewrite()
    if rewrite.path is not None:
        # The query stays.
        return {"regex_rewrite": {"pattern": {"regex": "^[^?]*"}, "substitution": _substitution(rewrite.path)}}
    if rewrite.prefix is None:
        return {}
    if rewrite.prefix.endswith("/") and route.prefix is not None and not route.prefix.endswith("/"):
        # /api/x would become //x where /api is replaced by / alone.
        pattern = f"^{re.escape(route.prefix)}/?"
        return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": _substitution(rewrite.prefix)}}
    return {"prefix_rewrite": rewrite.prefix}


def _substitution(text: str) -> str:
    """Return the substitution that is a text itself: a backslash would begin a reference to a group."""
    return text.replace("\\", "\\\\")


def _hashing(sticky: Sticky | None) -> Document:
    if sticky is None or has_session(sticky):
        return {}
    match sticky.by:
        case "header":
            policy: Document = {"header": {"header_name": sticky.name}}
        case "cookie":
            # A lifetime of 0s makes a cookie that ends with the browser's session.
            cookie = {"name": sticky.name or "session", "ttl": duration(sticky.ttl or 0.0), "path": "/"}
            policy = {"cookie": cookie}
        case _:
            policy = {"connection_properties": {"source_ip": True}}
    return {"hash_policy": [policy]}


def _shadow(way: Way, route: Route) -> Document:
    if route.shadow is None:
        return {}
    share = {"default_value": fraction(route.shadow.percent)}
    return {"request_mirror_policies": [{"cluster": way.clusters[route.shadow.service], "runtime_fraction": share}]}


def _full_retries(retry: Retry, timeout: float) -> Document:
    conditions = _shortest(retry)
    document = {"retry_on": ",".join(conditions), **_retries(retry)}
    if _STATUS_CODES in conditions:
        document["retriable_status_codes"] = list(retry.statuses)
    # Envoy ignores one that is not shorter than the timeout of the whole.
    if retry.per_try_timeout and (not timeout or retry.per_try_timeout < timeout):
        document["per_try_timeout"] = duration(retry.per_try_timeout)
    return document


def _shortest(retry: Retry) -> tuple[str, ...]:
    """Return the shortest list of conditions with the effect of those of a policy, in their order.

    Envoy tries again after every reset, before and after it has sent the request, for each of ``reset``, ``5xx`` and
    ``gateway-error``, and ``gateway-error`` means the statuses 502, 503 and 504 (``RetryStateImpl``, Envoy 1.36 to
    1.40). An Envoy has forty such lists, and each is compared, sent and parsed.
    """
    conditions = retry.when
    if {"reset", _STATUS_CODES} <= set(conditions) and set(retry.statuses) == _GATEWAY_ERRORS:
        rest = (condition for condition in conditions if condition not in ("reset", _STATUS_CODES, _GATEWAY_ERROR))
        conditions = (_GATEWAY_ERROR, *rest)
    if not {"reset", "5xx", _GATEWAY_ERROR}.isdisjoint(conditions):
        conditions = tuple(condition for condition in conditions if condition not in SAFE_CONDITIONS)
    return conditions


def _careful_retries(retry: Retry) -> Document:
    return {"retry_on": ",".join(sorted(SAFE_CONDITIONS)), **_retries(retry)}


def _retries(retry: Retry) -> Document:
    # The back-off is Envoy's default: from 25 ms to 250 ms.
    return {
        "num_retries": retry.attempts - 1,
        "retry_host_predicate": [extension("previous_hosts", _PREVIOUS_HOSTS)],
        "host_selection_retry_max_attempts": 5,
    }


def _match(way: Way, route: Route, methods: tuple[str, ...]) -> Document:
    headers: list[Document] = []
    if methods:
        wanted = {"exact": methods[0]} if len(methods) == 1 else _regex("|".join(map(re.escape, methods)))
        headers.append({"name": ":method", "string_match": wanted})
    headers += [_header_match(header) for header in route.headers]
    headers += [_cookie_match(name, value) for name, value in sorted(route.cookie.items())]
    document = _path_match(way, route)
    if headers:
        document["headers"] = headers
    if route.query:
        parameters = [{"name": name, "string_match": {"exact": value}} for name, value in sorted(route.query.items())]
        document["query_parameters"] = parameters
    return document


def _path_match(way: Way, route: Route) -> Document:
    if route.path is not None:
        return {"path": route.path}
    if route.regex is not None:
        return _regex(route.regex)
    prefix = route.prefix or "/"
    # The separated form takes no prefix that ends with a slash, which separates anyway.
    return {"path_separated_prefix" if way.separated and not prefix.endswith("/") else "prefix": prefix}


def _header_match(header: HeaderMatch) -> Document:
    document = {"name": header.name, **_header_condition(header)}
    return {**document, "invert_match": True} if header.invert else document


def _header_condition(header: HeaderMatch) -> Document:
    if header.present is not None:
        return {"present_match": header.present}
    if header.regex is not None:
        return {"string_match": _regex(header.regex)}
    if header.range is not None:
        start, end = header.range
        return {"range_match": {"start": start, "end": end}}
    for kind in ("exact", "prefix", "suffix", "contains"):
        text = getattr(header, kind)
        if text is not None:
            return {"string_match": {kind: text}}
    return {"present_match": True}


def _cookie_match(name: str, value: str) -> Document:
    # RouteMatch has a field for cookies, which Envoy 1.36 ignores in served routes.
    pattern = rf"(^|.*;\s*){re.escape(name)}={re.escape(value)}(;.*|$)"
    return {"name": "cookie", "string_match": _regex(pattern)}


def _regex(pattern: str) -> Document:
    return {"safe_regex": {"regex": pattern}}


def _stat_prefix(route: Route, taken: Collection[str]) -> str:
    """Return the name of a route in statistics: its own, or one of its path that no earlier route has."""
    if route.stat_prefix:
        return route.stat_prefix
    name = _NOT_IN_NAME.sub("_", route.path or route.prefix or route.regex or "").strip("_") or "all"
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
