"""Histories of roll-outs in virtual time: no Envoy that is waited for ever loses a cluster that its routes lead to."""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.meshconfig.simulated_fleet import MAX_FOLLOWING, Clock, Envoy, Registry
from unit.meshconfig.test_phases import cluster, node, routes, simple

from meshconfig.phases import MAX_DEADLINE, Phase
from meshconfig.resource import NodeResources

SERVICES = ("user", "shop", "")
Action = tuple[float, str, Any]


def dangling(resources: NodeResources) -> list[str]:
    """Return the clusters that served routes and listeners lead to and that are not served."""
    used = {
        name
        for kind, served in resources.items()
        if kind in ("routes", "listeners")
        for resource in served.values()
        for name in resource.uses
    }
    return sorted(used - resources.get("clusters", {}).keys())


@st.composite
def revisions(draw: st.DrawFn) -> NodeResources:
    """Draw clusters, some of one service, and routes to some of them."""
    names = draw(st.sets(st.sampled_from("abcd"), min_size=1))
    clusters = [
        cluster(name, draw(st.sampled_from(SERVICES)), body=draw(st.sampled_from("xy")), settle=1.5)
        for name in sorted(names)
    ]
    used = draw(st.sets(st.sampled_from(sorted(names)), min_size=1))
    return node(clusters, routes(*sorted(used), body=draw(st.sampled_from("xy"))))


ACTIONS = st.one_of(
    st.tuples(st.just("apply"), revisions()),
    st.tuples(st.just("apply"), revisions()),
    st.tuples(st.just("kill"), st.sampled_from([0, 1])),
    st.tuples(st.just("start"), st.sampled_from([0, 1])),
    st.tuples(st.just("silence"), st.sampled_from([0.5, 10.0, MAX_FOLLOWING, 100.0])),
    st.tuples(st.just("refuse"), st.sampled_from([1.0, 20.0])),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("envoy"), st.none()),
    st.tuples(st.just("clock"), st.sampled_from([-3600.0, -5.0, 5.0, 3600.0])),
)


class History:
    """A fleet of one node.cluster, and what has happened to it."""

    def __init__(self, seed: int, *, naive: bool = False) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.registry = Registry(self.clock, self.dice, simple("a", "b"), naive=naive)
        self.envoys: list[Envoy] = []
        self.lost: list[str] = []
        """Where an Envoy could not have answered a request."""
        self._checked: NodeResources = {}
        for hold, pause in ((True, 0.2), (False, 1.0), (False, self.dice.choice([0.2, 5.0, 20.0]))):
            self.add(hold=hold, pause=pause)

    def add(self, *, hold: bool, pause: float) -> None:
        """Start another Envoy, whose endpoints come late or at once."""
        late = self.dice.choice([0.01, 1.0])
        self.envoys.append(Envoy(f"e{len(self.envoys)}", self.registry, pause=pause, hold=hold, late=late))

    def act(self, action: str, value: Any) -> None:
        """Let something happen."""
        registry, envoy = self.registry, self.dice.choice(self.envoys)
        if action == "apply":
            registry.apply(value)
        elif action in ("kill", "start"):
            getattr(registry, action)(value)
        elif action in ("silence", "refuse"):
            getattr(envoy, action)(value)
        elif action == "restart":
            envoy.restart()
        elif action == "envoy":
            self.add(hold=True, pause=0.2)
        else:
            registry.set_clock(value)

    def check(self) -> None:
        """Hold what has to be true at any time."""
        if self.registry.served is not self._checked:
            self._checked = self.registry.served
            assert dangling(self._checked) == []
        # Whoever is away for longer than it is waited for may lose requests; nobody else because of it.
        self.lost += [
            f"{self.clock.now:.2f} {envoy.name} {envoy.uses} {sorted(envoy.warm)}"
            for envoy in self.envoys
            if not envoy.excused and not envoy.is_whole()
        ]

    def play(self, actions: list[tuple[float, tuple[str, Any]]]) -> None:
        """Let things happen, each so many seconds after the last one, and then nothing until the roll-out is over."""
        self.clock.run(5.0, self.check)
        for seconds, (action, value) in actions:
            self.clock.run(self.clock.now + seconds, self.check)
            self.act(action, value)
            self.check()
        for number in range(len(self.registry.processes)):
            self.registry.start(number)
        for _ in range(int(2 * MAX_DEADLINE / 10)):
            if self.registry.rollout.phase is Phase.DONE:
                break
            self.clock.run(self.clock.now + 10, self.check)
        self.clock.run(self.clock.now + 45, self.check)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**16),
    actions=st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 4.0, 20.0, 70.0]), ACTIONS), max_size=10),
)
def test_no_history_of_roll_outs_loses_a_request(seed: int, actions: list[tuple[float, tuple[str, Any]]]) -> None:
    """Revisions, restarts, silence, refusals, late Envoys and clocks in any order: clusters are there before routes."""
    history = History(seed)
    history.play(actions)
    assert history.lost == []
    assert history.registry.rollout.phase is Phase.DONE
    assert history.registry.served == history.registry.wanted


RENAMED = node([cluster("users", "a")], routes("users"))
CHANGES = {
    "switch": simple("b", "c"),
    "add": simple("a", "b", "c"),
    "remove": simple("a"),
    "modify": node([cluster("a", body="new"), cluster("b")], routes("a", "b", body="new")),
    "rename": node([cluster("users", "a"), cluster("b")], routes("b", "users")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(3))
def test_each_kind_of_change_loses_nothing(change: str, seed: int) -> None:
    """And is over within 15 seconds where all Envoys poll at least every second."""
    history = History(seed)
    history.envoys.pop().silence(1e9)
    history.clock.run(60.0, history.check)
    history.act("apply", CHANGES[change])
    began = history.clock.now
    while history.registry.rollout.phase is not Phase.DONE:
        history.clock.run(history.clock.now + 0.1, history.check)
    assert (history.lost, history.clock.now - began < 15) == ([], True)


@pytest.mark.parametrize("change", ["switch", "add", "remove", "rename"])
def test_the_naive_order_loses_requests_in_the_same_histories(change: str) -> None:
    """Everything at once, as it would be without phases."""
    history = History(1, naive=True)
    history.clock.run(60.0, history.check)
    history.act("apply", CHANGES[change])
    history.clock.run(120.0, history.check)
    assert history.lost
