"""Effective values: each with the layer and the line that it is from."""

from meshconfig.effective_caller import EffectiveCaller, EffectiveValue
from meshconfig.effective_values import effective_values
from meshconfig.position import BUILT_IN, Position
from meshconfig.repository import read
from meshconfig.resource import Catalog

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
    "gateways/staging.yaml": (
        "gateway: staging\nlisten: {port: 50051}\nselect: {services: [user], metadata: {tier: web}}\n"
        "defaults: {keep_alive: 2s}\n"
    ),
    "edges/www.yaml": (
        "listen: {port: 80}\nsites:\n- hosts: [www.example]\n  routes:\n"
        "  - {prefix: /api, service: api, timeout: 15s}\n  - {prefix: /, service: user}\n"
        "- hosts: [old.example]\n  routes: [{prefix: /, service: user}]\n"
    ),
}


def shown(name: str, catalog: Catalog = Catalog()) -> EffectiveCaller:  # noqa: B008  # it is frozen
    """Return the effective values of a caller of these files."""
    configuration, faults = read(FILES)
    assert configuration is not None, faults
    caller = effective_values(configuration, name, catalog)
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
    values = {value.field: value for value in user.values}
    assert values["retry.attempts"] == EffectiveValue(
        "retry.attempts", "2", "callee", Position("services/user.yaml", 2, 41)
    )
    assert values["keep_alive"] == EffectiveValue(
        "keep_alive", "2s", "gateway", Position("gateways/staging.yaml", 4, 24)
    )
    assert values["timeout"] == EffectiveValue("timeout", "4s", "mesh", Position("mesh.yaml", 1, 42))
    assert (values["hosts"].value, values["hosts"].layer) == ("[user]", "built in")


def test_a_gateway_shows_the_services_that_are_registered() -> None:
    """Those that it selects by metadata, which no file names; and none that a file describes and it does not serve."""
    catalog = Catalog({"cart": {"tier": ("web",), "protocol": ("grpc",)}, "other": {}})
    by_name = {each.name: each for each in shown("staging", catalog).dependencies}
    assert list(by_name) == ["cart", "user"]
    assert by_name["cart"].leads_to == "service cart, grpc"
    values = {value.field: value for value in by_name["cart"].values}
    assert (values["protocol"].layer, values["timeout"].value, values["timeout"].layer) == ("catalog", "0s", "gateway")
    assert values["keep_alive"].layer == "gateway"
    assert values["panic_threshold"] == EffectiveValue("panic_threshold", "40", "mesh", Position("mesh.yaml", 1, 29))


def test_an_edge_shows_its_routes_with_their_lines() -> None:
    """Each under the service that it leads to, with the host of its site where there are several."""
    api, user = shown("www").dependencies
    assert [route.matches for route in user.routes] == ["www.example /*", "old.example /*"]
    assert [route.matches for route in api.routes] == ["www.example /api*"]
    values = {value.field: value for value in api.routes[0].values}
    assert values["timeout"] == EffectiveValue("timeout", "15s", "route", Position("edges/www.yaml", 5, 43))
    assert (api.routes[0].position, user.position.file) == (Position("edges/www.yaml", 5, 5), "edges/www.yaml")


def test_a_name_that_nothing_has_is_none() -> None:
    """Neither a service nor a gateway nor an edge."""
    configuration, _ = read(FILES)
    assert configuration is not None
    assert effective_values(configuration, "none") is None
