"""The gateways of a changed catalog: when they are compiled again, and which of them are served at once."""

import math

import pytest

from meshconfig.phases import Phase, Rollout
from meshconfig.position import Fault, Position, Severity
from registry.background.mesh_gateways import GatewaySchedule, changed_gateways
from registry.compiler.job import ApplyRequest, Compiled, refusal
from registry.core.rollout import NodeRollout, Pause, RolloutState, held_nodes
from registry.store.mesh import NodeNames

KEY = (7, b"catalog")
STATE = (7, 100, 3)


def names(digest: str) -> NodeNames:
    """Return the resources of a gateway."""
    return {"routes": {"default": digest}}


def rollout(node: str, *, paused: bool) -> NodeRollout:
    """Return a roll-out that is under way."""
    order = Pause("alice", "it is Friday", 1.0) if paused else None
    return NodeRollout(node, 0.0, 7, 1.0, RolloutState(Rollout(Phase.ADD), 1, paused=order))


def test_what_is_served_is_not_compiled_again() -> None:
    """A catalog that did not change is not even read; one that changed elsewhere is read and not compiled."""
    schedule = GatewaySchedule()
    assert schedule.may_be_due(STATE, 0.0)
    assert schedule.is_due(KEY, 0.0)
    schedule.note_compiled(KEY, math.inf)
    schedule.note_looked_at(STATE)
    assert not schedule.may_be_due(STATE, 1e9)
    assert schedule.may_be_due((7, 101, 3), 0.0)
    assert schedule.may_be_due((7, 100, 4), 0.0)
    assert not schedule.is_due(KEY, 1e9)
    assert schedule.is_due((8, b"catalog"), 0.0)
    assert schedule.is_due((7, b"other"), 0.0)


def test_what_failed_is_compiled_again_later_although_the_catalog_is_the_same() -> None:
    """An Envoy that crashed or took too long says nothing about the catalog, which may not change for days."""
    schedule = GatewaySchedule()
    schedule.note_compiled(KEY, 30.0)
    schedule.note_looked_at(STATE)
    assert not schedule.may_be_due(STATE, 29.0)
    assert not schedule.is_due(KEY, 29.0)
    assert schedule.may_be_due(STATE, 30.0)
    assert schedule.is_due(KEY, 30.0)
    schedule.note_compiled(KEY, math.inf)
    assert not schedule.may_be_due(STATE, 1e9)


def test_another_lead_compiles_again() -> None:
    """Another process may have led in between, and have compiled the gateways for another catalog."""
    schedule = GatewaySchedule()
    assert schedule.begin_lead(1)
    schedule.note_compiled(KEY, math.inf)
    schedule.note_looked_at(STATE)
    assert not schedule.begin_lead(1)
    assert not schedule.may_be_due(STATE, 1e9)
    for lead in (0, 2):
        assert schedule.begin_lead(lead)
    assert schedule.may_be_due(STATE, 0.0)
    assert schedule.is_due(KEY, 0.0)


def test_a_change_of_the_catalog_does_not_wait_for_the_retry() -> None:
    """It may be what mends the refusal."""
    schedule = GatewaySchedule()
    schedule.note_compiled(KEY, 30.0)
    schedule.note_looked_at(STATE)
    assert schedule.may_be_due((7, 101, 3), 1.0)
    assert schedule.is_due((7, b"other"), 1.0)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (Compiled(ApplyRequest({})), ""),
        (Compiled(ApplyRequest({}), unproven="Envoy took too long."), "Envoy took too long."),
        (Compiled(ApplyRequest({}), [Fault(Position("mesh.yaml"), "No.")], unproven="x"), "mesh.yaml: No."),
        (Compiled(ApplyRequest({}), [Fault(Position("mesh.yaml"), "Hm.", "", Severity.WARNING)]), ""),
    ],
)
def test_what_no_envoy_accepted_is_refused(result: Compiled, reason: str) -> None:
    """A warning of the catalog keeps nothing from being served."""
    assert refusal(result) == reason


def test_a_gateway_waits_while_a_share_has_another_revision_or_its_rollout_is_paused() -> None:
    """All its Envoys would get the revision of the share at once, and what an operator has paused would go on."""
    before = {name: names("old") for name in ("shared", "paused", "rolling", "free", "same")}
    compiled = {name: names("new") for name in ("shared", "paused", "rolling", "free", "unknown")}
    held = held_nodes({"shared": 10.0}, [rollout("paused", paused=True), rollout("rolling", paused=False)])
    changed, waiting = changed_gateways(before, {**compiled, "same": names("old")}, held)
    assert changed == {"rolling": names("new"), "free": names("new")}
    assert waiting == ["paused", "shared"]


def test_a_gateway_that_has_not_changed_does_not_wait() -> None:
    """Otherwise it would be compiled again and again for as long as a share stays."""
    assert changed_gateways({"a": names("x")}, {"a": names("x")}, {"a"}) == ({}, [])


def test_a_rollout_that_cannot_be_read_holds_nothing() -> None:
    """What is wanted next mends it."""
    assert held_nodes((), [NodeRollout("a", 0.0, 7, 1.0, None)]) == frozenset()
