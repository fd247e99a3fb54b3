"""The layout of published configuration: object keys as itacho has them, and what is written in which order.

Files and objects have nobody who tells what Envoys have taken. So the phases of a roll-out go by time: first clusters
are added, then routes change, then clusters are removed, with a pause between them.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from meshconfig.proto_json import Document
from meshconfig.resource import TYPE_URLS, Kind, Resource, Snapshot

RESOURCES = "v3/discovery"
"""The folder of discovery responses: itacho answers Envoy's ``/v3/discovery:clusters`` with an object of it."""
MANIFEST = "manifest.json"
"""The key of the manifest, which is written last: what it names is complete."""

Objects = Mapping[str, bytes]
"""Bodies by key."""


def resource_key(kind: Kind, node_cluster: str) -> str:
    """Return the key of the discovery response of a kind of resource."""
    return f"{RESOURCES}/{kind}/{node_cluster}"


def table_key(node_cluster: str, name: str) -> str:
    """Return the key of one of several tables of routes: a file that Envoy reads may have one alone."""
    return f"{RESOURCES}/route_tables/{node_cluster}/{name}"


def bootstrap_key(node_cluster: str) -> str:
    """Return the key of a bootstrap."""
    return f"bootstrap/{node_cluster}.json"


def node_of(key: str) -> str:
    """Return the node.cluster that an object is for."""
    if key.startswith("bootstrap/"):
        return key.removeprefix("bootstrap/").removesuffix(".json")
    return key.split("/")[3] if key.count("/") >= 3 else ""


def objects(snapshot: Snapshot, bootstraps: Mapping[str, Document], *, directory: str = "") -> dict[str, bytes]:
    """Return every object of a snapshot by its key.

    With a ``directory``, the one on Envoys' machines that has the objects as files, listeners read their routes there.
    """
    wanted: dict[str, bytes] = {}
    for node, kinds in sorted(snapshot.nodes.items()):
        for kind, resources in kinds.items():
            documents = [_document(each, node, directory) for _, each in sorted(resources.items())]
            # No listeners in a response would close the ports of an Envoy that has its own; a caller has none here.
            if documents or kind == "clusters":
                wanted[resource_key(kind, node)] = discovery_response(kind, documents)
        if directory and kinds.get("listeners"):
            for name, table in sorted(kinds.get("routes", {}).items()):
                wanted[table_key(node, name)] = discovery_response("routes", [msgspec.Raw(table.body)])
    for node, document in sorted(bootstraps.items()):
        wanted[bootstrap_key(node)] = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    return wanted


def discovery_response(kind: Kind, documents: Iterable[Any]) -> bytes:
    """Return a complete DiscoveryResponse, whose version is the digest of its resources."""
    resources = msgspec.json.encode(list(documents))
    version = sha256(resources).hexdigest()[:16]
    return msgspec.json.encode(
        {"version_info": version, "type_url": TYPE_URLS[kind], "resources": msgspec.Raw(resources)}
    )


def _document(resource: Resource, node: str, directory: str) -> Any:  # noqa: ANN401  # JSON
    if resource.kind != "listeners" or not directory:
        return msgspec.Raw(resource.body)
    return _with_files(msgspec.json.decode(resource.body), node, directory.rstrip("/"))


def _with_files(value: Any, node: str, directory: str) -> Any:  # noqa: ANN401  # JSON
    """Return a document whose listeners read their routes from files."""
    if isinstance(value, list):
        return [_with_files(item, node, directory) for item in value]
    if not isinstance(value, dict):
        return value
    document = {key: _with_files(item, node, directory) for key, item in value.items()}
    if isinstance(document.get("rds"), dict):
        name = document["rds"]["route_config_name"]
        path = f"{directory}/{table_key(node, name)}"
        source = {**document["rds"]["config_source"], "path_config_source": {"path": path}}
        source.pop("api_config_source", None)
        document["rds"] = {"route_config_name": name, "config_source": source}
    return document


class Step(Struct, frozen=True):
    """Objects that are written together, before those of the next step.

    Attributes:
        name: what it does, for people.
        written: the objects.
        settles: whether Envoys need a pause after it, before the next step.
    """

    name: str
    written: Objects
    settles: bool = False


def steps(existing: Objects, wanted: Objects) -> list[Step]:
    """Return the steps from the objects that exist to the wanted ones; none where nothing differs.

    They may begin in the middle of others, such as an interrupted publish left: clusters that exist are kept until no
    routes can name them, whoever wrote them.
    """
    united = {key: _united(existing.get(key), body) for key, body in wanted.items() if _is_clusters(key)}
    routes, others = _changed(existing, wanted, _is_routes), _changed(existing, wanted, _is_other)
    added = {key: body for key, body in united.items() if body != existing.get(key)}
    removed = {key: wanted[key] for key, body in united.items() if body != wanted[key]}
    # Where nothing was before, no Envoy has to follow; bootstraps are read by Envoys that start.
    followed = any(key in existing and not key.startswith("bootstrap/") for key in (*routes, *others))
    planned = [
        Step("clusters are added", added, settles=followed),
        Step("routes change", routes, settles=bool(removed) and not others),
        Step("listeners and bootstraps change", others, settles=bool(removed)),
        Step("clusters are removed", removed),
    ]
    return [step for step in planned if step.written]


def _is_clusters(key: str) -> bool:
    return key.startswith(f"{RESOURCES}/clusters/")


def _is_routes(key: str) -> bool:
    return key.startswith((f"{RESOURCES}/routes/", f"{RESOURCES}/route_tables/"))


def _is_other(key: str) -> bool:
    return not _is_clusters(key) and not _is_routes(key)


def _changed(existing: Objects, wanted: Objects, belongs: Any) -> dict[str, bytes]:  # noqa: ANN401  # a predicate
    return {key: body for key, body in wanted.items() if belongs(key) and body != existing.get(key)}


def _united(existing: bytes | None, wanted: bytes) -> bytes:
    """Return the clusters of both; of two with one name the wanted one."""
    former = _by_name(existing)
    newer = _by_name(wanted)
    if former.keys() <= newer.keys():
        return wanted
    merged = {**former, **newer}
    return discovery_response("clusters", [merged[name] for name in sorted(merged)])


def _by_name(response: bytes | None) -> dict[str, Any]:
    """Return the resources of a response by name; none where it cannot be read, which is replaced then."""
    try:
        resources = msgspec.json.decode(response or b"")["resources"]
        return {resource["name"]: resource for resource in resources}
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError):
        return {}


class Manifest(Struct, frozen=True):
    """The manifest of published objects.

    Attributes:
        sha256: the digest of the snapshot that they are from; empty while some of them could not be written.
        objects: the digest of each object, by its key.
        left: objects of node.clusters that are defined no more. Nobody removes them while Envoys may read them.
    """

    sha256: str
    objects: Mapping[str, str]
    left: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return it as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def manifest(published: Objects, digest: str, former: bytes | None) -> Manifest:
    """Return the manifest of objects that are there; what the former one has besides is left."""
    digests = {key: sha256(body).hexdigest() for key, body in sorted(published.items())}
    try:
        before = msgspec.json.decode(former or b"", type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        before = Manifest("", {})
    left = tuple(sorted({*before.objects, *before.left} - digests.keys()))
    return Manifest(digest, digests, left)
