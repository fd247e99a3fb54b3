"""AWS App Mesh: the documents that `aws appmesh describe-*` prints.

A virtual node becomes a service, a virtual service a group with one dependency, which every caller names that has it as
a backend; the routes of its virtual router become the dependency's routes. Weighted targets become a split between the
services of the virtual nodes. A virtual gateway becomes an edge with the routes of its gateway routes.
Field names are those of the API (AWS App Mesh API reference).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from meshconfig.importers.appmesh_route import (
    EmptyRoute,
    ImportedRoute,
    duration_text,
    gateway_route,
    is_catch_all,
    route,
)
from meshconfig.importers.imported import Imported, Loss, NotImportableError, yaml_text
from meshconfig.importers.reader import Reader

_PROTOCOLS = {"http": "http1", "http2": "http2", "grpc": "grpc", "tcp": "same"}
_DEFAULT_EDGE_PORT = 8080
_KINDS = ("mesh", "virtualNode", "virtualService", "virtualRouter", "route", "virtualGateway", "gatewayRoute")


class _Documents(Struct):
    """The documents of one mesh, by kind and name, as they are read."""

    named: dict[str, dict[str, Reader]] = field(
        default_factory=lambda: {
            kind: {} for kind in ("virtualNode", "virtualService", "virtualRouter", "virtualGateway")
        }
    )
    """The ``spec`` of each document that others name, by kind and name."""
    routes: dict[str, dict[str, list[Reader]]] = field(default_factory=lambda: {"route": {}, "gatewayRoute": {}})
    """The ``spec`` of each route, by kind and by the router or gateway that it belongs to."""
    mesh: str = ""
    roots: list[Reader] = field(default_factory=list)

    @property
    def nodes(self) -> Mapping[str, Reader]:
        """The virtual nodes, by name."""
        return self.named["virtualNode"]

    @property
    def services(self) -> Mapping[str, Reader]:
        """The virtual services, by name."""
        return self.named["virtualService"]


def import_appmesh(documents: Mapping[str, object]) -> Imported:
    """Return the repository of a mesh.

    Args:
        documents: what `aws appmesh describe-*` printed, decoded, by file name. `list-*` documents hold no routes; each
            is a loss that says which command to run.

    Raises:
        NotImportableError: none of the documents is one of App Mesh's.
    """
    losses: list[Loss] = []
    known = _Documents()
    for file in sorted(documents):
        _collect(known, Reader(documents[file], file, "", losses), documents[file])
    if not known.roots and not losses:
        raise NotImportableError("none of the files is a document of `aws appmesh describe-*`")
    source = "AWS App Mesh"
    files = {"mesh.yaml": yaml_text({"environment": known.mesh or "production"}, source)}
    dependencies = {name: _dependency(known, name) for name in sorted(known.services)}
    for name, dependency in dependencies.items():
        files[f"groups/{name}.yaml"] = yaml_text({"group": name, "dependencies": [dependency]}, source)
    for name in sorted(known.nodes):
        files[f"services/{name}.yaml"] = yaml_text(_node(known, name, dependencies), source)
    for name in sorted({*known.named["virtualGateway"], *known.routes["gatewayRoute"]}):
        files[f"edges/{name}.yaml"] = yaml_text(_edge(known, name, dependencies), source)
    _lose_orphans(known)
    for root in known.roots:
        root.finish()
    return Imported(files, sorted(set(losses)))


def _collect(known: _Documents, root: Reader, document: object) -> None:
    """Sort a document by its kind; what it says besides its ``spec`` are times and owners."""
    kind = next((kind for kind in _KINDS if kind in root), None)
    if kind is None:
        _lose_list(root, document)
        return
    known.roots.append(root)
    body = root.child(kind)
    if body is None:
        return
    body.ignore("status")
    mesh = body.take("meshName", str) or ""
    if known.mesh and mesh and mesh != known.mesh:
        body.lose("meshName", f"it is of the mesh {mesh}, beside documents of {known.mesh}; all become one repository.")
    known.mesh = known.mesh or mesh
    metadata = body.child("metadata")
    if metadata is not None:
        owner, resource_owner = metadata.take("meshOwner", str), metadata.take("resourceOwner", str)
        metadata.ignore("arn", "version", "uid", "createdAt", "lastUpdatedAt")
        if owner != resource_owner:
            metadata.lose(
                "meshOwner", "the mesh is shared between accounts; access to services is granted by tokens here."
            )
    name = body.take(f"{kind}Name", str) or ""
    spec = body.child("spec")
    if spec is None:
        return
    if kind in known.named:
        known.named[kind][name] = spec
    elif kind in known.routes:
        parent, key = known.routes[kind], "virtualRouterName" if kind == "route" else "virtualGatewayName"
        parent.setdefault(body.take(key, str) or "", []).append(spec)
    elif "egressFilter" in spec:
        spec.lose("egressFilter", "a host that is no dependency is answered 404, as with DROP_ALL.")


def _lose_list(root: Reader, document: object) -> None:
    lists = [key for key in root.keys if key.endswith(("s", "es")) and isinstance(document, Mapping)]
    name = lists[0] if lists else ""
    more = " It was cut at a page as well (nextToken)." if "nextToken" in root else ""
    root.lose("", f"it only lists {name or 'names'}; run `aws appmesh describe-…` for each of them.{more}")


def _lose_orphans(known: _Documents) -> None:
    """Note the routes of virtual routers that no virtual service of the files leads to."""
    used = {_router_of(spec) for spec in known.services.values()}
    for router, routes in known.routes["route"].items():
        for spec in [] if router in used else routes:
            spec.ignore(*spec.keys)
            spec.lose(
                "",
                f"no virtual service of the files leads to the virtual router {router}; run `aws appmesh"
                " describe-virtual-service` and import again. The route was left out.",
            )


def _router_of(service: Reader) -> str:
    provider = service.child("provider")
    router = None if provider is None else provider.child("virtualRouter")
    return "" if router is None else router.take("virtualRouterName", str) or ""


def _dependency(known: _Documents, name: str) -> dict[str, Any]:
    """Return a virtual service as a dependency."""
    spec = known.services[name]
    provider = spec.child("provider")
    node = None if provider is None else provider.child("virtualNode")
    router = _router_of(spec)
    if node is not None:
        target = node.take("virtualNodeName", str) or name
        return {"name": name, **_target(known, target, spec), "routes": []}
    if router:
        return _routed(known, name, router, spec)
    spec.lose("provider", "the virtual service has no provider; its requests had no answer, and have none now.")
    return {"name": name, "service": name, "routes": []}


def _routed(known: _Documents, name: str, router: str, spec: Reader) -> dict[str, Any]:
    routes = _routes(known, router)
    if not routes:
        spec.lose(
            "provider.virtualRouter",
            f"no route of the virtual router {router} is among the files; run `aws appmesh"
            " describe-route` for each of them. Until then requests go to a service of the virtual service's name.",
        )
        return {"name": name, "service": name.partition(".")[0], "routes": []}
    main = max(routes[-1].targets, key=lambda target: routes[-1].targets[target])
    for each in routes:
        each.document.update(_split(each.targets, main))
    listener = _first_listener(known.named["virtualRouter"].get(router))
    protocol = _protocol(known, main, routes, listener)
    return {"name": name, "service": main, "protocol": protocol, "routes": [each.document for each in routes]}


def _routes(known: _Documents, router: str) -> list[ImportedRoute]:
    """Return a router's routes, in the order in which App Mesh tries them: by priority, then the narrower one."""
    made: list[ImportedRoute] = []
    for spec in known.routes["route"].get(router, []):
        try:
            made.append(route(spec))
        except EmptyRoute:
            continue
    return sorted(made, key=lambda each: (each.priority, *each.breadth))


def _split(targets: Mapping[str, int], main: str) -> dict[str, Any]:
    """Return relative weights as percentages with four decimals, which add up to 100."""
    total = sum(targets.values())
    if set(targets) == {main} or total == 0:
        return {}
    shares = {name: round(weight * 100 / total, 4) for name, weight in targets.items()}
    largest = max(shares, key=lambda name: shares[name])
    shares[largest] = round(shares[largest] + 100 - sum(shares.values()), 4)
    return {"split": {name: int(share) if share == int(share) else share for name, share in shares.items()}}


def _target(known: _Documents, node: str, spec: Reader) -> dict[str, Any]:
    """Return what a virtual node is as the only target of a virtual service: a service, or its DNS name."""
    described = known.nodes.get(node)
    if described is None:
        spec.lose(
            "provider.virtualNode", f"the virtual node {node} is not among the files; it was taken for a service."
        )
        return {"service": node}
    listener = _first_listener(described)
    protocol = _PROTOCOLS.get(listener[1], "http1")
    discovery = described.child("serviceDiscovery")
    dns = None if discovery is None else discovery.child("dns")
    host = None if dns is None else dns.take("hostname", str)
    if host is None:
        return {"service": node, "protocol": protocol}
    described.lose(
        "serviceDiscovery.dns",
        f"requests go to {host} as before; once a registrar runs beside its tasks, write"
        f" `service: {node}` instead of the address.",
    )
    return {"address": f"{host}:{listener[0]}", "protocol": protocol}


def _protocol(known: _Documents, node: str, routes: Sequence[ImportedRoute], listener: tuple[int, str]) -> str:
    described = known.nodes.get(node)
    spoken = _first_listener(described)[1] if described is not None else listener[1]
    if any(each.grpc for each in routes):
        return "grpc"
    return _PROTOCOLS.get(spoken or listener[1], "http1")


def _first_listener(spec: Reader | None) -> tuple[int, str]:
    """Return port and protocol of the first listener of a node, a router or a gateway."""
    for listener in [] if spec is None else spec.children("listeners"):
        mapping = listener.child("portMapping")
        if mapping is not None:
            return mapping.take("port", int) or _DEFAULT_EDGE_PORT, mapping.take("protocol", str) or ""
    return _DEFAULT_EDGE_PORT, ""


def _node(known: _Documents, name: str, dependencies: Mapping[str, Any]) -> dict[str, Any]:
    """Return a virtual node as a service: what its callers get by default, and what it calls."""
    spec = known.nodes[name]
    port, spoken = _first_listener(spec)
    defaults: dict[str, Any] = {}
    for number, listener in enumerate(spec.children("listeners")):
        if number:
            listener.lose("", "a service has one port here; the first listener was imported.")
            continue
        defaults |= _listener_defaults(listener)
        if spoken == "http":
            listener.lose(
                "portMapping.protocol",
                "App Mesh let websockets pass to it. If its app takes any, write `upgrade: [websocket]` and"
                " `limit: {connections_per_endpoint: …}` in provides.defaults.",
            )
    _discovery(spec, name, port)
    _logging(spec)
    provides: dict[str, Any] = {"protocol": _PROTOCOLS.get(spoken, "http1")}
    if defaults:
        provides["defaults"] = defaults
    tls = _client_tls(spec.child("backendDefaults"))
    backends = [_backend(each, dependencies, tls) for each in spec.children("backends")]
    return {"service": name, "provides": provides, "dependencies": [each for each in backends if each]}


def _listener_defaults(listener: Reader) -> dict[str, Any]:
    made: dict[str, Any] = {}
    detection = listener.child("outlierDetection")
    if detection is not None:
        errors, percent = detection.take("maxServerErrors", int), detection.take("maxEjectionPercent", int)
        made["outlier_detection"] = {
            "consecutive_gateway_failure": None,
            "consecutive_5xx": errors,
            "interval": duration_text(detection.child("interval")),
            "base": duration_text(detection.child("baseEjectionDuration")),
            "max": "5m",
            "max_percent": percent,
        }
    made |= _limit(listener)
    if "healthCheck" in listener:
        listener.lose(
            "healthCheck", "Envoy does not check here: the registrar beside the app does, by REGISTRAR_CHECK."
        )
    if "timeout" in listener:
        listener.lose("timeout", "it held at the callee for all callers; here the caller's routes have the timeouts.")
    if "tls" in listener:
        listener.lose("tls", "no listener is generated beside the callee, so its app has to end TLS itself.")
    return made


def _limit(listener: Reader) -> dict[str, Any]:
    pool = listener.child("connectionPool")
    if pool is None:
        return {}
    limit: dict[str, Any] = {}
    for protocol in ("http", "http2", "grpc", "tcp"):
        numbers = pool.child(protocol)
        if numbers is None:
            continue
        for theirs, ours in (
            ("maxConnections", "connections_per_endpoint"),
            ("maxPendingRequests", "pending_requests"),
            ("maxRequests", "requests"),
        ):
            value = numbers.take(theirs, int)
            if value is not None:
                limit[ours] = value
        listener.lose("connectionPool", "it held at the callee for all callers together; here it holds at each caller.")
    return {"limit": limit} if limit else {}


def _discovery(spec: Reader, name: str, port: int) -> None:
    discovery = spec.child("serviceDiscovery")
    if discovery is None:
        return
    dns, cloud_map = discovery.child("dns"), discovery.child("awsCloudMap")
    if dns is not None:
        dns.ignore("hostname", "ipPreference")
        if dns.take("responseType", str) == "LOADBALANCER":
            dns.lose("responseType", "all addresses of the name are used (STRICT_DNS), as for ENDPOINTS.")
    if cloud_map is not None:
        cloud_map.ignore("ipPreference")
        service, namespace = cloud_map.take("serviceName", str), cloud_map.take("namespaceName", str)
        attributes = [f"{each.take('key', str)}={each.take('value', str)}" for each in cloud_map.children("attributes")]
        chosen = f" of those with {', '.join(attributes)}" if attributes else ""
        cloud_map.lose(
            "",
            f"Cloud Map is not asked: start a registrar beside each task of {service}.{namespace}{chosen}, with"
            f" REGISTRAR_SERVICE={name}, REGISTRAR_PORT={port} and REGISTRAR_REVISION={name}.",
        )


def _logging(spec: Reader) -> None:
    logging = spec.child("logging")
    access_log = None if logging is None else logging.child("accessLog")
    file = None if access_log is None else access_log.child("file")
    if file is not None:
        path = file.take("path", str)
        if path != "/dev/stdout":
            file.lose("path", "the access log goes to the standard output.")
        if "format" in file:
            file.lose("format", "the access log has a format of its own here.")


def _backend(reader: Reader, dependencies: Mapping[str, Any], tls: Mapping[str, Any]) -> dict[str, Any]:
    service = reader.child("virtualService")
    if service is None:
        return {}
    name = service.take("virtualServiceName", str) or ""
    own_tls = _client_tls(service)
    if name not in dependencies:
        service.lose(
            "virtualServiceName",
            f"the virtual service {name} is not among the files; run `aws appmesh"
            " describe-virtual-service` and import again. It was taken for a service of its first label.",
        )
        return {"name": name, "service": name.partition(".")[0]}
    if own_tls or tls:
        return {**dependencies[name], "tls": dict(own_tls or tls)}
    return {"group": name}


def _client_tls(reader: Reader | None) -> dict[str, Any]:
    """Return what a client policy says about TLS; trust in ACM or SDS cannot be expressed, and is a loss."""
    policy = None if reader is None else reader.child("clientPolicy")
    tls = None if policy is None else policy.child("tls")
    if tls is None:
        return {}
    tls.ignore("ports")
    validation = tls.child("validation")
    trust = None if validation is None else validation.child("trust")
    file = None if trust is None else trust.child("file")
    names = _alternative_names(validation)
    if "certificate" in tls:
        tls.lose("certificate", "client certificates of the mesh are not generated.")
    if tls.take("enforce", bool) is False:
        tls.lose("enforce", "TLS was optional; here it is on or off.")
    authority = None if file is None else file.take("certificateChain", str)
    if authority is None:
        if trust is not None:
            trust.ignore("acm", "sds")
        tls.lose(
            "validation",
            "the authority is not a file (ACM or SDS), so that no TLS was imported and requests leave in"
            " clear. Put the authority's certificate into a file and write `tls: {ca_file: …}`.",
        )
        return {}
    return {"ca_file": authority, **({"server_name": names[0]} if names else {})}


def _alternative_names(validation: Reader | None) -> list[str]:
    names = None if validation is None else validation.child("subjectAlternativeNames")
    match = None if names is None else names.child("match")
    exact = [] if match is None else match.texts("exact")
    if names is not None and len(exact) > 1:
        names.lose("match.exact", f"one name is verified here; {exact[0]} was imported.")
    return exact


def _edge(known: _Documents, name: str, dependencies: Mapping[str, Any]) -> dict[str, Any]:
    spec = known.named["virtualGateway"].get(name)
    port, spoken = _first_listener(spec)
    certificate: dict[str, str] = {}
    for listener in [] if spec is None else spec.children("listeners"):
        certificate = _server_certificate(listener)
        listener.ignore("healthCheck", "connectionPool")
    if spec is not None:
        _logging(spec)
        _client_tls(spec.child("backendDefaults"))
    sites: dict[str, list[ImportedRoute]] = defaultdict(list)
    for each in known.routes["gatewayRoute"].get(name, []):
        if spec is None:
            each.lose("", f"the virtual gateway {name} is not among the files; port {port} and no TLS were assumed.")
        try:
            host, imported = gateway_route(each)
        except EmptyRoute:
            continue
        sites[host].append(imported)
    return {
        "edge": name,
        "listen": {"port": port, "protocol": _PROTOCOLS.get(spoken, "same")},
        "sites": [
            {
                "hosts": [host],
                **({"certificate": certificate} if certificate else {}),
                "routes": [
                    _site_route(each, dependencies)
                    for each in sorted(sites[host], key=lambda each: (each.priority, *each.breadth))
                ],
            }
            for host in sorted(sites)
        ],
    }


def _server_certificate(listener: Reader) -> dict[str, str]:
    tls = listener.child("tls")
    if tls is None:
        return {}
    if tls.take("mode", str) == "PERMISSIVE":
        tls.lose("mode", "clients without TLS are not served on the same port; use redirect_from.")
    if "validation" in tls:
        tls.lose("validation", "client certificates are not asked for.")
    certificate = tls.child("certificate")
    file = None if certificate is None else certificate.child("file")
    if file is None:
        if certificate is not None:
            certificate.ignore("acm", "sds")
        tls.lose(
            "certificate", "the certificate is not a file (ACM or SDS), so that the edge was imported without TLS."
        )
        return {}
    return {"chain": file.take("certificateChain", str) or "", "key": file.take("privateKey", str) or ""}


def _site_route(imported: ImportedRoute, dependencies: Mapping[str, Any]) -> dict[str, Any]:
    """Return a gateway route with the services behind its virtual service."""
    name = next(iter(imported.targets))
    dependency = dependencies.get(name)
    if dependency is None or "service" not in dependency:
        imported.reader.lose("", f"the virtual service {name} leads to no service here; its name was taken for one.")
        return {**imported.document, "service": name.partition(".")[0]}
    routes = dependency["routes"]
    if not routes or (len(routes) == 1 and is_catch_all(routes[0])):
        policies = {key: value for key, value in (routes[0] if routes else {}).items() if key != "prefix"}
        return {**policies, **imported.document, "service": dependency["service"]}
    imported.reader.lose(
        "",
        f"the routes of the virtual service {name} are not repeated at the edge; all its requests go to"
        f" {dependency['service']}.",
    )
    return {**imported.document, "service": dependency["service"]}
