"""The Envoys of one node.cluster as people look at them."""

from msgspec.structs import replace

from registry.core.mesh import ServedNode, ServedResource, ServedSet, version_of
from registry.core.mesh_envoy import envoys_of
from registry.core.mesh_subscriber import MeshReport

OLD, NEW = version_of(1, 1), version_of(2, 1)
NODE = ServedNode(
    "web",
    {"clusters": ServedSet(NEW, {}), "routes": ServedSet(NEW, {"default": ServedResource("default", OLD, b"{}")})},
)
REPORT = MeshReport(
    process="a",
    kind="clusters",
    name="",
    node_id="web/1",
    address="10.0.0.1",
    cluster="web",
    envoy="1.40.0",
    version=NEW,
    refused=None,
    refused_at=None,
    denied=False,
    started_at=None,
    first_seen=1.0,
    polled_at=2.0,
    seen_at=3.0,
    held=False,
    pause=None,
)
ROUTES = replace(REPORT, kind="routes", name="default", version=OLD)


def test_an_envoy_is_current_by_the_version_of_each_resource() -> None:
    """Routes are asked for by name, so that the version of the one that is named counts; of processes the newest."""
    elsewhere = replace(REPORT, process="b", version=OLD, seen_at=2.5)
    (envoy,) = envoys_of([REPORT, elsewhere, ROUTES], NODE)
    assert (envoy.current, envoy.refuses, envoy.last_seen) == (True, False, 3.0)
    assert [each.served for each in envoy.shown["routes"]] == [OLD]
    assert "listeners" not in envoy.shown


def test_envoys_that_do_not_follow_come_first() -> None:
    """One that refuses, then one that is behind, then the others; what an accepted version refused before is over."""
    refusing = replace(REPORT, node_id="web/9", version=OLD, refused=NEW)
    behind = replace(REPORT, node_id="web/8", version=OLD)
    over = replace(REPORT, node_id="web/2", refused=OLD)
    denied = replace(REPORT, node_id="web/3", denied=True, version=None)
    envoys = envoys_of([REPORT, over, behind, refusing, denied], NODE)
    assert [each.node_id for each in envoys] == ["web/3", "web/9", "web/8", "web/1", "web/2"]
    assert [each.refuses for each in envoys] == [True, True, False, False, False]


def test_a_share_has_its_own_version_and_nothing_defined_has_none() -> None:
    """The node id decides which of both an Envoy is served."""
    apart = replace(NODE, share=100.0, share_sets={"clusters": ServedSet(OLD, {})})
    (envoy,) = envoys_of([REPORT], apart)
    assert ([each.served for each in envoy.shown["clusters"]], envoy.current) == ([OLD], False)
    (envoy,) = envoys_of([replace(REPORT, kind="secrets"), ROUTES], None)
    assert ([each.served for each in envoy.shown["routes"]], envoy.current) == ([None], False)
