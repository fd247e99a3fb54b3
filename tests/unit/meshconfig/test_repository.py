"""A repository of definitions: what it defines, and everything that is wrong with it."""

import pytest

from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.outlier_detection import OutlierDetection
from meshconfig.definition.retry import Retry
from meshconfig.definition.tls import Tls
from meshconfig.position import Severity
from meshconfig.repository import MAX_FAULTS, read

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


def test_a_broken_file_does_not_hide_the_faults_of_others() -> None:
    """Files that cannot be read and files with faults are told of together, in the order of their names."""
    files = FILES | {
        "mesh.yaml": "environment: [",
        "groups/core.yaml": "dependencies:\n- service: login\n  retry: {atempts: 1}\n",
        "services/user.yaml": "provides: {defaults: {timeout: soon}}\nprovides: {}\n",
        "services/web.yaml": WEB.replace("percent: 0.5", "percent: 500").replace("path: /ping", "path: ping"),
    }
    configuration, faults = read(files)
    assert configuration is None
    assert [str(fault.position) for fault in faults] == [
        "groups/core.yaml:3:11",
        "mesh.yaml:1:15",
        "services/user.yaml:1:32",
        "services/user.yaml:2:1",
        "services/web.yaml:11:12",
        "services/web.yaml:21:41",
    ]


def test_a_service_whose_file_is_broken_is_known() -> None:
    """Its callers are not told that it does not exist."""
    files = {"services/web.yaml": "dependencies: [{service: shop}]", "services/shop.yaml": "provides: ["}
    assert [fault.position.file for fault in read(files, registered=[])[1]] == ["services/shop.yaml"]


def test_services_that_nobody_knows_are_warned_of() -> None:
    """With the services of the catalog, each place that names another one is a warning, and strictly an error."""
    files = {
        "services/web.yaml": (
            "dependencies:\n- service: usr\n"
            "- service: user\n  routes: [{prefix: /, split: {shop: 50, shop-next: 50}}]\n"
            "- {service: web, shadow: {service: copies}}\n"
        ),
        "gateways/grpc.yaml": "listen: {port: 1}\nselect: {services: [user, nothing]}\n",
    }
    configuration, faults = read(files, registered=["user", "shop"])
    assert configuration is not None
    unknown = {str(fault.position): fault.fix for fault in faults if "was ever registered" in fault.message}
    assert unknown == {
        "gateways/grpc.yaml:2:27": "Register it first.",
        "services/web.yaml:2:12": "Did you mean user?",
        "services/web.yaml:4:53": "Did you mean shop?",
        "services/web.yaml:5:36": "Register it first.",
    }
    assert read(files, registered=["user", "shop"], strict=True)[0] is None
    assert "was ever registered" not in str(read(files)[1])


def test_zones_of_a_caller_that_is_not_registered_are_warned_of() -> None:
    """Envoy learns its own zone's share from the endpoints of its own service."""
    files = {"services/web.yaml": "dependencies: [{service: a, zones: true}]"}
    (fault,) = read(files, registered=["a"])[1]
    assert str(fault.position) == "services/web.yaml:1:36"
    assert "which was never registered" in fault.message
    assert read(files, registered=["a", "web"])[1] == []


def test_a_route_with_a_fault_has_no_inherited_retries() -> None:
    """Envoy injects faults in front of retries; the origin of the value is the fault."""
    files = {
        "services/web.yaml": (
            "dependencies:\n- service: user\n  retry: {attempts: 5}\n  routes:\n"
            "  - {path: /a, fault: {abort: {status: 503, percent: 1}}}\n  - {prefix: /}\n"
        )
    }
    configuration, faults = read(files)
    assert configuration is not None, faults
    caller = configuration.callers["web"]
    faulty, other = caller.dependencies[0].routes
    assert faulty.retry is None
    assert other.retry is not None
    assert str(caller.origins["user.routes[0].retry"].position) == "services/web.yaml:5:23"


def test_gateways_and_edges_use_services_by_their_own_defaults() -> None:
    """Their defaults stand above the callee's; a route of a site stands above those."""
    files = FILES | {
        "gateways/grpc.yaml": "listen: {port: 1}\nselect: {services: [user]}\ndefaults: {keep_alive: 1s}\n",
        "edges/www.yaml": (
            "listen: {port: 2}\ndefaults: {retry: null}\nsites:\n- hosts: [a]\n  routes:\n"
            "  - {prefix: /a, service: user, timeout: 9s}\n  - {prefix: /, service: user}\n"
        ),
    }
    configuration, faults = read(files)
    assert configuration is not None, faults
    user = configuration.targets["grpc"]["user"]
    assert (user.keep_alive, user.timeout, user.limit.requests, user.cluster) == (1.0, 2.0, 50, "user")
    assert configuration.gateways["grpc"].defaults.keep_alive == 1.0
    routes = configuration.edges["www"].sites[0].routes
    assert [(route.timeout, route.retry) for route in routes] == [(9.0, None), (2.0, None)]
    origins = configuration.origins
    assert str(origins["edges.www.sites[0].routes[0].timeout"].position) == "edges/www.yaml:6:42"
    assert str(origins["edges.www.sites[0].routes[1].timeout"].position) == "services/user.yaml:1:32"
    assert origins["edges.www.sites[0].routes[1].retry"].layer == "edge"
    assert str(origins["mesh.defaults.keep_alive"].position) == "mesh.yaml:2:24"


def test_a_file_with_very_many_faults_lists_errors_first() -> None:
    """Warnings do not push errors out of the list, and the rest is counted."""
    many = "".join(f"- service: s{index}\n  timeout: 0s\n" for index in range(MAX_FAULTS + 50))
    configuration, faults = read({"services/web.yaml": f"dependencies:\n{many}- service: z\n  timeout: 1\n"})
    assert configuration is None
    assert len(faults) == MAX_FAULTS + 1
    assert "51 more" in faults[0].message
    assert [fault.severity for fault in faults].count(Severity.ERROR) == 2


def test_no_files_are_an_empty_mesh() -> None:
    """A repository without files has the built-in values and nobody in it."""
    configuration, faults = read({})
    assert faults == []
    assert configuration is not None
    assert configuration.callers == {}
    assert configuration.mesh.egress.port == 9900


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "---\n# nothing yet\n", "\ufeff", "\r\n"])
def test_a_file_that_says_nothing_defines_a_service_that_calls_nothing(text: str) -> None:
    """With the marker of a document or without."""
    configuration, faults = read({"services/web.yaml": text})
    assert faults == []
    assert configuration is not None
    assert configuration.callers["web"].dependencies == ()
