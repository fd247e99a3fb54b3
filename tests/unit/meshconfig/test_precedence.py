"""The order of precedence, against a model that folds dictionaries and knows nothing of positions and Structs."""

import json
import re
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.outlier_detection import OutlierDetection
from meshconfig.definition.policies import Defaults
from meshconfig.definition.retry import Retry
from meshconfig.definition.shadow import Shadow
from meshconfig.repository import read
from wire.duration import format_duration

LAYERS = ("mesh", "callee", "dependency", "route")
"""From the lowest to the highest."""
BLOCKS: dict[str, type[msgspec.Struct]] = {
    "retry": Retry,
    "limit": Limit,
    "outlier_detection": OutlierDetection,
    "health_check": HealthCheck,
    "shadow": Shadow,
}
OF_ROUTES = {"timeout", "idle_timeout", "retry", "shadow"}
RIVALS = {"retries": ("retry_budget",), "retry_budget": ("retries",), "http": ("grpc", "tcp")}
"""Fields of the lower layers that a field replaces too."""
DURATIONS = {"timeout", "idle_timeout", "per_try_timeout", "interval", "base", "max", "keep_alive"}

counts = st.integers(1, 50)
conditions = st.sampled_from(
    [["connect-failure", "retriable-status-codes"], ["5xx", "reset", "retriable-status-codes"]]
)
# The values of each field are apart from those of the fields that a rule holds them against.
retry = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "attempts": st.integers(1, 11),
        "per_try_timeout": st.none() | st.sampled_from([0.1, 0.25]),
        "when": conditions,
        "statuses": st.just([503]),
        "idempotent": st.sampled_from([[], ["PUT"]]),
    },
)
limit = st.fixed_dictionaries(
    {},
    optional={
        "connections_per_endpoint": counts,
        "pending_requests": st.none() | counts,
        "retries": st.none() | counts,
        "retry_budget": st.none() | st.sampled_from([5.0, 7.5]),
    },
).filter(lambda block: block.get("retries") is None or block.get("retry_budget") is None)
outlier_detection = st.none() | st.fixed_dictionaries(
    {"consecutive_gateway_failure": counts},
    optional={"consecutive_5xx": st.none() | counts, "base": st.just(20.0), "max": st.just(90.0)},
)
health_check = st.none() | st.fixed_dictionaries(
    {"http": st.sampled_from(["/a", "/b"])}, optional={"interval": st.just(5.0)}
)
shadow = st.none() | st.fixed_dictionaries({"service": st.sampled_from(["x", "y"])}, optional={"percent": st.just(5.0)})
fields = {
    "timeout": st.sampled_from([1.0, 2.0, 90.0]),
    "idle_timeout": st.none() | st.just(30.0),
    "retry": retry,
    "shadow": shadow,
    "limit": limit,
    "outlier_detection": outlier_detection,
    "health_check": health_check,
    "keep_alive": st.none() | st.just(2.0),
    "panic_threshold": st.sampled_from([0.0, 40.0]),
}
layers = st.fixed_dictionaries(
    {
        layer: st.fixed_dictionaries(
            {}, optional={name: values for name, values in fields.items() if layer != "route" or name in OF_ROUTES}
        )
        for layer in LAYERS
    }
)


def written(name: str, value: Any) -> Any:
    """Return a value as files write it."""
    if isinstance(value, dict):
        return {inner: written(inner, each) for inner, each in value.items()}
    return format_duration(value) if name in DURATIONS and value is not None else value


def repository(by_layer: dict[str, Any]) -> dict[str, str]:
    """Return the files of a mesh in which each layer writes these values; JSON is YAML."""
    text = {layer: written(layer, values) for layer, values in by_layer.items()}
    dependency = {"service": "shop", **text["dependency"], "routes": [{"prefix": "/", **text["route"]}]}
    return {
        "mesh.yaml": json.dumps({"defaults": text["mesh"]}),
        "services/shop.yaml": json.dumps({"provides": {"defaults": text["callee"]}}),
        "services/web.yaml": json.dumps({"dependencies": [dependency]}),
    }


def model(by_layer: dict[str, Any], highest: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values up to a layer, and the layer that each comes from, by its path."""
    values = msgspec.to_builtins(Defaults())
    origins: dict[str, str] = {}
    for layer in LAYERS[: LAYERS.index(highest) + 1]:
        for name, value in by_layer[layer].items():
            origins[name] = layer
            if not isinstance(value, dict):
                values[name] = value
                for path in [path for path in origins if path.startswith(f"{name}.")]:
                    del origins[path]
                continue
            kind = BLOCKS[name]
            below = values[name]
            if below is None:
                below = {each.name: each.default for each in msgspec.structs.fields(kind) if not each.required}
            values[name] = dict(below)
            for inner, written_value in value.items():
                values[name][inner] = written_value
                origins[f"{name}.{inner}"] = layer
                for rival in RIVALS.get(inner, ()):
                    if rival not in value and written_value is not None:
                        values[name][rival] = False if rival == "tcp" else None
                        origins[f"{name}.{rival}"] = layer
    tries = values["retry"]
    own = by_layer[highest].get("retry") or {}
    if (
        tries
        and tries["per_try_timeout"]
        and tries["per_try_timeout"] >= values["timeout"]
        and "per_try_timeout" not in own
    ):
        values["retry"] = {**tries, "per_try_timeout": None}
        origins["retry.per_try_timeout"] = origins.get("timeout", "built in")
    return values, origins


def plain(value: Any) -> Any:
    """Return a value with lists in place of tuples."""
    return json.loads(json.dumps(value))


@given(layers)
def test_each_value_is_the_one_of_the_highest_layer(by_layer: dict[str, Any]) -> None:
    """Cluster's values are those up to the dependency, a route's those up to the route; each origin names its layer."""
    files = repository(by_layer)
    configuration, faults = read(files)
    assert configuration is not None, faults
    caller = configuration.callers["web"]
    (dependency,) = caller.dependencies
    for highest, value, prefix in (
        ("dependency", dependency, "shop"),
        ("route", dependency.routes[0], "shop.routes[0]"),
    ):
        expected, origins = model(by_layer, highest)
        effective = msgspec.to_builtins(value)
        for name in fields if highest == "dependency" else OF_ROUTES:
            assert plain(effective[name]) == plain(expected[name]), name
            for path in (name, *(f"{name}.{inner}" for inner in (effective[name] or {} if name in BLOCKS else {}))):
                origin = caller.origins[f"{prefix}.{path}"]
                assert origin.layer == origins.get(path, "built in"), path
    for path, origin in caller.origins.items():
        assert_origin(files, path, origin.position.file, origin.position.line, origin.position.column)


def assert_origin(files: dict[str, str], path: str, file: str, line: int, column: int) -> None:
    """Assert that the text in front of a position is the key of the value, or a block that replaces it."""
    if file == "built in":
        return
    assert line == 1
    before = files[file][: column - 1]
    field = re.sub(r"\[\d+\]$", "", path.rpartition(".")[2])
    key = re.search(r'"(\w+)": (\[)?$', before)
    if path == "shop":
        assert before.endswith('"dependencies": [')
    else:
        assert key is not None, before
        assert key[1] in {field, "limit", "health_check", "service", "timeout"}


@given(layers)
def test_what_is_written_twice_over_says_the_same(by_layer: dict[str, Any]) -> None:
    """A layer that repeats the effective value of a dependency changes nothing."""
    configuration, _ = read(repository(by_layer))
    assert configuration is not None
    (dependency,) = configuration.callers["web"].dependencies
    again = {name: msgspec.to_builtins(getattr(dependency, name)) for name in fields}
    configuration, faults = read(repository({**by_layer, "dependency": again, "route": {}}))
    assert configuration is not None, faults
    (repeated,) = configuration.callers["web"].dependencies
    assert {name: getattr(repeated, name) for name in fields} == {name: getattr(dependency, name) for name in fields}
