"""Compiled mesh configuration in front of a real Envoy: everything that is served stands in a static bootstrap."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.envoy import binary
from meshconfig.definition import Mesh
from meshconfig.listener import egress
from meshconfig.resource import NodeResources

Json = dict[str, Any]


def documents(node: NodeResources, kind: Any) -> list[Json]:
    """Return the resources of one kind as documents without their type."""
    parsed = [json.loads(resource.body) for resource in node[kind].values()]
    return [{key: value for key, value in document.items() if key != "@type"} for document in parsed]


def with_endpoints(cluster: Json, ports: Mapping[str, Sequence[int | Json]]) -> Json:
    """Return a cluster that has these ports instead of what the registry says of its service.

    An endpoint of a cluster is a port or, with metadata, the whole ``lb_endpoint``.
    """
    if cluster["type"] != "EDS":
        return cluster
    name = cluster["name"]
    service = cluster["eds_cluster_config"].get("service_name", name)
    rest = {key: value for key, value in cluster.items() if key != "eds_cluster_config"}
    endpoints = [_endpoint(place) if isinstance(place, int) else place for place in ports.get(service, ())]
    return {
        **rest,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _endpoint(port: int) -> Json:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}


def bootstrap_of_caller(
    node: NodeResources, service: str, mesh: Mesh, ports: Mapping[str, Sequence[int | Json]], admin: int
) -> Json:
    """Return a static bootstrap of a caller's Envoy, whose services have these endpoints."""
    (routes,) = documents(node, "routes")
    clusters = [with_endpoints(cluster, ports) for cluster in documents(node, "clusters")]
    return bootstrap([egress(mesh, service, {"route_config": routes})], clusters, admin)


def bootstrap_of_front(node: NodeResources, ports: Mapping[str, Sequence[int | Json]], admin: int) -> Json:
    """Return a static bootstrap of a gateway's or an edge's Envoy, whose services have these endpoints."""
    routes = {document["name"]: document for document in documents(node, "routes")}
    listeners = documents(node, "listeners")
    for listener in listeners:
        for chain in listener["filter_chains"]:
            manager = chain["filters"][0]["typed_config"]
            if "rds" in manager:
                manager["route_config"] = routes[manager.pop("rds")["route_config_name"]]
    clusters = [with_endpoints(cluster, ports) for cluster in documents(node, "clusters")]
    return bootstrap(listeners, clusters, admin)


def bootstrap(listeners: Sequence[Json], clusters: Sequence[Json], admin: int) -> Json:
    """Return a static bootstrap, with the cluster that spans go to."""
    tracing = {
        "name": "tracing",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "tracing", "endpoints": [{"lb_endpoints": [_endpoint(1)]}]},
    }
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {"listeners": list(listeners), "clusters": [tracing, *clusters]},
    }


def merged(bootstraps: Sequence[Json]) -> Json:
    """Return one bootstrap with the listeners and clusters of many, whose names are made distinct.

    Routes name clusters, so each bootstrap is renamed as a whole.
    """
    listeners: list[Json] = []
    clusters: list[Json] = []
    for number, document in enumerate(bootstraps):
        static = document["static_resources"]
        names = [cluster["name"] for cluster in static["clusters"]]
        text = json.dumps(static)
        for name in sorted(names, key=len, reverse=True):
            text = re.sub(
                rf'("(?:name|cluster|cluster_name|collector_cluster)": )"{re.escape(name)}"',
                rf'\1"{name}#{number}"',
                text,
            )
        renamed = json.loads(text)
        for listener in renamed["listeners"]:
            listener["name"] = f"{listener['name']}#{number}"
        listeners += renamed["listeners"]
        clusters += renamed["clusters"]
    return {**bootstraps[0], "static_resources": {"listeners": listeners, "clusters": clusters}}


def validate(document: Json, directory: Path) -> str:
    """Return what Envoy says of a bootstrap in its validation mode: nothing when it takes it without a warning."""
    path = directory / "validated.json"
    path.write_text(json.dumps(document))
    run = subprocess.run(
        [binary(), "--mode", "validate", "-c", str(path), "--log-level", "warning", "--log-format", "%v"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "" if run.returncode == 0 and not run.stderr.strip() else f"{run.returncode}: {run.stderr}"
