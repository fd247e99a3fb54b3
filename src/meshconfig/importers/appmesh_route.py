"""AWS App Mesh: the ``spec`` of a route or a gateway route as a route of ours.

A condition that cannot be expressed makes the whole route a loss: without it the route would take requests that are not
its own.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from meshconfig.importers.reader import Reader

_DEFAULT_TIMEOUT = "15s"
"""App Mesh's and Envoy's timeout of a route that says nothing."""
_DEFAULT_PRIORITY = 1001
"""Behind App Mesh's priorities, which are 0 to 1000."""
_HTTP_EVENTS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "server-error": ("retriable-status-codes", (500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511)),
    "gateway-error": ("retriable-status-codes", (502, 503, 504)),
    "client-error": ("retriable-status-codes", (409,)),
    "stream-error": ("refused-stream", ()),
}
"""Retry events as Envoy's condition and statuses (AWS App Mesh API: HttpRetryPolicy)."""
_KINDS = ("httpRoute", "http2Route", "grpcRoute")


class EmptyRoute(Exception):  # noqa: N818  # it is no error: the route has nothing to import, which is a loss
    """The route cannot be imported; the loss is noted."""


class ImportedRoute(Struct, frozen=True):
    """One route.

    Attributes:
        document: the route as our files write it, without its service.
        targets: the weights of the virtual nodes, or the virtual service of a gateway route.
        priority: App Mesh's; lower ones are tried first.
        breadth: how much the match takes, for routes of one priority; smaller ones are tried first.
        grpc: whether it is a gRPC route.
        reader: the ``spec``, for losses.
    """

    document: dict[str, Any]
    targets: Mapping[str, int]
    priority: int
    breadth: tuple[int, int, str]
    grpc: bool
    reader: Reader


def route(spec: Reader) -> ImportedRoute:
    """Return a virtual router's route.

    Raises:
        EmptyRoute: it cannot be imported.
    """
    kind, body = _body(spec)
    document = _match(body, grpc=kind == "grpcRoute")
    targets = _targets(body)
    document |= _timeout(body)
    document |= _retry(body, document)
    return _imported(spec, document, targets, grpc=kind == "grpcRoute")


def gateway_route(spec: Reader) -> tuple[str, ImportedRoute]:
    """Return a gateway's route, and the host that it is for.

    Raises:
        EmptyRoute: it cannot be imported.
    """
    kind, body = _body(spec)
    match = body.child("match")
    host = _host(match)
    document = _match(body, grpc=kind == "grpcRoute")
    action = body.child("action")
    target = None if action is None else action.child("target")
    service = None if target is None else target.child("virtualService")
    name = None if service is None else service.take("virtualServiceName", str)
    if target is None or not name:
        body.lose("action", "it names no virtual service; the route was left out.")
        raise EmptyRoute
    if "port" in target:
        target.lose("port", "the port is the endpoint's own here.")
    document |= _rewrite(None if action is None else action.child("rewrite"), document)
    document["timeout"] = _DEFAULT_TIMEOUT
    return host, _imported(spec, document, {name: 1}, grpc=kind == "grpcRoute")


def is_catch_all(document: Mapping[str, Any]) -> bool:
    """Return whether a route takes every request."""
    return document.get("prefix") == "/" and not {"methods", "headers", "query"} & set(document)


def duration_text(reader: Reader | None) -> str | None:
    """Return a duration of App Mesh as a text; None where there is none."""
    if reader is None:
        return None
    return f"{reader.take('value', int) or 0}{reader.take('unit', str) or 's'}"


def _imported(spec: Reader, document: dict[str, Any], targets: Mapping[str, int], *, grpc: bool) -> ImportedRoute:
    priority = spec.take("priority", int)
    path = document.get("path") or document.get("prefix") or document.get("regex") or ""
    exact = 0 if "path" in document else 1
    conditions = len(document.get("headers", ())) + len(document.get("query", ())) + ("methods" in document)
    breadth = (exact, -len(path), f"{100 - conditions:03d}{path}")
    return ImportedRoute(document, targets, _DEFAULT_PRIORITY if priority is None else priority, breadth, grpc, spec)


def _body(spec: Reader) -> tuple[str, Reader]:
    for kind in _KINDS:
        body = spec.child(kind)
        if body is not None:
            return kind, body
    if "tcpRoute" in spec:
        spec.ignore("priority")
        spec.lose(
            "tcpRoute", "only HTTP and gRPC are routed; write the TCP service as a dependency of its own listener."
        )
    else:
        spec.lose("", "it has no route that is known here.")
    raise EmptyRoute


def _targets(body: Reader) -> dict[str, int]:
    action = body.child("action")
    targets: dict[str, int] = {}
    for each in [] if action is None else action.children("weightedTargets"):
        node, weight = each.take("virtualNode", str), each.take("weight", int)
        if "port" in each:
            each.lose("port", "the port is the endpoint's own here.")
        if node and weight:
            targets[node] = targets.get(node, 0) + weight
        elif node:
            each.lose("weight", f"{node} has no weight, so that it gets no requests; it was left out.")
    if not targets:
        body.lose("action", "it leads to no virtual node; the route was left out.")
        raise EmptyRoute
    return targets


def _match(body: Reader, *, grpc: bool) -> dict[str, Any]:
    match = body.child("match")
    if match is None:
        return {"prefix": "/"}
    if "port" in match:
        match.lose("port", "a dependency has one listener here; the route takes requests of all ports.")
    document = _grpc_path(match) if grpc else _path(match)
    method = match.take("method", str)
    if method:
        document["methods"] = [method]
    scheme = match.take("scheme", str)
    if scheme == "https":
        match.lose("scheme", "the app speaks HTTP to its Envoy, so that the route never matched; it was left out.")
        raise EmptyRoute
    headers = [_header(each) for each in match.children("metadata" if grpc else "headers")]
    if headers:
        document["headers"] = headers
    query = [_query(each) for each in match.children("queryParameters")]
    if query:
        document["query"] = dict(query)
    return document


def _grpc_path(match: Reader) -> dict[str, Any]:
    service, method = match.take("serviceName", str), match.take("methodName", str)
    if service and method:
        return {"path": f"/{service}/{method}"}
    return {"prefix": f"/{service}/" if service else "/"}


def _path(match: Reader) -> dict[str, Any]:
    path = match.child("path")
    prefix = match.take("prefix", str)
    if path is None:
        return {"prefix": prefix or "/"}
    exact, regex = path.take("exact", str), path.take("regex", str)
    return {"path": exact} if exact else {"regex": regex or ".*"}


def _header(reader: Reader) -> dict[str, Any]:
    document: dict[str, Any] = {"name": reader.take("name", str) or ""}
    condition = reader.child("match")
    if condition is None:
        document["present"] = True
    else:
        bounds = condition.child("range")
        for kind in ("exact", "prefix", "suffix", "regex"):
            value = condition.take(kind, str)
            if value is not None:
                document[kind] = value
        if bounds is not None:
            document["range"] = [bounds.take("start", int) or 0, bounds.take("end", int) or 0]
    if len(document) == 1:
        reader.lose("match", "the condition is not known here; the route was left out.")
        raise EmptyRoute
    if reader.take("invert", bool):
        document["invert"] = True
    return document


def _query(reader: Reader) -> tuple[str, str]:
    condition = reader.child("match")
    value = None if condition is None else condition.take("exact", str)
    if value is None:
        reader.lose("match", "query parameters are matched by a value; the route was left out.")
        raise EmptyRoute
    return reader.take("name", str) or "", value


def _timeout(body: Reader) -> dict[str, Any]:
    timeout = body.child("timeout")
    made: dict[str, Any] = {"timeout": (None if timeout is None else duration_text(timeout.child("perRequest")))}
    made["timeout"] = made["timeout"] or _DEFAULT_TIMEOUT
    idle = None if timeout is None else duration_text(timeout.child("idle"))
    if idle:
        made["idle_timeout"] = idle
    return made


def _retry(body: Reader, document: Mapping[str, Any]) -> dict[str, Any]:
    policy = body.child("retryPolicy")
    if policy is None:
        return {}
    conditions: list[str] = []
    statuses: set[int] = set()
    for event in policy.texts("httpRetryEvents"):
        if event not in _HTTP_EVENTS:
            policy.lose("httpRetryEvents", f"the event {event} is not known here.")
            continue
        condition, codes = _HTTP_EVENTS[event]
        conditions.append(condition)
        statuses.update(codes)
    if "connection-error" in policy.texts("tcpRetryEvents"):
        conditions.append("connect-failure")
    conditions += policy.texts("grpcRetryEvents")
    # Theirs counts the retries, ours all tries.
    retry: dict[str, Any] = {"attempts": (policy.take("maxRetries", int) or 0) + 1}
    per_try = duration_text(policy.child("perRetryTimeout"))
    if per_try and _seconds(per_try) >= _seconds(document["timeout"]) > 0:
        policy.lose("perRetryTimeout", "it is not below the timeout of the route, so that it had no effect.")
        per_try = None
    retry["per_try_timeout"] = per_try
    retry["when"] = list(dict.fromkeys(conditions)) or ["connect-failure"]
    if statuses:
        retry["statuses"] = sorted(statuses)
    retry |= _methods(policy, document)
    return {"retry": retry}


def _methods(policy: Reader, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return which methods may be sent twice; App Mesh repeated them all."""
    repeated = [each for each in document.get("methods", ()) if each not in {"GET", "HEAD", "OPTIONS"}]
    if policy.texts("grpcRetryEvents"):
        repeated = ["POST"]
    if repeated:
        policy.lose(
            "",
            f"{repeated[0]} is retried for every event, as before. Where the app may not get a request twice,"
            " take it out of idempotent.",
        )
        return {"idempotent": repeated}
    if not document.get("methods"):
        policy.lose(
            "",
            "only GET, HEAD and OPTIONS are retried for every event now; the rest only where no app can have"
            " begun. List methods that may be sent twice in idempotent.",
        )
    return {}


def _host(match: Reader | None) -> str:
    hostname = None if match is None else match.child("hostname")
    if hostname is None:
        return "*"
    exact, suffix = hostname.take("exact", str), hostname.take("suffix", str)
    if exact:
        return exact
    return f"*{suffix}" if suffix else "*"


def _rewrite(rewrite: Reader | None, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the callee gets; App Mesh puts `/` in place of a matched prefix unless it is told otherwise."""
    made: dict[str, Any] = {}
    prefix = None if rewrite is None else rewrite.child("prefix")
    path = None if rewrite is None else rewrite.child("path")
    hostname = None if rewrite is None else rewrite.child("hostname")
    if hostname is not None and hostname.take("defaultTargetHostname", str) == "ENABLED":
        hostname.lose("defaultTargetHostname", "the callee gets the client's Host.")
    if path is not None:
        made["path"] = path.take("exact", str)
    elif prefix is not None:
        value = prefix.take("value", str)
        if value is not None:
            made["prefix"] = value
        elif prefix.take("defaultPrefix", str) == "ENABLED":
            made["prefix"] = "/"
    elif document.get("prefix", "/") != "/":
        made["prefix"] = "/"
    return {"rewrite": made} if made else {}


def _seconds(text: str) -> float:
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text[:-1])
