"""Mesh configuration over one stream: an Envoy under load follows a roll-out, and no request is lost."""

from pathlib import Path

import pytest
from harness.mesh_rollout import Follower, Stage, apps, dependency, follow, load, serves
from harness.process import eventually, free_port
from harness.registry import registry

pytestmark = pytest.mark.envoy


def test_a_roll_out_over_a_stream_loses_nothing(migrated: str, tmp_path: Path) -> None:
    """A switch to another service and a changed cluster arrive in phases; nothing warms for longer than a moment."""
    stage, port = Stage(migrated, ["web"]), free_port()
    with (
        registry(migrated, tmp_path, lease_ttl="5m", xds_listen=f"127.0.0.1:{port}") as process,
        apps(process, "user", "user-next") as running,
    ):
        stage.apply(dependency("user"))
        follower = Follower("web", [process.port], streams=[port])
        with follow(tmp_path, follower, stage) as balancer:
            eventually(lambda: serves(follower.port), within=15, said=balancer.log.read_text)
            with load(follower.port) as sender:
                stage.apply(dependency("user-next", cluster="next"))
                stage.wait()
                before = running["user-next"].count("/")
                eventually(lambda: running["user-next"].count("/") > before)
                # Envoy warms a cluster that changed until its endpoints come again, although they are as they were.
                stage.apply(dependency("user-next", cluster="next", connect_timeout=2.5))
                stage.wait()
                eventually(lambda: '"connect_timeout": "2.500s"' in balancer.config_dump())
                eventually(lambda: balancer.total("cluster_manager.warming_clusters") == 0)
            assert (sender.failures, sender.passed > 100) == ([], True), stage.steps()
            assert balancer.total("cluster_manager.cds.update_rejected") == 0
            assert balancer.counter("registry", "upstream_cx_total") == 1
