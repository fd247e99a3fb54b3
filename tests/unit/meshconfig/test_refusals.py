"""Everything that definitions may not say: each input is refused where it stands, with what to do."""

from collections.abc import Mapping

import pytest

from meshconfig.position import Position, Severity
from meshconfig.repository import read


def dependency(text: str) -> dict[str, str]:
    """Return a repository whose one dependency has these fields."""
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    return {"services/web.yaml": f"service: web\ndependencies:\n- service: shop\n{lines}"}


def route(text: str) -> dict[str, str]:
    """Return a repository whose one route has these fields."""
    return dependency(f"routes:\n- {{{text}}}")


def service(text: str) -> dict[str, str]:
    """Return a repository of one service."""
    return {"services/web.yaml": text}


def mesh(text: str) -> dict[str, str]:
    """Return a repository of a mesh's file."""
    return {"mesh.yaml": text}


def gateway(text: str) -> dict[str, str]:
    """Return a repository of a gateway."""
    return {"gateways/grpc.yaml": f"listen: {{port: 50051}}\nselect: {{services: [a]}}\n{text}"}


def site(text: str, more: str = "") -> dict[str, str]:
    """Return a repository of an edge with one site."""
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    return {"edges/www.yaml": f"listen: {{port: 443}}\nsites:\n- hosts: [www.example]\n{lines}{more}"}


def text_at(files: Mapping[str, str], position: Position) -> str:
    """Return the rest of the line at a position; nothing for a position that is the whole file."""
    lines = [*files[position.file].split("\n"), ""]
    assert 0 <= position.line <= len(lines)
    line = lines[position.line - 1] if position.line else ""
    assert position.column <= len(line) + 1
    return line[position.column - 1 :] if position.column else ""


SYNTAX = {
    "unknown key": (
        service("service: web\ndependancies: []\n"),
        "dependancies:",
        "'dependancies' is not a key of",
        "dependencies",
    ),
    "unknown key of a block": (dependency("retry: {atempts: 3}"), "atempts:", "'atempts' is not a key of", "attempts"),
    "reserved key": (dependency("envoy: {}"), "envoy:", "'envoy' is not a key of", "reserved"),
    "merge key": (dependency("retry:\n  <<: {attempts: 3}"), "<<:", "'<<' is not a key of", "Merge keys are not read"),
    "duplicate key": (service("service: web\nservice: web\n"), "service: web", "there twice; line 1", "Remove one"),
    "both names of limit": (
        dependency("limit: {}\ncircuit_breaker: {}"),
        "circuit_breaker:",
        "names of one thing",
        "Remove one",
    ),
    "wrong type": (dependency("retry: 3"), "3", "retry is 3; it has to be a mapping", "attempts"),
    "list for a text": (dependency("host_header: [a]"), "[a]", "a list", ""),
    "text for a list": (dependency("hosts: a"), "a", "it has to be a list", "brackets"),
    "text for a number": (dependency("limit: {requests: many}"), "many}", "requests is many", ""),
    "text in quotes for a number": (dependency("limit: {requests: '9'}"), "'9'}", "requests is '9'", ""),
    "number for a text": (dependency("host_header: 12e4567"), "12e4567", "take for a number", '"12e4567"'),
    "old boolean for a text": (dependency("host_header: no"), "no", "take for a boolean", '"no"'),
    "date for a text": (dependency("hosts: [2001-01-01]"), "2001-01-01]", "take for a date", '"2001-01-01"'),
    "time for a text": (dependency("hosts: [12:30]"), "12:30]", "take for a number", '"12:30"'),
    "old boolean": (dependency("zones: yes"), "yes", "it has to be true or false", ""),
    "octal": (dependency("limit: {requests: 010}"), "010}", "requests is 010", ""),
    "null for what has to be": (dependency("limit: null"), "null", "cannot be switched off", "leave it out"),
    "alias bomb": (
        service(
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True))
        ),
        "*d, *d, *d]",
        "more than 100,000 nodes",
        "fewer aliases",
    ),
    "alias of itself": (service("dependencies: &a [*a]\n"), "*a]", "within itself", "Remove"),
    "unknown alias": (service("dependencies: *a\n"), "*a", "No anchor 'a'", ""),
    "size": (service("#" * (1 << 20) + "\n"), "########################", "1,048,577 bytes", "Split it"),
    "python tag": (
        service("service: !!python/object/apply:os.system [x]\n"),
        "!!python/object/apply:os",
        "The tag",
        "Remove it",
    ),
    "any tag": (service("service: !!str web\n"), "!!str", "The tag", "Remove it"),
    "tab": (service("dependencies:\n\t- service: x\n"), "\t", "A tab", "spaces"),
    "NUL": (service("service: web\0\n"), "\x00", "U+0000", "Remove it"),
    "half of a surrogate pair": (service("service: w\ud800b\n"), "\ud800b", "surrogate", "Remove it"),
    "conflict that git has left": (
        service("service: web\n<<<<<<< HEAD\nprovides: {}\n=======\ndependencies: []\n>>>>>>> theirs\n"),
        "<<<<<<< HEAD",
        "A conflict of two versions",
        "remove the lines",
    ),
    "two documents": (service("service: web\n---\nservice: web\n"), "---", "second document", "file of its own"),
    "deep nesting": (service("[" * 100_000), "[[[[[[[[[[[[[[[[[[[[[[[[", "deeper than 32 levels", ""),
    "no YAML": (service("service: [web\n"), "", "This is not YAML", ""),
    "key that is a list": (service("? [a]\n: b\n"), "[a]", "A key has to be a text", ""),
    "list for a file": (service("- service: web\n"), "-", "The file is a list", ""),
    "name of another": (service("service: shop\n"), "shop", "service is 'shop'", "Write web"),
    "name that is none": ({"services/a b.yaml": ""}, "", "which is no name of a service", "letters"),
    "two files of a name": ({"services/web.yaml": "", "services/web.yml": ""}, "", "defined here and in", "Remove"),
}

FIELDS = {
    "breaker 0": (dependency("circuit_breaker: {max_connections: 0}"), "0}", "max_connections is 0", ""),
    "limit 0": (dependency("limit: {pending_requests: 0}"), "0}", "pending_requests is 0", ""),
    "duration without unit": (dependency("timeout: 5"), "5", "duration with its unit", "250ms, 3s"),
    "duration that is none": (dependency("timeout: 5 sec"), "5", "has to be a duration", "250ms"),
    "negative duration": (dependency("timeout: -5s"), "-5s", "has to be a duration", "250ms"),
    "endless duration": (dependency("timeout: 99999d"), "99999d", "ten years at most", ""),
    "less than Envoy counts": (dependency("timeout: 0.5ms"), "0.5ms", "takes less than one for 0s", "1ms or more"),
    "rate that no bucket can have": (
        gateway("defaults: {rate_limit: {per_second: 1e10}}"),
        "1e10}",
        "from 1e-05 to 1000000000",
        "",
    ),
    "long value of a header": (
        dependency(f"headers: {{set: {{x: {'y' * 8193}}}}}"),
        "yyyy",
        "8,192 characters at most",
        "",
    ),
    "connect_timeout 0": (dependency("connect_timeout: 0s"), "0s", "more than 0s", ""),
    "percent over 100": (dependency("panic_threshold: 101"), "101", "from 0 to 100", ""),
    "percent sign": (dependency("panic_threshold: 50%"), "50%", "panic_threshold is 50%", "Write 50."),
    "five decimals": (dependency("panic_threshold: 0.00001"), "0.00001", "at most four decimals", ""),
    "fault over 100": (dependency("fault: {abort: {status: 503, percent: 200}}"), "200}", "percent is 200", ""),
    "infinity": (gateway("defaults: {rate_limit: {per_second: 1e999}}"), "1e999}", "per_second is 1e999", ""),
    "unknown retry condition": (
        dependency("retry: {when: [5xx, conect-failure]}"),
        "conect-failure]",
        "conect-failure",
        "connect-failure",
    ),
    "retriable-headers": (
        dependency("retry: {when: [retriable-headers]}"),
        "retriable-headers]",
        "retriable-headers",
        "",
    ),
    "unknown protocol": (dependency("protocol: htp2"), "htp2", "protocol is htp2", "http2"),
    "scheme in a host": (dependency("hosts: ['http://x']"), "'http://x']", "a host without scheme", "Write it like"),
    "port in a host": (dependency("hosts: ['x:80']"), "'x:80']", "a host without scheme", "Write it like"),
    "all hosts": (dependency("hosts: ['*']"), "'*']", "a host without scheme", "Write it like"),
    "host twice": (dependency("hosts: [a, A]"), "A]", "'A' twice", "Remove"),
    "prefix without slash": (route("prefix: api"), "api}", "begins with /", "/api"),
    "path with a query": (route("path: /a?b"), "/a?b}", "has no query", ""),
    "path with a space": (route("path: /a b"), "/a", "a path that", ""),
    "method in small letters": (route("prefix: /, methods: [get]"), "get]", "an HTTP method in capitals", "GET"),
    "header with a space": (dependency("headers: {add: {x a: b}}"), "x", "no spaces", "x-user"),
    "pseudo header": (dependency("headers: {set: {':path': b}}"), "':path':", "no colon", ""),
    "header host": (dependency("headers: {set: {Host: b}}"), "b}", "Host is not changed", "host_header"),
    "removal of host": (dependency("headers: {remove: [host]}"), "host]", "Host is not changed", "host_header"),
    "line break in a header": (dependency('headers: {set: {x-a: "b\\nc"}}'), '"b\\nc"}', "control characters", ""),
    "header twice": (dependency("headers: {set: {x-a: b, X-A: c}}"), "c}", "'X-A' twice", "Remove"),
    "refresh_delay": (mesh("registry: {refresh_delay: 9ms}"), "9ms}", "at least 10ms", ""),
    "port 0": (mesh("egress: {port: 0}"), "0}", "from 1 to 65535", ""),
    "port 0 of an address": (service("dependencies: [{name: a, address: 'b:0'}]"), "'b:0'}", "host:port", ""),
    "port of an address": (
        service("dependencies: [{name: a, address: 'b:99999'}]"),
        "'b:99999'}",
        "a port from 1 to 65535",
        "",
    ),
    "address with a scheme": (
        service("dependencies: [{name: a, address: 'http://b:80'}]"),
        "'http://b:80'}",
        "without a scheme",
        "",
    ),
}

BLOCKS = {
    "no target": (service("dependencies:\n- name: shop\n"), "name:", "neither service nor address nor group", ""),
    "two targets": (dependency("address: x:80"), "service: s", "service and address", ""),
    "address without name": (service("dependencies:\n- address: x:80\n"), "address:", "has no name", "Write name"),
    "group with more": (
        {**service("dependencies:\n- {group: a, timeout: 1s}\n"), "groups/a.yaml": ""},
        "1s}",
        "timeout stands beside group",
        "group's file",
    ),
    "reserved name": (
        service("dependencies:\n- service: registry\n"),
        "registry",
        "cluster of the bootstrap",
        "Write name",
    ),
    "reserved cluster": (dependency("cluster: tracing"), "tracing", "cluster of the bootstrap", "another"),
    "reserved service of a split": (
        route("prefix: /, split: {shop: 50, registry: 50}"),
        "50}}",
        "cluster of the bootstrap",
        "Register the service",
    ),
    "reserved service of a shadow": (dependency("shadow: {service: envoy-admin}"), "envoy-admin}", "bootstrap", "Reg"),
    "reserved service of a site": (
        site("routes: [{prefix: /, service: envoy-admin}]"),
        "envoy-admin}",
        "cluster of the bootstrap",
        "Register the service",
    ),
    "reserved service that is asked": (
        gateway("defaults: {auth: {external: {service: local-service}}}"),
        "local-service}",
        "cluster of the bootstrap",
        "Register the service",
    ),
    "reserved service that is selected": (
        {"gateways/a.yaml": "listen: {port: 1}\nselect: {services: [a, tracing]}"},
        "tracing]",
        "cluster of the bootstrap",
        "Register the service",
    ),
    "name of a cluster of versions": (dependency("cluster: a/version"), "a/version", "letters, digits and", "Write it"),
    "host in other letters": (
        dependency("hosts: ['grüße.example']"),
        "'grüße.example']",
        "a host without scheme",
        "as xn--",
    ),
    "service that is no host": (service("dependencies:\n- service: a:b\n"), "a:b", "no host", "Write hosts"),
    "zones of an address": (
        service("dependencies: [{name: a, address: 'b:1', zones: true}]"),
        "true}",
        "needs a service",
        "",
    ),
    "version of an address": (
        service("dependencies: [{name: a, address: 'b:1', routes: [{prefix: /, version: {a: b}}]}]"),
        "{a:",
        "needs a service",
        "",
    ),
    "budget and number of retries": (
        dependency("limit: {retries: 3, retry_budget: 20}"),
        "3, retry_budget",
        "both written",
        "Remove one",
    ),
    "route without a match": (route("timeout: 1s"), "{timeout:", "neither path nor prefix nor regex", "prefix: /"),
    "route with two": (route("path: /a, prefix: /"), "{path:", "path and prefix", ""),
    "route behind all": (
        dependency("routes:\n- {prefix: /}\n- {path: /a}"),
        "{path:",
        "line 5 takes all",
        "Move it above",
    ),
    "route behind its like": (
        dependency("routes:\n- {path: /a, methods: [GET]}\n- {path: /a, methods: [GET]}"),
        "{path: /a, methods: [GET",
        "line 5",
        "Move it",
    ),
    "version and split": (route("prefix: /, version: {a: b}, split: {a: 100}"), "{a: b", "both written", ""),
    "version of nothing": (route("prefix: /, version: {}"), "{}", "names no metadata", "revision"),
    "shares": (route("prefix: /, split: {a: 90, b: 20}"), "{a:", "90 + 20 is 110", "Change"),
    "no shares": (route("prefix: /, split: {}"), "{}", "nothing is 0", ""),
    "fault beside a retry": (
        route("prefix: /, retry: {attempts: 2}, fault: {delay: {time: 1s}}"),
        "{attempts:",
        "retry stands beside fault",
        "Remove",
    ),
    "fault beside a timeout": (
        route("prefix: /, timeout: 1s, fault: {delay: {time: 1s}}"),
        "1s,",
        "timeout stands beside fault",
        "Remove",
    ),
    "fault of nothing": (dependency("fault: {}"), "{}", "neither abort nor delay", "fault: null"),
    "retried POST": (
        route("prefix: /, methods: [POST], retry: {when: [5xx]}"),
        "[5xx]",
        "POST would not be retried",
        "idempotent: [POST]",
    ),
    "header match without condition": (route("prefix: /, headers: [{name: a}]"), "{name:", "no condition", "exact"),
    "header match with two": (
        route("prefix: /, headers: [{name: a, exact: b, prefix: c}]"),
        "{name:",
        "exact and prefix",
        "",
    ),
    "empty prefix of a header": (
        route("prefix: /, headers: [{name: a, prefix: ''}]"),
        "''}",
        "match everything",
        "present",
    ),
    "empty range": (route("prefix: /, headers: [{name: a, range: [5, 5]}]"), "[5,", "no number is in", "smaller"),
    "match of host": (route("prefix: /, headers: [{name: host, exact: a}]"), "host,", "header Host", "hosts"),
    "rewrite of nothing": (route("prefix: /, rewrite: {}"), "{}", "path or prefix", ""),
    "rate limit of a caller": (
        dependency("rate_limit: {per_second: 5}"),
        "{per_second:",
        "has no effect here",
        "gateway",
    ),
    "auth of a route": (
        route("prefix: /, auth: {external: {service: a}}"),
        "{external:",
        "has no effect here",
        "gateway",
    ),
    "tunnel": (dependency("upgrade: [CONNECT]"), "CONNECT]", "upgrade is CONNECT, which is not allowed", "websocket"),
    "upgrade to nothing": (dependency("upgrade: []"), "[]", "upgrade is empty", "null for none"),
    "upgrade twice": (
        dependency("upgrade: [websocket, websocket]\nlimit: {connections_per_endpoint: 9}"),
        "websocket]",
        "'websocket' twice",
        "Remove one",
    ),
    "handshakes that are no GET": (
        dependency(
            "limit: {connections_per_endpoint: 9}\nroutes:\n- {prefix: /, methods: [POST], upgrade: [websocket]}"
        ),
        "[websocket]}",
        "Handshakes of websockets are GETs, and the route takes POST",
        "Add GET",
    ),
    "two protocols": (
        service("provides: {protocol: grpc, defaults: {protocol: http1}}"),
        "http1}",
        "grpc is what",
        "provides.protocol",
    ),
}

WEBSOCKETS = "limit: {connections_per_endpoint: 9}\nupgrade: [websocket]\n"

MERGED = {
    "websockets within the built-in limit": (
        dependency("upgrade: [websocket]"),
        "[websocket]",
        "connections_per_endpoint is the built-in 30",
        "Write limit.connections_per_endpoint",
    ),
    "websockets of a callee within the built-in limit": (
        service("provides: {defaults: {upgrade: [websocket]}}"),
        "[websocket]}",
        "is the built-in 30",
        "Write limit",
    ),
    "websockets of a mesh within the built-in limit": (
        mesh("defaults: {upgrade: [websocket]}"),
        "[websocket]}",
        "is the built-in 30",
        "Write limit",
    ),
    "websockets of a site within the built-in limit": (
        site("routes: [{prefix: /, service: a, upgrade: [websocket]}]"),
        "[websocket]}",
        "is the built-in 30",
        "Write limit",
    ),
    "websockets over HTTP/2": (
        dependency(f"{WEBSOCKETS}protocol: http2"),
        "[websocket]",
        "begins in HTTP/1.1, and the protocol is http2",
        "protocol: http1",
    ),
    "websockets of clients of HTTP/2": (
        {
            "edges/www.yaml": "listen: {port: 443, protocol: http2}\n"
            "defaults: {limit: {connections_per_endpoint: 9}, upgrade: [websocket]}\n"
            "sites: [{hosts: [a], routes: [{prefix: /, service: a}]}]\n"
        },
        "[websocket]}",
        "listen.protocol is http2",
        "listen.protocol: same",
    ),
    "websockets of apps that speak HTTP/2": (
        {**mesh("egress: {port: 9900, protocol: http2}"), **dependency(WEBSOCKETS)},
        "[websocket]",
        "egress.protocol is http2",
        "egress.protocol: same",
    ),
    "handshakes without their header": (
        dependency(f"{WEBSOCKETS}headers: {{remove: [Upgrade]}}"),
        "Upgrade]}",
        "needs the header 'Upgrade'",
        "upgrade: null",
    ),
    "websockets to a service without a limit for them": (
        dependency(f"{WEBSOCKETS}routes:\n- {{prefix: /, split: {{shop: 50, next: 50}}}}"),
        "50}}",
        "leads websockets to 'next'",
        "provides.defaults of 'next'",
    ),
    "websockets of a site to a service without a limit for them": (
        site(
            "routes: [{prefix: /, upgrade: [websocket], split: {a: 50, next: 50}}]",
            "defaults: {limit: {connections_per_endpoint: 9}}\n",
        ),
        "50}}]",
        "leads websockets to 'next'",
        "provides.defaults of 'next'",
    ),
    "per-try above": (
        dependency("timeout: 1s\nretry: {per_try_timeout: 1s}"),
        "1s}",
        "per_try_timeout is 1s, and the timeout",
        "shorter",
    ),
    "per-try above the built-in": (dependency("retry: {per_try_timeout: 6s}"), "6s}", "all tries together is 5s", ""),
    "per-try above of a route": (
        route("prefix: /, timeout: 1s, retry: {per_try_timeout: 2s}"),
        "2s}",
        "per_try_timeout is 2s",
        "",
    ),
    "statuses without condition": (
        dependency("retry: {when: [5xx], statuses: [503]}"),
        "[503]",
        "only where when has",
        "Add retriable-status-codes",
    ),
    "condition without statuses": (dependency("retry: {statuses: []}"), "[]", "statuses is empty", "502"),
    "no conditions": (dependency("retry: {when: []}"), "[]", "nothing is retried", "retry: null"),
    "gRPC condition": (
        dependency("retry: {when: [unavailable]}"),
        "[unavailable]",
        "an answer of gRPC",
        "protocol: grpc",
    ),
    "hedge without per-try": (
        dependency("retry: {hedge: true, per_try_timeout: null}"),
        "true,",
        "there is none",
        "per_try_timeout",
    ),
    "ejection max": (
        dependency("outlier_detection: {base: 90s}"),
        "90s}",
        "base 1m30s, and its max is 1m",
        "above base",
    ),
    "ejection without counter": (
        dependency("outlier_detection: {consecutive_gateway_failure: null}"),
        "{consecutive_gateway_fai",
        "no counter",
        "null",
    ),
    "gRPC check without HTTP/2": (dependency("health_check: {grpc: ''}"), "''}", "needs HTTP/2", "protocol"),
    "check of nothing": (dependency("health_check: {interval: 1s}"), "{interval:", "one of http, grpc and tcp", ""),
    "check of two": (dependency("health_check: {http: /a, tcp: true}"), "{http:", "one of http, grpc and tcp", ""),
    "sticky without name": (dependency("sticky: {by: cookie}"), "{by:", "needs its name", "cookie"),
    "sticky without by": (dependency("sticky: {name: a}"), "{name:", "by is missing", "Write by"),
    "strict address": (dependency("sticky: {by: source_ip, strict: true}"), "{by:", "cannot be strict", "cookie"),
    "named address": (dependency("sticky: {by: source_ip, name: a}"), "{by:", "has no name", "Remove"),
    "lifetime of a header": (
        dependency("sticky: {by: header, name: a, ttl: 1s}"),
        "{by:",
        "ttl is of a cookie",
        "Remove",
    ),
    "slow start by hash": (
        dependency("sticky: {by: source_ip}\nslow_start: 1s"),
        "1s",
        "does nothing with sticky",
        "null",
    ),
    "slow start of the callee": (
        {**dependency("sticky: {by: source_ip}"), "services/shop.yaml": "provides: {defaults: {slow_start: 1s}}"},
        "{by:",
        "does nothing with sticky",
        "slow_start: null",
    ),
    "limit by no header": (
        gateway("defaults: {rate_limit: {per_second: 1, by: header}}"),
        "{per_second:",
        "by header",
        "",
    ),
    "auth of nothing": (gateway("defaults: {auth: {}}"), "{}", "everybody passes", "jwt"),
    "missing field": (dependency("shadow: {percent: 5}"), "{percent:", "service is missing", "Write service"),
    "missing field of the mesh": (mesh("defaults: {sticky: {ttl: 1s}}"), "{ttl:", "by is missing", ""),
}

MESHES = {
    "network": (mesh("internal_ranges: [10.0.0.0/33]"), "10.0.0.0/33]", "no network", "10.0.0.0/8"),
    "ports": (mesh("admin: {port: 9900}"), "9900}", "as egress has", "another port"),
    "host to listen on": (
        mesh("egress: {address: localhost, port: 1}"),
        "localhost,",
        "IP addresses alone",
        "127.0.0.1",
    ),
    "statsd by name": (
        mesh("statistics: {dog_statsd: 'localhost:8125'}"),
        "'localhost:8125'}",
        "needs an IP address",
        "127.0.0.1",
    ),
    "no registry": (mesh("registry: {addresses: []}"), "[]", "no registry", "host:port"),
    "gateway of nothing": (
        {"gateways/a.yaml": "listen: {port: 1}\nselect: {}\n"},
        "{}",
        "selects nothing",
        "metadata",
    ),
    "gateway without listen": ({"gateways/a.yaml": "select: {services: [a]}"}, "select:", "listen is missing", ""),
    "gateway of one host": (gateway("hosts: grpc.example"), "grpc.example", "share this host", "{service}"),
    "gateway of no host": (gateway("hosts: '{name}.example'"), "'{name}", "no host of a service", "{service}"),
    "edge without its sites": ({"edges/a.yaml": "listen: {port: 1}\n"}, "listen", "sites is missing", "Write sites"),
    "edge without sites": ({"edges/a.yaml": "listen: {port: 1}\nsites: []"}, "[]", "no site", ""),
    "site without routes": (site("routes: []"), "[]", "routes of a site is empty", ""),
    "site route without target": (site("routes: [{prefix: /}]"), "{prefix:", "neither service nor split", ""),
    "unreachable site route": (
        site("routes: [{prefix: /a, service: a}, {prefix: /a/b, service: b}]"),
        "{prefix: /a/",
        "takes all",
        "",
    ),
    "redirect without TLS": (
        {
            "edges/a.yaml": (
                "listen: {port: 1, redirect_from: 2}\nsites:\n- {hosts: [a], routes: [{prefix: /, service: a}]}"
            )
        },
        "2}",
        "no site has a certificate",
        "",
    ),
    "redirect to itself": (
        {"gateways/a.yaml": "listen: {port: 1, redirect_from: 1}\nselect: {services: [a]}"},
        "1}",
        "the port itself",
        "",
    ),
    "host of two sites": (
        site(
            "certificate: {chain: /a, key: /b}\nroutes: [{prefix: /, service: a}]",
            "- {hosts: [WWW.example], certificate: {chain: /a, key: /b}, routes: [{prefix: /, service: a}]}",
        ),
        "WWW.example]",
        "in two sites",
        "Remove",
    ),
    "one site without certificate": (
        site(
            "routes: [{prefix: /, service: a}]\ncertificate: {chain: /a, key: /b}",
            "- {hosts: [b], routes: [{prefix: /, service: a}]}",
        ),
        "{hosts:",
        "has no certificate",
        "Write its certificate",
    ),
    "port of the admin interface": (
        {"gateways/a.yaml": "listen: {port: 9901}\nselect: {services: [a]}"},
        "9901}",
        "admin interface listens",
        "another port",
    ),
    "one name of two Envoys": (
        {"services/www.yaml": "", **site("routes: [{prefix: /, service: a}]")},
        "",
        "the name of this edge",
        "Rename",
    ),
}

CALLERS = {
    "dependency twice": (
        service("dependencies:\n- service: a\n- service: a\n"),
        "service: a",
        "there twice; services/web.yaml:2:3",
        "another name",
    ),
    "dependency twice by a group": (
        {**service("dependencies:\n- service: a\n- group: core\n"), "groups/core.yaml": "dependencies: [{service: a}]"},
        "core",
        "'a' is there twice",
        "",
    ),
    "group twice": (
        {
            **service("dependencies:\n- group: core\n- group: core\n"),
            "groups/core.yaml": "dependencies: [{service: a}]",
        },
        "core",
        "there twice",
        "once",
    ),
    "hosts but for case": (
        service("dependencies:\n- service: a\n- service: b\n  hosts: [A]\n"),
        "A]",
        "leads to b and to a",
        "Remove",
    ),
    "clusters": (
        service("dependencies:\n- service: a\n- service: b\n  cluster: a\n"),
        "service: b",
        "cluster 'a' is there twice",
        "",
    ),
    "cluster of a split": (
        service("dependencies:\n- service: a\n  cluster: b\n  routes: [{prefix: /, split: {a: 50, b: 50}}]\n"),
        "50}",
        "would have the name",
        "another",
    ),
    "unknown group": (
        {**service("dependencies:\n- group: cor\n"), "groups/core.yaml": ""},
        "cor",
        "no group 'cor'",
        "core",
    ),
}

GROUPS = {
    "cycle": (
        {"groups/a.yaml": "dependencies: [{group: b}]", "groups/b.yaml": "dependencies: [{group: a}]"},
        "a}]",
        "a → b → a",
        "Take one",
    ),
    "group of itself": ({"groups/a.yaml": "dependencies: [{group: a}]"}, "a}]", "a → a", "Take one"),
    "unknown group of a group": ({"groups/a.yaml": "dependencies: [{group: b}]"}, "b}]", "no group 'b'", ""),
    "too deep": (
        {
            **service("dependencies: [{group: g0}]"),
            **{f"groups/g{n}.yaml": f"dependencies: [{{group: g{n + 1}}}]" for n in range(2000)},
            "groups/g2000.yaml": "",
        },
        "g0}]",
        "more than 16 levels",
        "",
    ),
}

WARNINGS = {
    "copies of websockets": (
        dependency(f"{WEBSOCKETS}shadow: {{service: a}}"),
        "[websocket]",
        "Websockets are not copied",
        "shadow: null",
    ),
    "timeout 0": (dependency("timeout: 0s"), "0s", "never ends", ""),
    "timeout above the caller's": (
        service("provides: {defaults: {timeout: 2s}}\ndependencies:\n- service: a\n  timeout: 3s\n"),
        "3s",
        "wait 2s at most",
        "shorter",
    ),
    "per-try without limit": (
        dependency("limit: {connections_per_endpoint: null}"),
        "{connections_per_endpoin",
        "no limit",
        "limit.",
    ),
    "shadow without limit": (
        {
            **dependency("shadow: {service: b}"),
            "services/b.yaml": "provides: {defaults: {limit: {connections_per_endpoint: null}, retry: null}}",
        },
        "{service:",
        "Nothing limits",
        "connections_per_endpoint",
    ),
    "split": (route("prefix: /, split: {a: 90, b: 10}"), "{a:", "loses the share", ""),
    "protocol": (
        {**dependency("protocol: http1"), "services/shop.yaml": "provides: {protocol: grpc}"},
        "http1",
        "provides grpc",
        "",
    ),
    "request that is longer than a drain": (
        {**mesh("drain_time: 10s"), **site("routes: [{prefix: /, service: a, timeout: 11s}]")},
        "11s}",
        "cuts requests after 10s",
        "drain_time",
    ),
    "admin for all": (mesh("admin: {address: 0.0.0.0}"), "0.0.0.0}", "can stop Envoy", "127.0.0.1"),
    "file elsewhere": ({"service/web.yaml": ""}, "", "Nothing is read", "services"),
}


@pytest.mark.parametrize(
    ("files", "at", "message", "fix"),
    [
        pytest.param(*case, id=name)
        for cases in (SYNTAX, FIELDS, BLOCKS, MERGED, MESHES, CALLERS, GROUPS)
        for name, case in cases.items()
    ],
)
def test_it_is_refused(files: Mapping[str, str], at: str, message: str, fix: str) -> None:
    """There is exactly one error, and it points at what is wrong and says what to do."""
    configuration, faults = read(files)
    errors = [fault for fault in faults if fault.severity is Severity.ERROR]
    assert configuration is None
    assert [text_at(files, each.position)[: len(at)] for each in errors] == [at], errors
    assert message in errors[0].message
    assert fix in errors[0].fix


@pytest.mark.parametrize(
    ("files", "at", "message", "fix"), [pytest.param(*case, id=name) for name, case in WARNINGS.items()]
)
def test_it_is_warned_of(files: Mapping[str, str], at: str, message: str, fix: str) -> None:
    """There is one warning and a configuration; strictly, there is none, unless no edit could mend it."""
    configuration, faults = read(files)
    assert configuration is not None
    assert [text_at(files, each.position)[: len(at)] for each in faults] == [at], faults
    assert faults[0].severity is Severity.WARNING
    assert message in faults[0].message
    assert fix in faults[0].fix
    inherent = message == "loses the share"
    configuration, faults = read(files, strict=True)
    assert (configuration is None) is not inherent
    assert [each.severity for each in faults] == [Severity.WARNING if inherent else Severity.ERROR]
