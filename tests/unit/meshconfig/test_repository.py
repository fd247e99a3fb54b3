"""A repository of definitions: what it defines, and everything that is wrong with it."""

from meshconfig.definition import HealthCheck, Limit, OutlierDetection, Retry, Tls
from meshconfig.repository import read

WEB = """\
service: web
provides: {protocol: http1, defaults: {timeout: 3s}}
dependencies:
- group: core
- service: user
  host_header: user-service
  circuit_breaker: {connections: 64, pending_requests: 128, retries: 3}
  retry: {attempts: 3, per_try_timeout: 1s, when: [5xx, connect-failure]}
  headers: {add: {x-caller: web}}
  routes:
  - {path: /ping, timeout: 100ms, retry: null}
  - {prefix: /}
- service: ab-testing
  protocol: grpc
  outlier_detection: {consecutive_5xx: 3}
  health_check: {grpc: ab-testing, interval: 10s, timeout: 3s}
  retry: {attempts: 3, idempotent: [POST], when: [unavailable]}
- name: payments
  address: api.payments.example:443
  tls: true
  fault: {abort: {status: 503, percent: 0.5}}
"""
FILES = {
    "mesh.yaml": "environment: staging\ndefaults: {keep_alive: 2s}\n",
    "services/web.yaml": WEB,
    "services/user.yaml": (
        "provides: {defaults: {timeout: 2s, limit: {requests: 50}}, slo: {p99: 300ms, success: 99.9}}\n"
    ),
    "services/ab-testing.yaml": "provides: {protocol: grpc}\n",
    "groups/core.yaml": "group: core\ndependencies:\n- service: login\n",
    "services/login.yaml": "",
    "README.md": "Ours.",
}


def test_a_repository_becomes_a_configuration() -> None:
    """The example of the documentation is read, and every value stands where its precedence puts it."""
    configuration, faults = read(FILES)
    assert configuration is not None, faults
    assert faults == []
    web = configuration.callers["web"]
    assert [dependency.name for dependency in web.dependencies] == ["ab-testing", "login", "payments", "user"]
    testing, login, payments, user = web.dependencies
    assert user.limit == Limit(connections=64, pending_requests=128, requests=50, retry_budget=None, retries=3)
    assert [route.timeout for route in user.routes] == [0.1, 2.0]
    assert [route.retry for route in user.routes] == [None, Retry(when=("5xx", "connect-failure"))]
    assert testing.protocol == "grpc"
    assert testing.outlier_detection == OutlierDetection(consecutive_5xx=3)
    assert testing.health_check == HealthCheck(grpc="ab-testing")
    assert payments.tls == Tls()
    assert login.keep_alive == 2.0
    assert login.hosts == ("login",)
    assert configuration.mesh.environment == "staging"
    assert configuration.objectives["user"].p99 == 0.3


def test_each_value_has_its_origin() -> None:
    """A value names the layer and the line that it comes from."""
    configuration, _ = read(FILES)
    assert configuration is not None
    origins = configuration.callers["web"].origins
    assert {
        path: f"{origins[path].layer} {origins[path].position}"
        for path in (
            "user.limit.connections",
            "user.limit.requests",
            "user.limit.retry_budget",
            "user.routes[0].timeout",
            "user.routes[1].timeout",
            "user.keep_alive",
            "user.connect_timeout",
            "ab-testing.protocol",
        )
    } == {
        "user.limit.connections": "dependency services/web.yaml:7:34",
        "user.limit.requests": "callee services/user.yaml:1:54",
        "user.limit.retry_budget": "dependency services/web.yaml:7:20",
        "user.routes[0].timeout": "route services/web.yaml:11:28",
        "user.routes[1].timeout": "callee services/user.yaml:1:32",
        "user.keep_alive": "mesh mesh.yaml:2:24",
        "user.connect_timeout": "built in built in",
        "ab-testing.protocol": "dependency services/web.yaml:14:13",
    }
