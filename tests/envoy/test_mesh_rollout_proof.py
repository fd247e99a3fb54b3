"""Every kind of change under load, with Envoys that follow in three ways, and registries that die in between."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.envoy import Envoy
from harness.mesh_revisions import store_resources
from harness.mesh_rollout import Follower, Load, Stage, apps, dependency, follow, late_endpoints, load, serves
from harness.process import eventually
from harness.registry import Registry, registry

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.health_check import HealthCheck
from meshconfig.resource import make_resource

pytestmark = [pytest.mark.envoy, pytest.mark.proof]

APPS = ("user", "user-next", "cart")


class Fleet:
    """Envoys under load.

    Attributes:
        stage: what is applied to them.
        loads: the clients of each, by its name.
        envoys: the Envoys, by name.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.loads: dict[str, Load] = {}
        self.envoys: dict[str, Envoy] = {}

    @property
    def failures(self) -> dict[str, list[str]]:
        """What failed, by Envoy."""
        return {name: each.failures for name, each in self.loads.items() if each.failures}

    def roll_out(self, *dependencies: Dependency, within: float = 90.0) -> None:
        """Apply and wait; nothing may fail, and every Envoy has to answer afterwards."""
        before = {name: each.passed for name, each in self.loads.items()}
        self.stage.apply(*dependencies)
        self.stage.wait(within)
        time.sleep(0.5)
        assert self.failures == {}, self.stage.steps()
        assert all(each.passed > before[name] for name, each in self.loads.items())


@contextlib.contextmanager
def fleet(directory: Path, stage: Stage, *followers: Follower) -> Iterator[Fleet]:
    """Run Envoys, and send requests through each."""
    started = Fleet(stage)
    with contextlib.ExitStack() as stack:
        for follower in followers:
            started.envoys[follower.name] = stack.enter_context(follow(directory, follower, stage))
        for follower in followers:
            eventually(lambda port=follower.port: serves(port), within=20)  # type: ignore[misc]
            started.loads[follower.name] = stack.enter_context(load(follower.port))
        yield started


def test_no_change_loses_a_request_and_all_at_once_does(migrated: str, tmp_path: Path) -> None:
    """Switch, split, add, modify, rename, DNS, active checks, remove, roll back and share, each under load."""
    stage = Stage(migrated, ["web", "plain", "late"])
    with (
        registry(migrated, tmp_path, lease_ttl="10m") as process,
        apps(process, *APPS) as running,
        late_endpoints(process.port) as proxy,
    ):
        user = dependency("user")
        stage.apply(user)
        followers = (
            Follower("web", [process.port]),
            Follower("plain", [process.port], refresh_delay=1.0, request_timeout=0.9),
            Follower("late", [proxy]),
        )
        with fleet(tmp_path, stage, *followers) as rolled:
            next_user = dependency("user-next", cluster="next")
            rolled.roll_out(next_user)
            rolled.roll_out(dependency("user-next", cluster="next", split={"cart": 50, "user-next": 50}))
            cart = dependency("cart", name="cart")
            rolled.roll_out(next_user, cart)
            rolled.roll_out(dependency("user-next", cluster="next", connect_timeout=2.0), cart)
            rolled.roll_out(dependency("user-next", cluster="renamed"), cart)
            checked = HealthCheck(http="/healthz", interval=1.0, timeout=1.0)
            rolled.roll_out(dependency("user", cluster="checked", health_check=checked), cart)
            rolled.roll_out(dependency("", cluster="named", address=f"localhost:{running['user'].port}"), cart)
            rolled.roll_out(dependency("user", cluster="back"))
            rolled.roll_out(user)
            # A share of all Envoys but a few, and the same for all.
            stage.apply(next_user, share=50.0)
            stage.wait()
            number = process.client.get("/v1/mesh/rollout").json()["revision"]
            assert process.client.post(f"/v1/mesh/revisions/{number}/promote", json={}).status_code == 200
            stage.wait()
            assert rolled.failures == {}
            assert process.client.get("/v1/mesh/rollout").json()["shares"] == {}
            # The control: the same switch in one step, back and forth, since the order of two polls is chance.
            for number in range(12):
                stage.apply(user if number % 2 == 0 else next_user, at_once=True)
                time.sleep(2.5)
                if len(rolled.failures) == len(followers):
                    break
            assert rolled.failures.keys() == {follower.name for follower in followers}


def test_registries_that_die_in_a_step_lose_nothing(migrated: str, tmp_path: Path) -> None:
    """One is killed in each step, and another goes on; then both are, and the roll-out goes on when they are back."""
    stage = Stage(migrated, ["web"])
    with contextlib.ExitStack() as stack:

        def start(port: int | None = None) -> Registry:
            more = {} if port is None else {"listen": f"127.0.0.1:{port}"}
            return stack.enter_context(registry(migrated, tmp_path, lease_ttl="10m", **more))

        def kill(process: Registry) -> None:
            process.process.kill()
            process.process.wait()

        first, second = start(), start()
        stack.enter_context(apps(second, *APPS))
        stage.apply(dependency("user"))
        follower = Follower("web", [first.port, second.port])
        rolled = stack.enter_context(fleet(tmp_path, stage, follower))
        stage.apply(dependency("user-next", cluster="next"))
        kill(first)
        stage.wait_for_step(2)
        first = start(first.port)
        kill(second)
        stage.wait(150)
        assert rolled.failures == {}, stage.steps()
        second = start(second.port)
        stage.apply(dependency("user"))
        for process in (first, second):
            kill(process)
        time.sleep(1)
        first, second = start(first.port), start(second.port)
        stage.wait(150)
        time.sleep(0.5)
        assert rolled.failures == {}, stage.steps()
        assert rolled.loads["web"].passed > 100


def test_an_envoy_that_refuses_polls_seldom_and_takes_the_next_revision(migrated: str, tmp_path: Path) -> None:
    """At most five polls for clusters in ten seconds; its routes stay, and so does every request."""
    stage = Stage(migrated, ["web"])
    with registry(migrated, tmp_path, lease_ttl="10m") as process, apps(process, *APPS):
        stage.apply(dependency("user"))
        with fleet(tmp_path, stage, Follower("web", [process.port])) as rolled:
            refused = make_resource("clusters", {"name": "bad", "connect_timeout": "-1s"})
            good = stage.compiled(dependency("user"))["web"]
            bad = {**good, "clusters": {**good["clusters"], "bad": refused}}
            stage.run(lambda database: store_resources(database, {"web": bad}))
            eventually(lambda: _state(process) == "refused", within=10)
            envoy = rolled.envoys["web"]
            before = envoy.total("cluster_manager.cds.update_attempt")
            time.sleep(10)
            assert envoy.total("cluster_manager.cds.update_attempt") - before <= 5
            assert _state(process) == "refused"
            rolled.roll_out(dependency("user-next", cluster="next"))


def _state(process: Registry) -> str:
    rollouts = process.client.get("/v1/mesh/rollout").json()["rollouts"]
    return str(rollouts[0]["state"]) if rollouts else ""
