"""Rules on what one file writes, whatever the other files say."""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from msgspec import Struct

from meshconfig.block import Block
from meshconfig.definition.admin import Admin
from meshconfig.definition.authentication import ExternalAuthorization
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.edge import Edge, Site, SiteRoute
from meshconfig.definition.gateway import Gateway, Select
from meshconfig.definition.header_changes import HeaderChanges
from meshconfig.definition.limit import Limit
from meshconfig.definition.listen import GatewayListen, Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.policies import Defaults
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.route import HeaderMatch, Rewrite, Route
from meshconfig.definition.service import Provides
from meshconfig.definition.shadow import Shadow
from meshconfig.definition.statistics import Statistics
from meshconfig.field_types import HOST, RESERVED_CLUSTERS, SAFE_CONDITIONS, SAFE_METHODS
from meshconfig.position import Fault, Position, Severity
from meshconfig.quotation import clipped
from meshconfig.rules.reachability import unreachable_routes
from wire.address import parse_endpoint

_SHARES_TOLERANCE = 0.001
"""Percent by which shares may miss 100, since shares have four decimals."""
_CONDITIONS = ("exact", "prefix", "suffix", "contains", "regex", "range", "present")
_REGISTER = "Register the service under another name."
"""What to do about a service whose cluster has the service's name, since no dependency gives it another one."""
_AT_ENTRANCES_ONLY = ("rate_limit", "auth")
"""Policies whose filters only gateways and edges have in their chains."""

Rule = Callable[[Block], Iterator[Fault]]


def file_faults(block: Block) -> Iterator[Fault]:
    """Yield the faults of a file's block and of the blocks in it."""
    yield from _faults(block, at_entrance=block.kind in {Gateway, Edge})


def _faults(block: Block, *, at_entrance: bool) -> Iterator[Fault]:
    for rule in RULES.get(block.kind, ()):
        yield from rule(block)
    if not at_entrance:
        yield from _misplaced(block)
    for value in block.values.values():
        if type(value) is Block:
            yield from _faults(value, at_entrance=at_entrance)
        elif type(value) is tuple:
            for item in value:
                if type(item) is Block:
                    yield from _faults(item, at_entrance=at_entrance)


def _misplaced(block: Block) -> Iterator[Fault]:
    for field in _AT_ENTRANCES_ONLY:
        if block.values.get(field) is not None:
            message = f"{field} has no effect here: only the listeners of gateways and edges have its filter."
            yield Fault(block.position(field), message, "Write it in the defaults or a route of a gateway or an edge.")


# Dependencies.


def _target(block: Block) -> Iterator[Fault]:
    written = [field for field in ("service", "address", "group") if block.writes(field)]
    if len(written) != 1:
        what = "neither service nor address nor group" if not written else " and ".join(written)
        yield Fault(block.position(), f"A dependency has {what}; it has to have one of them.")
    elif written == ["group"] and len(block.places) > 1:
        other = next(field for field in block.places if field != "group" and "[" not in field)
        message = f"{other} stands beside group, whose dependencies have their own values."
        yield Fault(block.position(other), message, "Write it in the group's file.")
    elif written == ["address"] and not block.writes("name"):
        yield Fault(
            block.position(), "A dependency on an address has no name.", "Write name: the host that the app calls."
        )
    if block.text("address"):
        yield from _unregistered(block)


def _unregistered(block: Block) -> Iterator[Fault]:
    if block.values.get("zones"):
        yield Fault(block.position("zones"), "zones needs a service: endpoints of an address have no zones.")
    for route in block.blocks("routes"):
        if route.values.get("version"):
            message = "version needs a service: endpoints of an address have no metadata."
            yield Fault(route.position("version"), message, "Remove it, or name a service.")


def _names(block: Block) -> Iterator[Fault]:
    own = "name" if block.writes("name") else "service"
    if not block.writes("hosts") and block.text(own) and not HOST.fullmatch(block.text(own)):
        message = f"The app cannot call {clipped(block.text(own))}: that is no host."
        yield Fault(block.position(own), message, "Write hosts: the names that the app may call it by.")
    for field in (own, "cluster"):
        yield from _reserved(block, field)
    yield from _repeated(block, "hosts")


def _reserved(block: Block, field: str) -> Iterator[Fault]:
    fix = "Write another name." if field != "service" else "Write name: another name for it here."
    yield from _reserved_name(block.text(field), block.position(field), fix)


def _reserved_name(name: str, position: Position, fix: str) -> Iterator[Fault]:
    if name in RESERVED_CLUSTERS:
        message = f"{name} is the name of a cluster of the bootstrap, so that Envoy would ignore this one."
        yield Fault(position, message, fix)


def _reserved_service(block: Block) -> Iterator[Fault]:
    """Yield a service that requests are sent to and whose cluster, named like it, cannot be."""
    yield from _reserved_name(block.text("service"), block.position("service"), _REGISTER)


def _repeated(block: Block, field: str) -> Iterator[Fault]:
    """Yield the items of a list that were there before, but for the case of their letters."""
    seen = set()
    for index, item in enumerate(block.values.get(field) or ()):
        if str(item).lower() in seen:
            message = f"{field} has {clipped(str(item))} twice, letters' case aside."
            yield Fault(block.position(f"{field}[{index}]"), message, "Remove one of them.")
        seen.add(str(item).lower())


def _routes(block: Block) -> Iterator[Fault]:
    yield from unreachable_routes(block.blocks("routes"))


def _header_changes(block: Block) -> Iterator[Fault]:
    for field in ("set", "add"):
        seen = set()
        for name in block.values.get(field) or ():
            if name.lower() in seen:
                message = f"{field} has {clipped(name)} twice, letters' case aside."
                yield Fault(block.position(f"{field}[{name}]"), message, "Remove one of them.")
            seen.add(name.lower())
    names = chain(
        ((f"{field}[{name}]", name) for field in ("set", "add") for name in block.values.get(field) or ()),
        ((f"remove[{index}]", name) for index, name in enumerate(block.values.get("remove") or ())),
    )
    for place, name in names:
        if name.lower() == "host":
            message = "The header Host is not changed here: Envoy chooses routes by it."
            yield Fault(block.position(place), message, "Write host_header for the Host that the callee gets.")


def _limit(block: Block) -> Iterator[Fault]:
    if block.values.get("retries") is not None and block.values.get("retry_budget") is not None:
        message = "retries and retry_budget are both written, and Envoy takes one of them."
        yield Fault(block.position("retries"), message, "Remove one of them.")


def _upgrade(block: Block) -> Iterator[Fault]:
    if block.values.get("upgrade") == ():
        yield Fault(block.position("upgrade"), "upgrade is empty.", "Write [websocket], or null for none.")
    yield from _repeated(block, "upgrade")


# Routes.


def _match(block: Block) -> Iterator[Fault]:
    written = [field for field in ("path", "prefix", "regex") if block.values.get(field) is not None]
    invalid = any(field in block.places and field not in block.values for field in ("path", "prefix", "regex"))
    if len(written) != 1 and not invalid:
        what = " and ".join(written) or "neither path nor prefix nor regex"
        yield Fault(
            block.position(), f"A route has {what}; it has to have one of them.", "Write prefix: / for all paths."
        )
    if block.values.get("regex") == "":
        yield Fault(block.position("regex"), "regex is empty, which matches no path.", "Write an expression of RE2.")
    yield from _repeated(block, "methods")


def _destination(block: Block) -> Iterator[Fault]:
    written = [field for field in ("version", "split") if block.values.get(field) is not None]
    if len(written) > 1:
        message = "version and split are both written; a split is between whole services."
        yield Fault(block.position("version"), message, "Remove one of them.")
    if block.values.get("version") == {}:
        yield Fault(block.position("version"), "version names no metadata.", "Write it like {revision: abc}.")
    split = block.values.get("split")
    if split is None:
        return
    for service in split:
        yield from _reserved_name(service, block.position(f"split[{service}]"), _REGISTER)
    total = sum(split.values())
    if abs(total - 100) > _SHARES_TOLERANCE:
        shares = " + ".join(f"{share:g}" for share in list(split.values())[:8]) or "nothing"
        message = f"The shares of a split have to be 100 together; {shares} is {total:g}."
        yield Fault(block.position("split"), message, "Change one of them.")
    else:
        message = "A split loses the share of a service whose endpoints are all gone, as shares within one do not."
        fix = "Keep several endpoints behind each of them."
        yield Fault(block.position("split"), message, fix, Severity.WARNING, inherent=True)


def _fault_alone(block: Block) -> Iterator[Fault]:
    if block.values.get("fault") is None:
        return
    for field in ("retry", "timeout"):
        if block.values.get(field) is not None:
            message = f"{field} stands beside fault: Envoy injects faults before it, so that it does not apply to them."
            fix = f"Remove {field} here; the dependency's applies to requests that the fault lets through."
            yield Fault(block.position(field), message, fix)


def _unsafe_retries(block: Block) -> Iterator[Fault]:
    retry = block.values.get("retry")
    methods = block.values.get("methods") or ()
    if type(retry) is not Block or not methods or SAFE_METHODS & set(methods):
        return
    conditions = [condition for condition in retry.values.get("when") or () if condition not in SAFE_CONDITIONS]
    idempotent = retry.values.get("idempotent") or ()
    if conditions and not set(methods) & set(idempotent):
        message = (
            f"{', '.join(methods)} would not be retried on {', '.join(conditions)}: the app may have begun the request."
        )
        fix = f"Write idempotent: [{', '.join(methods)}] if repeating it does no harm."
        yield Fault(retry.position("when"), message, fix)


def _handshakes(block: Block) -> Iterator[Fault]:
    methods = block.values.get("methods") or ()
    if block.values.get("upgrade") and methods and "GET" not in methods:
        message = f"Handshakes of websockets are GETs, and the route takes {', '.join(methods)} alone."
        yield Fault(block.position("upgrade"), message, "Add GET to methods, or remove upgrade.")


def _rewrite(block: Block) -> Iterator[Fault]:
    if (block.values.get("path") is None) == (block.values.get("prefix") is None):
        yield Fault(block.position(), "A rewrite has to have path or prefix, and not both.")


def _header_match(block: Block) -> Iterator[Fault]:
    written = [field for field in _CONDITIONS if block.values.get(field) is not None]
    if len(written) != 1:
        invalid = any(field in block.places and field not in block.values for field in _CONDITIONS)
        what = " and ".join(written) or "no condition"
        if not invalid:
            message = f"A header match has {what}; it has to have one."
            yield Fault(block.position(), message, f"The conditions are {', '.join(_CONDITIONS)}.")
        return
    field = written[0]
    value = block.values[field]
    if value == "" and field != "exact":
        yield Fault(block.position(field), f"{field} is empty, and would match everything.", "Write present: true.")
    if field == "range" and value[0] >= value[1]:
        message = f"range is [{value[0]}, {value[1]}], which no number is in: the second one is the first that is not."
        yield Fault(block.position(field), message, "Write the smaller one first.")
    if block.text("name").lower() == "host":
        message = "Routes do not match by the header Host: hosts have routes of their own."
        yield Fault(block.position("name"), message, "Write a dependency or a site with these hosts.")


# The mesh, gateways and edges.


def _mesh(block: Block) -> Iterator[Fault]:
    for index, network in enumerate(block.values.get("internal_ranges") or ()):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            message = f"internal_ranges has {clipped(network)}, which is no network."
            yield Fault(block.position(f"internal_ranges[{index}]"), message, "Write it like 10.0.0.0/8.")
    yield from _ports_apart(
        {
            "egress": block.values.get("egress"),
            "admin": block.values.get("admin"),
            "statistics.prometheus": _inner(block.values.get("statistics"), "prometheus"),
        }
    )


def _ports_apart(listeners: Mapping[str, Block | None]) -> Iterator[Fault]:
    defaults = {"egress": 9900, "admin": 9901}
    taken: dict[int, str] = {}
    for name, block in listeners.items():
        port = defaults.get(name) if block is None else block.values.get("port", defaults.get(name))
        if port is None:
            continue
        if port in taken and block is not None:
            message = f"{name} has port {port}, as {taken[port]} has."
            yield Fault(block.position("port"), message, "Write another port.")
        taken[port] = name


def _inner(block: Block | None, field: str) -> Block | None:
    inner = None if block is None else block.values.get(field)
    return inner if type(inner) is Block else None


def _literal(block: Block) -> Iterator[Fault]:
    """Yield an address to listen on that is no IP literal."""
    address = block.values.get("address", "127.0.0.1")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        message = f"address is {clipped(address)}; Envoy listens on IP addresses alone."
        yield Fault(block.position("address"), message, "Write it like 127.0.0.1, or 0.0.0.0 for all.")


def _admin(block: Block) -> Iterator[Fault]:
    address = block.values.get("address", "127.0.0.1")
    try:
        exposed = not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return
    if exposed:
        message = f"Envoy's admin interface listens on {address}: without any access control, it can stop Envoy."
        fix = "Write 127.0.0.1, and statistics.prometheus for scraping from elsewhere."
        yield Fault(block.position("address"), message, fix, Severity.WARNING)


def _statistics(block: Block) -> Iterator[Fault]:
    address = block.values.get("dog_statsd")
    if address is None:
        return
    try:
        parse_endpoint(address)
    except ValueError:
        message = f"dog_statsd is {clipped(address)}; Envoy needs an IP address and a port there."
        yield Fault(block.position("dog_statsd"), message, "Write it like 127.0.0.1:8125.")


def _registries(block: Block) -> Iterator[Fault]:
    if block.values.get("addresses") == ():
        yield Fault(block.position("addresses"), "addresses is empty: Envoy would ask no registry.", "Write host:port.")
    yield from _repeated(block, "addresses")


def _provides(block: Block) -> Iterator[Fault]:
    defaults = block.values.get("defaults")
    fact, default = block.values.get("protocol"), None if defaults is None else defaults.values.get("protocol")
    if defaults is not None and fact is not None and default is not None and fact != default:
        message = f"protocol is {default} for callers, and {fact} is what the service provides."
        yield Fault(defaults.position("protocol"), message, "Write it once, as provides.protocol.")


def _select(block: Block) -> Iterator[Fault]:
    if not block.values.get("metadata") and not block.values.get("services"):
        if block.writes("metadata") and "metadata" not in block.values:
            return
        message = "select selects nothing: it has neither metadata nor services."
        yield Fault(block.position(), message, "Write it like {metadata: {protocol: grpc}}.")
    for index, service in enumerate(block.values.get("services") or ()):
        yield from _reserved_name(service, block.position(f"services[{index}]"), _REGISTER)
    yield from _repeated(block, "services")


def _gateway(block: Block) -> Iterator[Fault]:
    hosts = block.values.get("hosts", "{service}")
    sample = hosts.replace("{service}", "x")
    if not HOST.fullmatch(sample):
        message = f"hosts is {clipped(hosts)}, which makes no host of a service's name."
        yield Fault(block.position("hosts"), message, "Write it like '{service}.grpc.example'.")
    elif "{service}" not in hosts and not block.values.get("paths"):
        message = f"hosts is {clipped(hosts)}: all services would share this host, and nothing tells them apart."
        yield Fault(block.position("hosts"), message, "Write {service} in it, or paths: true.")


def _front_listen(block: Block) -> Iterator[Fault]:
    port = block.values.get("port")
    if port is not None and block.values.get("redirect_from") == port:
        message = f"redirect_from is {port}, which is the port itself."
        yield Fault(block.position("redirect_from"), message, "Write the port of plain HTTP.")


def _edge(block: Block) -> Iterator[Fault]:
    sites = block.blocks("sites")
    if block.values.get("sites") == ():
        yield Fault(block.position("sites"), "An edge has no site.", "Write its hosts and routes.")
    plain = [site for site in sites if not site.writes("certificate")]
    if plain and len(plain) < len(sites):
        message = "This site has no certificate, and others of the edge have: one port speaks either TLS or plain HTTP."
        yield Fault(plain[0].position(), message, "Write its certificate, or make it an edge of its own.")
    listen = block.values.get("listen")
    if listen is not None and listen.values.get("redirect_from") and sites and len(plain) == len(sites):
        message = "redirect_from leads to https, and no site has a certificate."
        yield Fault(listen.position("redirect_from"), message, "Remove it, or write certificates.")
    hosts: dict[str, Block] = {}
    for site in sites:
        for index, host in enumerate(site.values.get("hosts") or ()):
            other = hosts.setdefault(host.lower(), site)
            if other is not site:
                message = f"The host {clipped(host)} stands in two sites; line {other.line} has it first."
                yield Fault(site.position(f"hosts[{index}]"), message, "Remove one of them.")


def _site(block: Block) -> Iterator[Fault]:
    for field in ("hosts", "routes"):
        if block.values.get(field) == ():
            yield Fault(block.position(field), f"{field} of a site is empty.", "Write at least one.")
    yield from _repeated(block, "hosts")
    yield from unreachable_routes(block.blocks("routes"), separated=True)


def _site_route(block: Block) -> Iterator[Fault]:
    has = [field for field in ("service", "split") if block.values.get(field) is not None]
    invalid = any(field in block.places and field not in block.values for field in ("service", "split"))
    if len(has) != 1 and not invalid:
        what = " and ".join(has) or "neither service nor split"
        yield Fault(block.position(), f"A route of a site has {what}; it has to have one of them.")


_ROUTE: tuple[Rule, ...] = (_match, _destination, _fault_alone, _unsafe_retries, _upgrade, _handshakes)

RULES: Mapping[type[Struct], tuple[Rule, ...]] = {
    Defaults: (_upgrade,),
    Dependency: (_target, _names, _routes, _upgrade),
    HeaderChanges: (_header_changes,),
    Limit: (_limit,),
    Route: _ROUTE,
    SiteRoute: (*_ROUTE, _site_route, _reserved_service),
    Shadow: (_reserved_service,),
    ExternalAuthorization: (_reserved_service,),
    Rewrite: (_rewrite,),
    HeaderMatch: (_header_match,),
    Mesh: (_mesh,),
    Listen: (_literal,),
    Admin: (_literal, _admin),
    Statistics: (_statistics,),
    RegistryClient: (_registries,),
    Provides: (_provides,),
    Select: (_select,),
    Gateway: (_gateway,),
    GatewayListen: (_literal, _front_listen),
    Edge: (_edge,),
    Site: (_site,),
}
"""The rules of each block, by its Struct."""
