"""Published objects: complete responses under itacho's keys, in an order in which routes always lead somewhere."""

import json
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from meshconfig.layout import MANIFEST, manifest, node_of, objects, resource_key, steps
from meshconfig.resource import NodeResources, Snapshot, make_resource

NAMES = ("a", "b", "c")
Uses = Mapping[str, Sequence[str]]
"""For each node.cluster, the clusters that its routes name, which are the clusters that it has."""


def snapshot_of(uses: Uses) -> Snapshot:
    """Return a snapshot in which each node.cluster has the clusters that its routes name."""
    return Snapshot({node: _node(clusters) for node, clusters in uses.items()})


def _node(clusters: Sequence[str]) -> NodeResources:
    routes = make_resource("routes", {"name": "default", "clusters": sorted(clusters)})
    return {
        "clusters": {name: make_resource("clusters", {"name": name}) for name in clusters},
        "routes": {"default": routes},
        "listeners": {},
    }


def leads_nowhere(there: Mapping[str, bytes], nodes: Sequence[str]) -> list[str]:
    """Return the node.clusters whose routes name a cluster that is not there."""
    return [node for node in nodes if not _named(there, node) <= _clusters(there, node)]


def _named(there: Mapping[str, bytes], node: str) -> set[str]:
    body = there.get(resource_key("routes", node))
    return set() if body is None else set(json.loads(body)["resources"][0]["clusters"])


def _clusters(there: Mapping[str, bytes], node: str) -> set[str]:
    body = there.get(resource_key("clusters", node), b'{"resources":[]}')
    return {each["name"] for each in json.loads(body)["resources"]}


def test_an_object_is_a_complete_response() -> None:
    """Its version is that of its content; an empty set of clusters is one, no listeners are none."""
    wanted = objects(snapshot_of({"web": ["a"], "alone": []}), {"web": {"node": {"id": "web"}}})
    response = json.loads(wanted["v3/discovery/clusters/web"])
    assert response["type_url"] == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    assert [each["@type"] for each in response["resources"]] == [response["type_url"]]
    assert response["version_info"]
    assert json.loads(wanted["v3/discovery/clusters/alone"])["resources"] == []
    assert sorted(wanted) == [
        "bootstrap/web.json",
        "v3/discovery/clusters/alone",
        "v3/discovery/clusters/web",
        "v3/discovery/routes/alone",
        "v3/discovery/routes/web",
    ]
    assert {node_of(key) for key in wanted} == {"alone", "web"}
    assert objects(snapshot_of({"web": ["a"]}), {}) == objects(snapshot_of({"web": ["a"]}), {})


def test_the_tables_of_a_front_are_files_of_their_own() -> None:
    """Envoy refuses a file with two tables of routes, and a listener has to know which is its own."""
    listener = make_resource(
        "listeners",
        {
            "name": "https",
            "rds": {
                "route_config_name": "b",
                "config_source": {"initial_fetch_timeout": "15s", "api_config_source": {}},
            },
        },
    )
    routes = {name: make_resource("routes", {"name": name}) for name in ("a", "b")}
    snapshot = Snapshot({"www": {"clusters": {}, "routes": routes, "listeners": {"https": listener}}})
    wanted = objects(snapshot, {}, directory="/etc/mesh/")
    (served,) = json.loads(wanted["v3/discovery/listeners/www"])["resources"]
    path = "v3/discovery/route_tables/www/b"
    assert served["rds"]["config_source"] == {
        "initial_fetch_timeout": "15s",
        "path_config_source": {"path": f"/etc/mesh/{path}"},
    }
    assert [each["name"] for each in json.loads(wanted[path])["resources"]] == ["b"]
    assert "api_config_source" in objects(snapshot, {})["v3/discovery/listeners/www"].decode()


uses = st.dictionaries(st.sampled_from(["web", "admin"]), st.lists(st.sampled_from(NAMES), unique=True), min_size=1)


@given(st.lists(uses, min_size=1, max_size=4), st.data())
def test_routes_lead_to_clusters_that_are_there_wherever_it_is_interrupted(
    history: list[Uses], data: st.DataObject
) -> None:
    """After every object, of any number of publishes that were cut off; and the last one comes to its end."""
    there: dict[str, bytes] = {}
    for number, wanted_uses in enumerate(history):
        wanted = objects(snapshot_of(wanted_uses), {})
        writes = [(key, body) for step in steps(there, wanted) for key, body in step.written.items()]
        whole = number == len(history) - 1
        stop = len(writes) if whole else data.draw(st.integers(0, len(writes)))
        for key, body in writes[:stop]:
            there[key] = body
            assert leads_nowhere(there, ["web", "admin"]) == []
        if whole:
            assert {key: there[key] for key in wanted} == wanted
            assert steps(there, wanted) == []


def test_envoys_get_time_to_follow() -> None:
    """After clusters were added and before any is removed; where nothing was there, nobody has to follow."""
    first = objects(snapshot_of({"web": ["a"]}), {"web": {}})
    assert [(step.name, step.settles) for step in steps({}, first)] == [
        ("clusters are added", False),
        ("routes change", False),
        ("listeners and bootstraps change", False),
    ]
    assert [(step.name, step.settles) for step in steps(first, objects(snapshot_of({"web": ["b"]}), {"web": {}}))] == [
        ("clusters are added", True),
        ("routes change", True),
        ("clusters are removed", False),
    ]


def test_a_damaged_object_is_replaced() -> None:
    """Half a file, or something else, has no clusters that could be kept."""
    wanted = objects(snapshot_of({"web": ["a"]}), {})
    for damaged in (b"", b"{", b"[]", b"\xff", b'{"resources":[1]}'):
        assert next(iter(steps({**wanted, "v3/discovery/clusters/web": damaged}, wanted))).written == {
            "v3/discovery/clusters/web": wanted["v3/discovery/clusters/web"]
        }


def test_the_manifest_remembers_what_is_left() -> None:
    """An object of a service that is defined no more is named until somebody has removed it."""
    first = manifest({"k1": b"1", "k2": b"2"}, "d1", None)
    second = manifest({"k1": b"1"}, "d2", first.encode())
    third = manifest({"k1": b"1"}, "d2", second.encode())
    assert (second.left, third) == (("k2",), second)
    assert manifest({"k2": b"2"}, "d3", third.encode()).left == ("k1",)
    assert manifest({}, "d", b"{").left == ()
    assert MANIFEST not in first.objects
