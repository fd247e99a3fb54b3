"""Roll-outs under load, through a real Envoy: no request is lost; all at once, the same change loses some."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.edge_machine import EdgeMachine
from harness.gate import Condition, gate
from harness.mesh_app import MeshApp
from harness.mesh_rollout import Follower, Load, Stage, apps, dependency, follow, load, serves
from harness.process import eventually
from harness.registry import registry

pytestmark = pytest.mark.envoy


@dataclass
class Scene:
    """An Envoy under load, the apps behind it, and what it is applied."""

    stage: Stage
    load: Load
    apps: dict[str, MeshApp]


@pytest.fixture
def scene(migrated: str, tmp_path: Path) -> Iterator[Scene]:
    """A registry, two apps, and an Envoy that calls the first of them under load."""
    stage = Stage(migrated, ["web"])
    with registry(migrated, tmp_path, lease_ttl="5m") as process, apps(process, "user", "user-next") as running:
        stage.apply(dependency("user"))
        follower = Follower("web", [process.port])
        with follow(tmp_path, follower, stage):
            eventually(lambda: serves(follower.port), within=15)
            with load(follower.port) as sender:
                yield Scene(stage, sender, running)


def _arrive(app: MeshApp) -> None:
    """Wait until requests arrive at an app."""
    before = app.count("/")
    eventually(lambda: app.count("/") > before, within=10)


def test_a_switch_and_a_rename_lose_nothing_and_all_at_once_does(scene: Scene) -> None:
    """Phases bring an Envoy that holds its polls to another service, and to another name of its cluster, in seconds."""
    scene.stage.apply(dependency("user-next", cluster="next"))
    switched = scene.stage.wait()
    _arrive(scene.apps["user-next"])
    scene.stage.apply(dependency("user-next", cluster="renamed"))
    renamed = scene.stage.wait()
    # The websocket that was open before all of it is open still, at the app that it began with.
    assert (scene.load.failures, scene.load.passed > 100, scene.load.messages > 100) == ([], True, True)
    assert max(switched, renamed) < 15
    # The control: the same switch in one step, as it would be without phases. Where the cluster's poll happens to be
    # answered before the route's, one of them loses nothing.
    for service, cluster in (("user", "user"), ("user-next", "next")) * 5:
        scene.stage.apply(dependency(service, cluster=cluster), at_once=True)
        _arrive(scene.apps[service])
        if scene.load.failures:
            break
    assert scene.load.failures


@pytest.mark.proof
def test_a_roll_out_through_an_edge_loses_nothing(migrated: str, tmp_path: Path) -> None:
    """Clusters and routes come through the edge in their phases; with the registry away an Envoy starts from disk."""
    stage, machine = Stage(migrated, ["web"]), EdgeMachine(tmp_path)
    with (
        registry(migrated, tmp_path, lease_ttl="5m") as process,
        gate(process.port) as entry,
        apps(process, "user", "user-next") as running,
    ):
        stage.apply(dependency("user"))
        follower = Follower("web", [entry.port], edge=machine.edge)
        with machine.registrar(entry.url) as beside:
            with follow(tmp_path, follower, stage) as envoy:
                eventually(lambda: serves(follower.port), within=15)
                with load(follower.port) as sender:
                    stage.apply(dependency("user-next", cluster="next"))
                    switched = stage.wait()
                    _arrive(running["user-next"])
                    stage.apply(dependency("user-next", cluster="renamed"))
                    renamed = stage.wait()
                    print(f"switched in {switched:.1f} s, renamed in {renamed:.1f} s")  # noqa: T201  # figures
                    entry.turn(Condition.REFUSING)
                    passed = sender.passed
                    eventually(lambda: sender.passed > passed + 100, within=20)
                    assert (sender.failures, sender.passed > 100) == ([], True), stage.steps()
                assert envoy.counter("registry/direct", "upstream_rq_total") == 0
            beside.kill()
        with machine.registrar(entry.url), follow(tmp_path, follower, stage):
            assert serves(follower.port)
            entry.turn(Condition.UP)
            with load(follower.port) as sender:
                stage.apply(dependency("user", cluster="back"))
                stage.wait()
                _arrive(running["user"])
                assert sender.failures == []
