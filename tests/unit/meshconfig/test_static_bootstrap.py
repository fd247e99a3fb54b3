"""Bootstraps for validation: everything compiled is in them, callers share what is equal, and no file is needed."""

from typing import Any

import msgspec

from meshconfig.bootstrap import bootstrap
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.route import Route
from meshconfig.definition.tls import Tls
from meshconfig.effective import Caller, Configuration
from meshconfig.proof import digest
from meshconfig.resource import Catalog, Snapshot, make_resource
from meshconfig.snapshot import compile_mesh
from meshconfig.static_bootstrap import static_bootstraps


def mesh_of(**callers: tuple[Dependency, ...]) -> Configuration:
    """Return a mesh of these callers, whose registries need a token."""
    mesh = Mesh(registry=RegistryClient(token_directory="/run/envoy-token"))
    return Configuration(mesh, {name: Caller(name, dependencies) for name, dependencies in callers.items()})


def embedded(configuration: Configuration, snapshot: Snapshot | None = None) -> list[dict[str, Any]]:
    """Return the bootstraps that embed a mesh."""
    bootstraps = {name: bootstrap(configuration, name) for name in configuration.callers}
    compiled = snapshot or compile_mesh(configuration, Catalog())
    return [
        msgspec.json.decode(each.encode()) for each in static_bootstraps(compiled, bootstraps, directory="/validation")
    ]


def shop(**values: Any) -> Dependency:
    """Return a dependency on a shop."""
    return Dependency(name="shop", service="shop", hosts=("shop",), routes=(Route(prefix="/"),), **values)


def test_callers_share_clusters_that_are_equal() -> None:
    """Two callers with the same cluster, and one whose shop has another timeout: two clusters, three routes."""
    first, own = embedded(mesh_of(a=(shop(),), b=(shop(),), c=(shop(connect_timeout=2.0),)))
    names = [cluster["name"] for cluster in first["static_resources"]["clusters"]]
    clusters = [name for name in names if not name.startswith("registry/")]
    listeners = first["static_resources"]["listeners"]
    assert [name.partition("#")[0] for name in clusters] == ["registry", "shop", "shop"]
    assert len(set(clusters)) == len(clusters)
    assert len(listeners) == len({listener["name"] for listener in listeners}) == 3
    assert len({str(listener["address"]) for listener in listeners}) == 3
    named = [name for listener in listeners for name in clusters[1:] if f"'cluster': '{name}'" in str(listener)]
    assert named == [clusters[1], clusters[1], clusters[2]]
    # The bootstraps of the three differ in names alone, and are validated once.
    assert own["static_resources"]["listeners"][0]["name"] == "egress"


def test_every_way_to_name_a_cluster_follows_its_name() -> None:
    """Splits, shadows and services that are asked by filters: a name that stayed would be an unknown cluster."""
    document = {
        "name": "default",
        "virtual_hosts": [
            {
                "name": "cluster",
                "domains": ["cluster"],
                "routes": [
                    {"route": {"cluster": 'a"b', "request_mirror_policies": [{"cluster": "c"}]}},
                    {"route": {"weighted_clusters": {"clusters": [{"name": "c", "weight": 1}]}}},
                    {"typed_per_filter_config": {"x": {"grpc_service": {"envoy_grpc": {"cluster_name": "c"}}}}},
                ],
            }
        ],
    }
    for routes in (document["virtual_hosts"][0]["routes"][:1], document["virtual_hosts"][0]["routes"]):  # type: ignore[index]
        own = {"name": "default", "virtual_hosts": [{**document["virtual_hosts"][0], "routes": routes}]}  # type: ignore[dict-item]
        clusters = {name: make_resource("clusters", {"name": name}) for name in ('a"b', "c")}
        snapshot = Snapshot({"web": {"clusters": clusters, "routes": {"default": make_resource("routes", own)}}})
        (result,) = static_bootstraps(snapshot)
        text = result.encode().decode()
        names = {element.name: element.embedded_name for element in result.clusters}
        (listener,) = result.listeners
        assert listener.uses == set(names.values())
        assert '"cluster":"c"' not in text
        assert '"name":"c"' not in text
        assert '"cluster_name":"c"' not in text
        assert '"domains":["cluster"]' in text
        assert text.count(f'"{names["c"]}"') == (2 if len(routes) == 1 else 4)


def test_no_file_of_an_envoy_is_needed() -> None:
    """A certificate is a test certificate, and what Envoy reads from files comes from the directory of validation."""
    payments = Dependency(name="payments", address="pay.example:443", tls=Tls(ca_file="/etc/pay.pem"))
    text = msgspec.json.encode(embedded(mesh_of(web=(payments,)))).decode()
    assert "/etc/" not in text
    assert "/run/" not in text
    assert "BEGIN CERTIFICATE" in text
    assert '"path":"/validation/response.json"' in text


def test_the_digest_is_that_of_all_bytes() -> None:
    """It does not depend on an order, and every byte of every node.cluster counts."""
    snapshot = compile_mesh(mesh_of(a=(shop(),), b=(shop(),)), Catalog())
    turned = Snapshot(dict(reversed(list(snapshot.nodes.items()))))
    assert digest(snapshot) == digest(turned)
    others = [mesh_of(a=(shop(),)), mesh_of(a=(shop(),), c=(shop(),)), mesh_of(a=(shop(),), b=(shop(keep_alive=3.0),))]
    digests = {digest(compile_mesh(other, Catalog())) for other in others}
    assert len(digests | {digest(snapshot)}) == 4


def test_a_large_mesh_is_validated_in_parts(monkeypatch: Any) -> None:
    """Each part has the clusters that its routes name, and every caller is in one of them."""
    monkeypatch.setattr("meshconfig.static_bootstrap.MAX_BOOTSTRAP_BYTES", 3000)
    configuration = mesh_of(**{f"caller-{number}": (shop(),) for number in range(6)})
    parts = static_bootstraps(compile_mesh(configuration, Catalog()))
    assert len(parts) > 1
    assert sorted(element.nodes[0] for part in parts for element in part.listeners) == sorted(configuration.callers)
    for part in parts:
        names = {element.embedded_name for element in part.clusters}
        assert all(element.uses <= names for element in part.listeners)
