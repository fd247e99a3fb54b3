"""Effective values: each with the layer and the line that it is from."""

from meshconfig.effective_values import EffectiveCaller, EffectiveValue, effective_values
from meshconfig.position import BUILT_IN, Position
from meshconfig.repository import read

FILES = {
    "mesh.yaml": "defaults: {panic_threshold: 40, timeout: 4s}\n",
    "services/user.yaml": "service: user\nprovides: {defaults: {retry: {attempts: 2}}}\n",
    "services/web.yaml": (
        "service: web\n"
        "dependencies:\n"
        "- service: user\n"
        "  keep_alive: 1500ms\n"
        "  routes:\n"
        "  - {path: /ping, timeout: 100ms, retry: null}\n"
        "  - {prefix: /}\n"
    ),
    "gateways/staging.yaml": "gateway: staging\nlisten: {port: 50051}\nselect: {services: [user]}\n",
}


def shown(name: str) -> EffectiveCaller:
    """Return the effective values of a caller of these files."""
    configuration, faults = read(FILES)
    assert configuration is not None, faults
    caller = effective_values(configuration, name)
    assert caller is not None
    return caller


def test_each_value_has_its_layer_and_line() -> None:
    """Route over dependency over callee over mesh over built in, with the place of each."""
    [user] = shown("web").dependencies
    ping, rest = user.routes
    values = {value.field: value for value in (*user.values, *rest.values)}
    assert [
        values[field]
        for field in ("keep_alive", "retry.attempts", "timeout", "panic_threshold", "retry.per_try_timeout")
    ] == [
        EffectiveValue("keep_alive", "1.5s", "dependency", Position("services/web.yaml", 4, 15)),
        EffectiveValue("retry.attempts", "2", "callee", Position("services/user.yaml", 2, 41)),
        EffectiveValue("timeout", "4s", "mesh", Position("mesh.yaml", 1, 42)),
        EffectiveValue("panic_threshold", "40", "mesh", Position("mesh.yaml", 1, 29)),
        EffectiveValue("retry.per_try_timeout", "1s", "built in", BUILT_IN),
    ]
    assert (user.position, ping.position) == (
        Position("services/web.yaml", 3, 3),
        Position("services/web.yaml", 6, 5),
    )
    assert [(value.field, value.value) for value in ping.values if value.layer == "route"] == [
        ("timeout", "100ms"),
        ("retry", "off"),
    ]


def test_a_gateway_shows_what_it_uses() -> None:
    """The policies of a gateway's service are shown without routes, those of requests included."""
    user = {each.name: each for each in shown("staging").dependencies}["user"]
    assert user.routes == ()
    assert {value.field: value.value for value in user.values}["retry.attempts"] == "2"


def test_a_name_that_nothing_has_is_none() -> None:
    """Neither a service nor a gateway nor an edge."""
    configuration, _ = read(FILES)
    assert configuration is not None
    assert effective_values(configuration, "none") is None
