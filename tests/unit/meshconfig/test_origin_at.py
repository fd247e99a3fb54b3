"""The origin of one value is that which a list of all has."""

from meshconfig.repository import read

FILES = {
    "mesh.yaml": "defaults: {panic_threshold: 40, timeout: 4s, limit: {retries: 3}}\n",
    "services/user.yaml": "service: user\nprovides: {protocol: http2, defaults: {retry: {attempts: 2}}}\n",
    "services/user.v2.yaml": "service: user.v2\n",
    "services/web.yaml": (
        "service: web\n"
        "dependencies:\n"
        "- service: user\n"
        "  timeout: 500ms\n"
        "  routes:\n"
        "  - {path: /ping, timeout: 100ms, retry: null}\n"
        "  - {path: /fault, fault: {abort: {status: 503}}}\n"
        "  - {prefix: /}\n"
        "- {service: user.v2, outlier_detection: {consecutive_5xx: 3}}\n"
    ),
}


def test_one_origin_is_that_of_the_list_of_all() -> None:
    """Also where a name has a dot, a value follows from another one, or a route is not written."""
    one, _ = read(FILES)
    every, _ = read(FILES)
    assert one is not None
    assert every is not None
    single, listed = one.callers["web"].origins, dict(every.callers["web"].origins)
    assert {path: single[path] for path in listed} == listed


def test_a_path_that_leads_nowhere_has_no_origin() -> None:
    """Neither an unknown dependency nor a field of a block that is off."""
    configuration, _ = read(FILES)
    assert configuration is not None
    origins = configuration.callers["web"].origins
    for path in ("none", "user.none", "user.tls.verify", "user.routes[0].retry.attempts", "user.routes[9]"):
        assert origins.get(path) is None, path
