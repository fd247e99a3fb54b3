"""The elements and places that Envoy's error names, whatever stands in the error beside them."""

import time

from meshconfig.refusal import RoutePlace, named_element, reason_of
from meshconfig.repository import read
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh
from meshconfig.static_bootstrap import StaticBootstrap, static_bootstraps

FILES = {
    "services/web.yaml": "dependencies:\n- service: shop\n"
    "  limit: {connections_per_endpoint: 9}\n"
    "  routes:\n  - {prefix: /live, upgrade: [websocket]}\n  - {prefix: /chat, upgrade: [websocket]}\n  - {prefix: /}\n"
}


def embedded() -> StaticBootstrap:
    """Return the bootstrap of a proof."""
    configuration, _ = read(FILES)
    assert configuration is not None
    [bootstrap] = static_bootstraps(compile_mesh(configuration, Catalog()))
    return bootstrap


def test_an_error_that_repeats_a_long_text_is_read_in_its_length() -> None:
    """Envoy repeats what it refuses: a megabyte of a definition must not keep a compiler busy."""
    bootstrap = embedded()
    [cluster] = bootstrap.clusters
    said = "x" * 1_000_000 + f" cluster '{cluster.embedded_name}': " + "message a, near 1:1 (offset 1): " * 30_000
    begins = time.process_time()
    assert named_element(said, bootstrap) is cluster
    assert reason_of(said)
    assert time.process_time() - begins < 5


def test_a_route_of_handshakes_counts_as_the_route_that_it_is_made_of() -> None:
    """The definition has three routes, and Envoy three of each of two and two of the last."""
    routes = [
        {"stat_prefix": f"{name}{suffix}", "route": {"upgrade_configs": []} if suffix else {}}
        for name in ("live", "chat")
        for suffix in ("_websocket", "", "")
    ]
    host = {"name": "shop", "routes": [*routes, {"stat_prefix": "all", "route": {}}]}
    assert [RoutePlace(0, host, number).ordinal() for number in range(7)] == [0, 0, 0, 1, 1, 1, 2]
