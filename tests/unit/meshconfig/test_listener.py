"""The egress listener: what every request of an app passes, whatever its dependencies are."""

import json
from typing import Any

from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.listener import egress


def manager(mesh: Mesh) -> dict[str, Any]:
    """Return the connection manager of a caller's listener."""
    document = egress(mesh, "web")
    config: dict[str, Any] = document["filter_chains"][0]["filters"][0]["typed_config"]
    return config


def test_filters_whose_settings_routes_bring_always_stand_in_the_chain() -> None:
    """The listener is in the bootstrap; a fault in a later route would silently do nothing without its filter."""
    names = [item["name"].rpartition(".")[2] for item in manager(Mesh())["http_filters"]]
    assert names == ["tap", "grpc_stats", "fault", "stateful_session", "router"]


def test_paths_are_normalized_before_anything_reads_them() -> None:
    """/api/../admin must not pass as a path below /api/."""
    config = manager(Mesh())
    assert config["normalize_path"] is config["merge_slashes"] is True
    assert config["path_with_escaped_slashes_action"] == "REJECT_REQUEST"


def test_only_listed_ranges_may_set_timeouts_by_headers() -> None:
    """An empty list would mean every private address, and no list means nobody."""
    assert "internal_address_config" not in manager(Mesh())
    ranges = manager(Mesh(internal_ranges=("127.0.0.1", "10.0.0.0/8", "::1")))["internal_address_config"]["cidr_ranges"]
    assert [(each["address_prefix"], each["prefix_len"]) for each in ranges] == [
        ("127.0.0.1", 32),
        ("10.0.0.0", 8),
        ("::1", 128),
    ]


def test_the_access_log_leaves_queries_out() -> None:
    """They can hold what nobody should log."""
    text = json.dumps(manager(Mesh())["access_log"])
    assert "%PATH(NQ" in text
    assert "REQ(:PATH)" not in text


def test_the_address_and_the_protocol_are_those_of_the_mesh() -> None:
    """Loopback unless a file says otherwise."""
    listen = Listen(address="::1", port=9000, protocol="http1")
    document = egress(Mesh(egress=listen), "web", {"route_config": {"name": "default"}})
    assert document["address"] == {"socket_address": {"address": "::1", "port_value": 9000}}
    config = document["filter_chains"][0]["filters"][0]["typed_config"]
    assert (config["codec_type"], config["route_config"]) == ("HTTP1", {"name": "default"})
    assert "rds" not in config
