"""Mesh configuration over streams: a real Envoy takes everything, and a roll-out under load loses no request."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness.mesh_rollout import Follower, Stage, apps, dependency, follow, load, serves
from harness.process import eventually, free_port
from harness.registry import registry
from harness.stream_server import stream_server

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.mesh import Mesh
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog, Kind
from meshconfig.snapshot import compile_mesh
from registry.cache.mesh_cache import MeshCache
from registry.core.mesh import ServedNode, ServedResource, ServedSet, version_of
from registry.xds.grpc.mesh import MeshSource
from registry.xds.grpc.source import sources_by_url
from registry.xds.resources import MESH_TYPES

pytestmark = pytest.mark.envoy


def dumped(admin: dict[str, Any], kind: str, key: str) -> list[dict[str, Any]]:
    """Return the dynamic resources of a kind in an Envoy's configuration."""
    return [
        state[key]
        for section in admin["configs"]
        if section["@type"].endswith(kind)
        for name, states in section.items()
        if name.startswith("dynamic_") and name.endswith(("active_clusters", "route_configs"))
        for state in states
    ]


def served(revision: int, *dependencies: Dependency) -> ServedNode:
    """Return what the Envoys of `web` are served, at a revision."""
    configuration = Configuration(callers={"web": Caller("web", dependencies)}, mesh=Mesh())
    sets: dict[Kind, ServedSet] = {}
    for kind, resources in compile_mesh(configuration, Catalog()).nodes["web"].items():
        version = version_of(revision, 1)
        each = {name: ServedResource(name, version, resource.body) for name, resource in resources.items()}
        sets[kind] = ServedSet(version, each)
    return ServedNode("web", sets)


@pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])
def test_clusters_and_routes_come_over_the_stream(tmp_path: Path, api_type: str) -> None:
    """Rule 14: a cluster that changes, and another one of the same service, are warm at once."""
    cache = MeshCache()
    cache.set_database("db")
    cache.mark_ready()
    cache.apply([served(1, dependency("user"))])
    with stream_server() as server:
        mesh = (MeshSource(each, cache) for each in MESH_TYPES)
        server.world.sources = sources_by_url(server.world.eds, *mesh)
        server.assign("user", "10.0.0.1")
        follower = Follower("web", [free_port()], streams=[server.port], api_type=api_type)
        with follow(tmp_path, follower, Stage("", ["web"])) as envoy:
            eventually(lambda: envoy.hosts("user") == {"10.0.0.1:80": "HEALTHY"})
            changed = dependency("user", connect_timeout=2.0)
            more = dependency("user", name="more", connect_timeout=3.0)
            server.do(lambda: cache.apply([served(2, changed, more)]))
            eventually(lambda: envoy.hosts("more") == {"10.0.0.1:80": "HEALTHY"})
            eventually(lambda: envoy.total("cluster_manager.warming_clusters") == 0)
            assert envoy.hosts("user") == {"10.0.0.1:80": "HEALTHY"}
            assert '"connect_timeout": "2s"' in envoy.config_dump()
            server.do(lambda: cache.apply([served(3, more)]))
            eventually(lambda: envoy.hosts("user") == {})
            assert server.heard.count("rejected") == 0


@pytest.mark.proof
@pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"])
def test_a_roll_out_loses_nothing(migrated: str, tmp_path: Path, api_type: str) -> None:
    """Phases wait for the ACKs of an Envoy that polls nothing: for a switch, and for another name of a cluster."""
    stage = Stage(migrated, ["web"])
    port = free_port()
    with (
        registry(migrated, tmp_path, lease_ttl="5m", xds_listen=f"127.0.0.1:{port}") as process,
        apps(process, "user", "user-next") as running,
    ):
        stage.apply(dependency("user"))
        follower = Follower("web", [process.port], streams=[port], api_type=api_type)
        with follow(tmp_path, follower, stage) as envoy:
            eventually(lambda: serves(follower.port), within=15)
            with load(follower.port) as sender:
                stage.apply(dependency("user-next", cluster="next"))
                switched = stage.wait()
                before = running["user-next"].count("/")
                eventually(lambda: running["user-next"].count("/") > before)
                # The new cluster has the service of the old one, whose assignment Envoy does not ask for again.
                stage.apply(dependency("user-next", cluster="renamed"))
                renamed = stage.wait()
                passed = sender.passed
                eventually(lambda: sender.passed > passed)
            assert (sender.failures, sender.passed > 100) == ([], True), stage.steps()
            assert max(switched, renamed) < 15, "it waits for ACKs, and not for a deadline"
            assert all("every Envoy has followed" in step for step in stage.steps()), stage.steps()
            admin = json.loads(envoy.config_dump())
            clusters = {each["name"]: each for each in dumped(admin, "ClustersConfigDump", "cluster")}
            assert set(clusters) == {"renamed"}
            assert clusters["renamed"]["eds_cluster_config"]["eds_config"]["ads"] == {}
            (routes,) = dumped(admin, "RoutesConfigDump", "route_config")
            assert "renamed" in json.dumps(routes)
            assert envoy.total("cluster_manager.cds.update_rejected") == 0
            assert envoy.counter("registry", "upstream_cx_total") == 1
