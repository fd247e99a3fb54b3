"""PostgreSQL goes away in the middle of a roll-out, while a real Envoy has traffic."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from harness.cluster import Cluster
from harness.figures import Figures
from harness.mesh_rollout import Follower, Stage, apps, dependency, follow, load, serves
from harness.operator import registryctl
from harness.process import eventually
from harness.registry import registry

pytestmark = [pytest.mark.faults, pytest.mark.envoy]

_CALLER = "web"
_AWAY = 8.0
"""Seconds for which PostgreSQL is away: several looks at the roll-out, and several time-outs of a statement."""


@contextmanager
def _killed(server: Cluster) -> Iterator[None]:
    """Kill PostgreSQL, and start it again."""
    server.kill()
    yield
    server.start()


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("outage", [_killed, Cluster.frozen])
def test_a_rollout_goes_on_behind_an_outage_of_postgres(
    outage: Callable[[Cluster], AbstractContextManager[None]],
    step: int,
    killable: Cluster,
    tmp_path: Path,
    figures: Figures,
) -> None:
    """Whichever step it is in, no request is lost, the operator reads why nothing goes on, and then it does."""
    database = killable.create_database()
    stage = Stage(database, [_CALLER])
    with ExitStack() as stack:
        settings = {"lease_ttl": "10m", "database_timeout": "2s"}
        first, second = (stack.enter_context(registry(database, tmp_path, **settings)) for _ in range(2))
        running = stack.enter_context(apps(first, "user", "user-next"))
        stage.apply(dependency("user"))
        follower = Follower(_CALLER, [first.port, second.port])
        stack.enter_context(follow(tmp_path, follower, stage))
        eventually(partial(serves, follower.port), within=20)
        sender = stack.enter_context(load(follower.port))
        stage.apply(dependency("user-next", cluster="next"))
        stage.wait_for_step(step)
        assert stage.under_way(), "the roll-out was over before PostgreSQL went away"
        with outage(killable):
            passed = sender.passed
            time.sleep(_AWAY)
            assert sender.passed > passed
            said = registryctl(first.url, "mesh", "rollout")
            assert (said.status, "PostgreSQL" in said.err, "Roll-outs wait where they are" in said.err) == (
                5,
                True,
                True,
            )
            assert "PostgreSQL is away" in registryctl(second.url, "check").out
        went_on = stage.wait(150)
        before = running["user-next"].count("/")
        eventually(lambda: running["user-next"].count("/") > before, within=10)
        how = f"PostgreSQL {outage.__name__.strip('_')} in step {step} of a roll-out"
        figures.none_of("mesh", f"{how}: lost requests", len(sender.failures), sender.passed)
        figures.at_most("mesh", f"{how}: rolled out behind it", 60, went_on)
        assert sender.failures == [], stage.steps()
