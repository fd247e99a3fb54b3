"""Bootstraps that embed compiled resources as static ones, since Envoy's validation looks at nothing dynamic.

Clusters have a name with their hash, so that all callers share them; routes stand in the listener that asks for them;
test files stand for those that only Envoys' machines have.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import msgspec
from msgspec import Struct

from meshconfig import stand_in_files
from meshconfig.cluster import REGISTRY_CLUSTER
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.proto_json import Document, extension, socket_address
from meshconfig.registry_cluster import registry_clusters
from meshconfig.resource import TYPE_URLS, Kind, NodeResources, Resource, Snapshot

MAX_BOOTSTRAP_BYTES = 7 * 1024 * 1024
"""Bytes of resources in one bootstrap, about. A validating Envoy needs 90 MB, and some 14 bytes for each of them."""
HASH_DIGITS = 12
"""Digits of the hash in an embedded cluster's name."""

_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"


class Element(Struct, frozen=True):
    """One resource as a bootstrap embeds it.

    Attributes:
        kind: its type.
        name: its name in Envoy.
        embedded_name: its name in the bootstrap.
        nodes: the node.clusters that get it.
        body: what stands in the bootstrap, in JSON.
        uses: the embedded names of the clusters that it names.
    """

    kind: Kind
    name: str
    embedded_name: str
    nodes: tuple[str, ...]
    body: bytes
    uses: frozenset[str] = frozenset()


class StaticBootstrap(Struct, frozen=True):
    """A bootstrap that embeds compiled resources.

    Attributes:
        base: the rest of the bootstrap: its node, and the clusters that stand in front of the compiled ones.
        clusters: the compiled clusters in it, in their order.
        listeners: the listeners in it with their routes, in their order.
        served: the node.clusters whose own bootstrap the base is; empty where it only embeds resources.
    """

    base: Document
    clusters: tuple[Element, ...] = ()
    listeners: tuple[Element, ...] = ()
    served: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Return it as JSON."""
        static = self.base["static_resources"]
        resources = {
            "clusters": [*static["clusters"], *(msgspec.Raw(element.body) for element in self.clusters)],
            "listeners": [*static["listeners"], *(msgspec.Raw(element.body) for element in self.listeners)],
        }
        return msgspec.json.encode({**self.base, "static_resources": resources})

    def without(self, faulty: Element) -> "StaticBootstrap":
        """Return it without an element; a plain cluster takes the place of a cluster, for the routes that name it."""
        if faulty.kind != "clusters":
            return msgspec.structs.replace(self, listeners=tuple(each for each in self.listeners if each is not faulty))
        plain = {"name": faulty.embedded_name, "type": "STATIC", "connect_timeout": "1s"}
        return self.replaced(faulty, msgspec.structs.replace(faulty, body=msgspec.json.encode(plain)))

    def replaced(self, old: Element, new: Element) -> "StaticBootstrap":
        """Return it with an element in the place of another."""
        return msgspec.structs.replace(
            self,
            clusters=tuple(new if element is old else element for element in self.clusters),
            listeners=tuple(new if element is old else element for element in self.listeners),
        )


def static_bootstraps(
    snapshot: Snapshot, bootstraps: Mapping[str, Document] | None = None, *, directory: str = "/"
) -> list[StaticBootstrap]:
    """Return bootstraps that embed everything compiled, and one for each kind of bootstrap that is served.

    ``bootstraps`` are those of the node.clusters; they have the listeners of services. ``directory`` is where the
    validating Envoy finds ``stand_in_files.FILES``.
    """
    stand_ins = _StandIns(directory)
    served = {node: stand_ins.replace(document) for node, document in (bootstraps or {}).items()}
    embedding = _Embedding(snapshot, stand_ins)
    return [*_shards(_base(served), embedding.parts()), *_distinct(served)]


# The content of a bootstrap.


class _Part(Struct, frozen=True):
    """The resources of one node.cluster, ready to be embedded."""

    clusters: Mapping[str, Element]
    listeners: tuple[Element, ...]


class _Embedding:
    """The resources of a snapshot as elements."""

    def __init__(self, snapshot: Snapshot, stand_ins: "_StandIns") -> None:
        self._snapshot = snapshot
        self._stand_ins = stand_ins
        self._users = _users(snapshot)
        # Each distinct cluster, by its embedded name.
        self._clusters: dict[str, Element] = {}
        self._numbers = count()

    def parts(self) -> Iterator[_Part]:
        """Yield the resources of each node.cluster."""
        for node, kinds in sorted(self._snapshot.nodes.items()):
            clusters = {name: self._cluster(each) for name, each in kinds.get("clusters", {}).items()}
            names = {name: element.embedded_name for name, element in clusters.items()}
            listeners = tuple(self._listeners(node, kinds, names))
            yield _Part({element.embedded_name: element for element in clusters.values()}, listeners)

    def _cluster(self, resource: Resource) -> Element:
        name = f"{resource.name}#{resource.sha256[:HASH_DIGITS]}"
        if name not in self._clusters:
            document = {**self._stand_ins.replace(_decoded(resource)), "name": name}
            nodes = self._users[resource.sha256]
            self._clusters[name] = Element("clusters", resource.name, name, nodes, msgspec.json.encode(document))
        return self._clusters[name]

    def _listeners(self, node: str, kinds: NodeResources, names: Mapping[str, str]) -> Iterator[Element]:
        """Yield the listeners of a node.cluster with their routes in them, and a small one for each other routes.

        The listener of a caller stands in its bootstrap, which is validated for all callers at once: five hundred of
        them would cost more than all clusters and routes.
        """
        routes = {name: self._routes(each, names) for name, each in kinds.get("routes", {}).items()}
        taken: set[str] = set()
        for listener in kinds.get("listeners", {}).values():
            document = self._stand_ins.replace(_decoded(listener))
            yield self._listener("listeners", listener.name, node, document, (routes, names, taken))
        for name in sorted(routes.keys() - taken):
            yield self._listener("routes", name, node, _listener_for(name), (routes, names, taken))

    def _routes(self, resource: Resource, names: Mapping[str, str]) -> "_Routes":
        body = resource.body
        if any(word in body for word in _NOT_TEXTUAL):
            used: set[str] = set()
            document = _rename(self._stand_ins.replace(_decoded(resource)), names, used)
            return _Routes(msgspec.Raw(msgspec.json.encode(document)), frozenset(used))
        # Most have nothing to replace but the names of clusters; to decode them would take longer than all the rest.
        embedded = {msgspec.json.encode(name): (msgspec.json.encode(new), new) for name, new in names.items()}
        texts = {match[1] for match in _CLUSTER_FIELD.finditer(body)} & embedded.keys()
        renamed = _CLUSTER_FIELD.sub(
            lambda match: b'"cluster":' + (embedded[match[1]][0] if match[1] in embedded else match[1]), body
        )
        typeless = b"{" + renamed.removeprefix(_ROUTES_TYPE)
        return _Routes(msgspec.Raw(typeless), frozenset(embedded[text][1] for text in texts))

    def _listener(
        self,
        kind: Kind,
        name: str,
        node: str,
        document: Document,
        embedded: "tuple[Mapping[str, _Routes], Mapping[str, str], set[str]]",
    ) -> Element:
        routes, names, taken = embedded
        inlined: set[str] = set()
        used: set[str] = set()
        alone = _alone(_rename(_inline(document, routes, inlined), names, used), next(self._numbers))
        taken |= inlined
        used.update(*(routes[name].uses for name in inlined))
        return Element(kind, name, alone["name"], (node,), msgspec.json.encode(alone), frozenset(used))


class _Routes(Struct, frozen=True):
    """Routes ready to be embedded, and the embedded names of the clusters that they name."""

    body: msgspec.Raw
    uses: frozenset[str]


_ROUTES_TYPE = b'{"@type":' + msgspec.json.encode(TYPE_URLS["routes"]) + b","
_CLUSTER_FIELD = re.compile(rb'"cluster":("(?:[^"\\]|\\.)*")')
_NOT_TEXTUAL = (b'"weighted_clusters"', b'"cluster_name"', b'"filename"', b'"path_config_source"')
"""What routes may have that is more than names of clusters in a field ``cluster``."""


def _decoded(resource: Resource) -> Document:
    document: Document = msgspec.json.decode(resource.body)
    # As a static resource it stands where only its type can.
    del document["@type"]
    return document


def _users(snapshot: Snapshot) -> Mapping[str, tuple[str, ...]]:
    """Return the node.clusters of each cluster, by its digest."""
    users: dict[str, list[str]] = {}
    for node, kinds in sorted(snapshot.nodes.items()):
        for resource in kinds.get("clusters", {}).values():
            users.setdefault(resource.sha256, []).append(node)
    return {digest: tuple(nodes) for digest, nodes in users.items()}


def _routes_name(manager: Document) -> str:
    rds = manager.get("rds")
    return str(rds.get("route_config_name", "")) if isinstance(rds, dict) else ""


def _inline(value: Any, routes: "Mapping[str, _Routes]", inlined: set[str]) -> Any:  # noqa: ANN401  # JSON
    """Return a document with routes in the place of each reference to them."""
    if isinstance(value, list):
        return [_inline(item, routes, inlined) for item in value]
    if not isinstance(value, dict):
        return value
    name = _routes_name(value)
    if name not in routes:
        return {key: _inline(item, routes, inlined) for key, item in value.items()}
    inlined.add(name)
    rest = {key: _inline(item, routes, inlined) for key, item in value.items() if key != "rds"}
    return {**rest, "route_config": routes[name].body}


def _listener_for(routes: str) -> Document:
    router = extension("envoy.filters.http.router", _ROUTER)
    manager = {"stat_prefix": "routes", "rds": {"route_config_name": routes}, "http_filters": [router]}
    filters = [extension("envoy.filters.network.http_connection_manager", _MANAGER, manager)]
    return {"name": "routes", "address": socket_address("127.0.0.1", 1), "filter_chains": [{"filters": filters}]}


_REFERENCES = frozenset({"cluster", "cluster_name", "collector_cluster"})
"""Fields whose text names a cluster."""


def _rename(value: Any, names: Mapping[str, str], used: set[str], *, weighted: bool = False) -> Any:  # noqa: ANN401  # JSON
    """Return a document with the embedded names of clusters, and note those that it names."""
    if isinstance(value, list):
        return [_rename(item, names, used, weighted=weighted) for item in value]
    if not isinstance(value, dict):
        return value
    renamed: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, str) and item in names and (key in _REFERENCES or (weighted and key == "name")):
            used.add(names[item])
            renamed[key] = names[item]
        elif isinstance(item, dict | list):
            inside = key == "weighted_clusters" or (weighted and key == "clusters")
            renamed[key] = _rename(item, names, used, weighted=inside)
        else:
            renamed[key] = item
    return renamed


class _StandIns:
    """The test files in the place of files of Envoys' machines."""

    def __init__(self, directory: str) -> None:
        self._directory = directory.rstrip("/")

    def replace(self, value: Any, parent: str = "") -> Any:  # noqa: ANN401  # JSON
        """Return a document that names no file but test files; a directory stands for each watched directory."""
        if isinstance(value, list):
            return [self.replace(item, parent) for item in value]
        if not isinstance(value, dict):
            return value
        if "filename" in value and len(value) <= 2:  # a DataSource: a file, and maybe the directory that is watched
            return {"inline_string": _CONTENTS.get(parent, "")}
        if parent == "path_config_source":
            return {"path": f"{self._directory}/{stand_in_files.DISCOVERY_RESPONSE_FILE}"}
        if parent == "typed_config" and "event_log_path" in value:
            return {**value, "event_log_path": "/dev/null"}
        return {key: self.replace(item, key) for key, item in value.items()}


_CONTENTS: Mapping[str, str] = {
    "trusted_ca": stand_in_files.CERTIFICATE,
    "certificate_chain": stand_in_files.CERTIFICATE,
    "private_key": stand_in_files.PRIVATE_KEY,
    "local_jwks": stand_in_files.JWKS,
}
"""The content of each file, by the field that names the file."""


def _base(served: Mapping[str, Document]) -> Document:
    """Return what every bootstrap begins with: a node, and the static clusters that the compiled ones ask or name."""
    clusters = {
        cluster["name"]: cluster
        for document in served.values()
        for cluster in document.get("static_resources", {}).get("clusters", ())
    }
    clusters.setdefault(REGISTRY_CLUSTER, registry_clusters(RegistryClient(edge=None))[0])
    return {
        "node": {"id": "proof", "cluster": "proof"},
        # Envoy 1.40 crashes on a tap filter where there is no admin interface.
        "admin": {"address": socket_address("127.0.0.1", 9901)},
        "static_resources": {"clusters": [clusters[name] for name in sorted(clusters)], "listeners": []},
    }


def _shards(base: Document, parts: Iterable[_Part]) -> Iterator[StaticBootstrap]:
    """Yield bootstraps of some of the parts each, so that no Envoy needs more memory than a registry can spare."""
    clusters: dict[str, Element] = {}
    listeners: list[Element] = []
    size = 0
    for part in parts:
        new = part.clusters.keys() - clusters.keys()
        clusters.update(part.clusters)
        listeners += part.listeners
        size += sum(len(part.clusters[name].body) for name in new) + sum(len(each.body) for each in part.listeners)
        if size >= MAX_BOOTSTRAP_BYTES:
            yield StaticBootstrap(base, tuple(clusters.values()), tuple(listeners))
            clusters, listeners, size = {}, [], 0
    if clusters or listeners:
        yield StaticBootstrap(base, tuple(clusters.values()), tuple(listeners))


def _alone(listener: Document, number: int) -> Document:
    """Return a listener with a name and an address of its own among those of other node.clusters."""
    address = listener.get("address", {})
    if isinstance(address.get("socket_address"), dict):
        host = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        address = {"socket_address": {**address["socket_address"], "address": host}}
    return {**listener, "name": f"{listener.get('name', '')}#{number}", "address": address}


def _distinct(served: Mapping[str, Document]) -> Iterator[StaticBootstrap]:
    """Yield each kind of bootstrap once: most differ only in the name of their service."""
    nodes: dict[bytes, list[str]] = {}
    for node, document in sorted(served.items()):
        nameless = msgspec.json.encode(document, order="sorted").replace(msgspec.json.encode(node), b'""')
        nodes.setdefault(nameless, []).append(node)
    for names in nodes.values():
        yield StaticBootstrap(served[names[0]], served=tuple(names))


def virtual_hosts(value: Any) -> Iterator[Document]:  # noqa: ANN401  # JSON
    """Yield all virtual hosts of a document, in their order."""
    if isinstance(value, list):
        for item in value:
            yield from virtual_hosts(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from item if key == "virtual_hosts" else virtual_hosts(item)


def with_virtual_hosts(value: Any, hosts: Iterator[Document | None]) -> Any:  # noqa: ANN401  # JSON
    """Return a document with other virtual hosts, one for each that it has; None leaves that out."""
    if isinstance(value, list):
        return [with_virtual_hosts(item, hosts) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: [host for _, host in zip(item, hosts, strict=False) if host is not None]
        if key == "virtual_hosts"
        else with_virtual_hosts(item, hosts)
        for key, item in value.items()
    }
