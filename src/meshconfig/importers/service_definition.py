"""Service definitions of kumonos and itacho (version 1): one document a service, with its dependencies.

Both read the same documents, and differ in what they made of them: kumonos sends HTTP/2 to discovered services and
HTTP/1.1 to load balancers, itacho speaks what the client speaks. Fields that they left to Envoy's defaults are written
out here, so that an import changes as little as it can.
"""

from collections.abc import Callable
from typing import Any

from meshconfig.importers.imported import Imported, Loss, yaml_text
from meshconfig.importers.reader import Reader
from meshconfig.importers.retry_conditions import RETRY_CONDITIONS
from wire.duration import format_duration


def _duration(milliseconds: int) -> str:
    return format_duration(milliseconds / 1000)


_ENVOY_OUTLIERS = {
    "consecutive_gateway_failure": None,
    "consecutive_5xx": 5,
    "interval": "10s",
    "base": "30s",
    "max": "5m",
    "max_percent": 10,
}
"""What Envoy does where an ``outlier_detection`` leaves a field out."""
_OUTLIER_FIELDS: tuple[tuple[str, str, Callable[[int], Any]], ...] = (
    ("consecutive_5xx", "consecutive_5xx", int),
    ("consecutive_gateway_failure", "consecutive_gateway_failure", int),
    ("interval_ms", "interval", _duration),
    ("base_ejection_time_ms", "base", _duration),
    ("max_ejection_percent", "max_percent", int),
)
_DENOMINATORS = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}


def import_definition(document: object, file: str, service: str, *, http2_discovered: bool) -> Imported:
    """Return the repository file of one service.

    Args:
        document: the service definition, as decoded.
        file: its name, for losses.
        service: the service whose dependencies it has; the definition does not say it.
        http2_discovered: whether discovered services are spoken to in HTTP/2, as kumonos does; else the client's
            protocol is used, as itacho does.
    """
    losses: list[Loss] = []
    root = Reader(document, file, "", losses)
    version = root.take("version", int)
    if version not in {1, None}:
        root.lose("version", f"version {version} is not known here; it was read as version 1.")
    dependencies = [_dependency(each, http2_discovered=http2_discovered) for each in root.children("dependencies")]
    root.finish()
    text = yaml_text({"service": service, "dependencies": dependencies}, file)
    return Imported({f"services/{service}.yaml": text}, losses)


def _dependency(reader: Reader, *, http2_discovered: bool) -> dict[str, Any]:
    name = reader.take("name", str) or ""
    cluster = reader.take("cluster_name", str) or name
    discovered = bool(reader.take("sds", bool))
    address = reader.take("lb", str)
    made: dict[str, Any] = {"name": name}
    if cluster != name:
        made["cluster"] = cluster
    if discovered:
        made["service"] = cluster
        if address is not None:
            reader.lose("lb", "the service is discovered (sds), so that its load balancer is not used.")
    else:
        made["address"] = address or ""
    made["protocol"] = ("http2" if discovered else "http1") if http2_discovered else "same"
    host = reader.take("host_header", str)
    if host:
        made["host_header"] = host
    if reader.take("tls", bool):
        made["tls"] = {"verify": False}
        reader.lose(
            "tls",
            "the other side's certificate was never verified, and is not after the import (verify: false). Write"
            " ca_file instead, and verify goes back on.",
        )
    milliseconds = reader.take("connect_timeout_ms", int)
    if milliseconds is not None:
        made["connect_timeout"] = _duration(milliseconds)
    made |= _limit(reader)
    made |= _outlier_detection(reader)
    reader.ignore("health_check_path")
    made |= _health_check(reader)
    made |= _headers(reader)
    made |= _fault(reader)
    made["routes"] = [route for each in reader.children("routes") for route in [_route(each)] if route]
    return made


def _limit(reader: Reader) -> dict[str, Any]:
    breaker = reader.child("circuit_breaker")
    if breaker is None:
        return {}
    values = {
        name: breaker.take(theirs, int)
        for theirs, name in (
            ("max_connections", "connections"),
            ("max_pending_requests", "pending_requests"),
            ("max_retries", "retries"),
        )
    }
    # Theirs is a limit of the whole cluster; there was none for each endpoint.
    return {"limit": {"connections_per_endpoint": None, **{k: v for k, v in values.items() if v is not None}}}


def _outlier_detection(reader: Reader) -> dict[str, Any]:
    detection = reader.child("outlier_detection")
    if detection is None:
        return {"outlier_detection": None}
    made: dict[str, Any] = dict(_ENVOY_OUTLIERS)
    for theirs, name, convert in _OUTLIER_FIELDS:
        value = detection.take(theirs, int)
        if value is not None:
            made[name] = convert(value)
    return {"outlier_detection": made}


def _health_check(reader: Reader) -> dict[str, Any]:
    checks = reader.children("health_checks")
    if not checks:
        return {}
    check, *others = checks
    for other in others:
        other.lose("", "a dependency has one health check here; the first one was imported.")
    made: dict[str, Any] = {}
    http, grpc = check.child("http_health_check"), check.child("grpc_health_check")
    if http is not None:
        made["http"] = http.take("path", str) or "/"
    elif grpc is not None:
        made["grpc"] = grpc.take("service_name", str) or ""
    elif "tcp_health_check" in check:
        made["tcp"] = True
        check.ignore("tcp_health_check")
    for theirs, name in (("interval", "interval"), ("timeout", "timeout"), ("event_log_path", "event_log")):
        value = check.take(theirs, str)
        if value is not None:
            made[name] = value
    for theirs, name in (("unhealthy_threshold", "unhealthy"), ("healthy_threshold", "healthy")):
        number = check.take(theirs, int)
        if number is not None:
            made[name] = number
    return {"health_check": made}


def _headers(reader: Reader) -> dict[str, Any]:
    headers = reader.child("headers")
    if headers is None:
        return {}
    made: dict[str, dict[str, str]] = {}
    for option in headers.children("request_headers_to_add"):
        header = option.child("header")
        append = option.take("append", bool)
        if header is None:
            continue
        name, value = header.take("key", str), header.take("value", str)
        if name:
            # Envoy appends unless a definition says otherwise.
            made.setdefault("set" if append is False else "add", {})[name] = value or ""
    return {"headers": made} if made else {}


def _fault(reader: Reader) -> dict[str, Any]:
    fault = reader.child("fault_filter_config")
    if fault is None:
        return {}
    made: dict[str, Any] = {}
    abort, delay = fault.child("abort"), fault.child("delay")
    if abort is not None:
        made["abort"] = {"status": abort.take("http_status", int), "percent": _percent(abort)}
    if delay is not None:
        delay.ignore("type")
        made["delay"] = {"time": delay.take("fixed_delay", str), "percent": _percent(delay)}
    return {"fault": made} if made else {}


def _percent(reader: Reader) -> float:
    share = reader.child("percentage")
    if share is None:
        return 100
    numerator = share.take("numerator", int) or 0
    denominator = share.take("denominator", str) or "HUNDRED"
    percent = numerator * 100 / _DENOMINATORS.get(denominator, 100)
    return int(percent) if percent == int(percent) else percent


def _route(reader: Reader) -> dict[str, Any]:
    made: dict[str, Any] = {}
    prefix, path = reader.take("prefix", str), reader.take("path", str)
    if prefix:
        made["prefix"] = prefix
        if path:
            reader.lose("path", "the prefix beside it rules, as it did before.")
    elif path:
        made["path"] = path
    else:
        reader.lose("", "the route has neither path nor prefix; it was left out.")
        return {}
    method = (reader.take("method", str) or "").upper()
    timeout = reader.take("timeout_ms", int)
    if timeout is not None:
        made["timeout"] = _duration(timeout)
    policy = reader.child("retry_policy")
    if policy is None:
        made["retry"] = None
        if method:
            reader.lose("method", "a route without a retry policy took all methods before, and does so now.")
        return made
    if method:
        made["methods"] = [method]
    made["retry"] = _retry(policy, method, timeout)
    return made


def _retry(policy: Reader, method: str, timeout: int | None) -> dict[str, Any]:
    conditions = [each.strip() for each in (policy.take("retry_on", str) or "").split(",") if each.strip()]
    kept = [each for each in conditions if each in RETRY_CONDITIONS]
    if kept != conditions:
        dropped = ", ".join(each for each in conditions if each not in RETRY_CONDITIONS)
        policy.lose(
            "retry_on", f"{dropped} had no effect: it needs a list of statuses or headers, or is none of Envoy's."
        )
    # Theirs counts the retries, ours all tries.
    made: dict[str, Any] = {"attempts": (policy.take("num_retries", int) or 1) + 1}
    per_try = policy.take("per_try_timeout_ms", int)
    if per_try is not None and timeout is not None and per_try >= timeout > 0:
        policy.lose("per_try_timeout_ms", "it is not below the timeout of the route, so that it had no effect.")
        per_try = None
    made["per_try_timeout"] = None if per_try is None else _duration(per_try)
    made["when"] = kept or ["connect-failure"]
    if method and method not in {"GET", "HEAD", "OPTIONS"}:
        made["idempotent"] = [method]
        policy.lose(
            "",
            f"{method} is retried for every condition, as before. Where the app may not get a request twice, take"
            f" {method} out of idempotent.",
        )
    return made
