"""A real Envoy of a mesh, by its generated bootstrap: it polls whatever registry the mesh names."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.envoy import Envoy, binary
from harness.process import eventually, running
from meshconfig.ads import over_ads
from meshconfig.bootstrap import bootstrap
from meshconfig.effective import Configuration
from meshconfig.registry_cluster import EDGE_CLUSTER

_DEFAULT_EDGE_PORT = 9903


def overlay(node: str, zone: str = "za") -> str:
    """Return what differs between tasks, as `registrar bootstrap` writes it."""
    return json.dumps(
        {
            "node": {"id": node, "locality": {"region": "r", "zone": zone}},
            "stats_config": {"stats_tags": [{"tag_name": "service-node", "fixed_value": node}]},
        }
    )


@contextlib.contextmanager
def envoy_of(
    directory: Path,
    configuration: Configuration,
    name: str,
    *,
    executable: str = "",
    admin: int = 0,
    overlay_of_task: str = "",
    published: str = "",
    streams: Sequence[int] = (),
    api_type: str = "DELTA_GRPC",
) -> Iterator[Envoy]:
    """Run an Envoy of a service, gateway or edge.

    ``executable`` is another version than the one of the test dependencies; ``admin`` the port of its admin interface,
    where several Envoys of a mesh run on one machine. ``overlay_of_task`` is merged into the bootstrap instead of one
    with an id; with ``published``, a directory, it reads files there instead of polling. With ``streams``, ports of
    gRPC listeners, it gets everything over ADS, in the variant ``api_type``.
    """
    mesh = configuration.mesh
    admin = admin or mesh.admin.port
    path, log = directory / f"{name}-{admin}.json", directory / f"{name}-{admin}.log"
    document = bootstrap(configuration, name, directory=published) | {"stats_flush_interval": "0.2s"}
    if streams:
        document = over_ads(document, [f"127.0.0.1:{port}" for port in streams])
        document["dynamic_resources"]["ads_config"]["api_type"] = api_type
    document["admin"]["address"]["socket_address"]["port_value"] = admin
    _without_default_edge(document)
    path.write_text(json.dumps(document))
    command = [executable or binary(), "-c", str(path), "--config-yaml"]
    command.append(overlay_of_task or overlay(f"{name}/task-1"))
    options = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with (
        running([*command, *options], log=log) as process,
        contextlib.closing(Envoy(admin, mesh.egress.port, log)) as envoy,
    ):
        eventually(lambda: process.poll() is not None or envoy.live(), within=20, said=log.read_text)
        assert process.poll() is None, log.read_text()[-2000:]
        yield envoy


def _without_default_edge(document: dict[str, Any]) -> None:
    """Let nothing listen where the edge is by default: another test on this machine may have one there."""
    for cluster in document["static_resources"]["clusters"]:
        if cluster["name"] == EDGE_CLUSTER:
            address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
            if address.get("socket_address", {}).get("port_value") == _DEFAULT_EDGE_PORT:
                address["socket_address"]["port_value"] = 1
