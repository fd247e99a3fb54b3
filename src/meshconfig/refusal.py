"""Envoy's refusal of a bootstrap, as a fault of the definition that the refused resource was compiled from."""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

import msgspec
from msgspec import Struct

from meshconfig.cluster import name_of, versions_name
from meshconfig.effective import Caller, Configuration
from meshconfig.position import Fault, Position
from meshconfig.proto_json import Document
from meshconfig.static_bootstrap import HASH_DIGITS, Element, StaticBootstrap, virtual_hosts

MAX_REASON = 400
"""Characters of Envoy's error that a fault repeats."""


class RoutePlace(Struct, frozen=True):
    """A virtual host of an element, and a route of it.

    Attributes:
        number: the number of the virtual host among those of the element.
        host: the virtual host.
        route: the number of the route; None where the virtual host itself is meant.
    """

    number: int
    host: Document
    route: int | None = None

    def __str__(self) -> str:
        name = repr(self.host.get("name", ""))
        return f"the virtual host {name}" if self.route is None else f"route {self.route + 1} of {name}"

    def ordinal(self) -> int | None:
        """Return the number of the route in the definition, of which one can become two in a row here.

        That of websockets stands before these.
        """
        if self.route is None:
            return None
        routes: list[Document] = self.host["routes"][: self.route + 1]
        prefixes: list[str] = [route.get("stat_prefix", "") for route in routes if not _is_of_websockets(route)]
        before_last = sum(1 for before, after in pairwise(prefixes) if before != after)
        return before_last + 1 if prefixes and _is_of_websockets(routes[-1]) else before_last


def _is_of_websockets(route: Document) -> bool:
    return "upgrade_configs" in route.get("route", {})


def named_element(refusal: str, bootstrap: StaticBootstrap) -> Element | None:
    """Return the element that Envoy's error names, by its place in the bootstrap or by its name."""
    if (place := _PLACE.search(refusal)) is not None:
        kind, number = place[1].lower(), int(place[2])
        elements = bootstrap.clusters if kind == "clusters" else bootstrap.listeners
        index = number - len(bootstrap.base["static_resources"][kind])
        return elements[index] if 0 <= index < len(elements) else None
    if "unknown cluster" in refusal:
        # The name is that of a cluster that there is not.
        return None
    mentioned = set(_embedded_names(refusal))
    named = [element for element in bootstrap.clusters if element.embedded_name in mentioned]
    return named[0] if len(named) == 1 else None


_PLACE = re.compile(
    r"(?:static_resources|StaticResourcesValidationError)\.(clusters|listeners)\[(\d+)\]", re.IGNORECASE
)
_TOKEN = re.compile(r"[^\s'\"]+")
_HASH = re.compile(rf"#[0-9a-f]{{{HASH_DIGITS}}}")


def _embedded_names(refusal: str) -> Iterator[str]:
    """Yield the names of embedded clusters in a text, in a time that grows with its length and no faster."""
    for token in _TOKEN.findall(refusal):
        ends = [match.end() for match in _HASH.finditer(token)]
        if ends:
            yield token[: ends[-1]]


_HOST_PLACE = re.compile(r"virtual_?hosts\[(\d+)\]", re.IGNORECASE)
_ROUTE_PLACE = re.compile(r"\broutes\[(\d+)\]", re.IGNORECASE)


def named_place(refusal: str, element: Element) -> RoutePlace | None:
    """Return the virtual host, and the route, that Envoy's error names by its place."""
    host, route = _HOST_PLACE.search(refusal), _ROUTE_PLACE.search(refusal)
    hosts = list(virtual_hosts(msgspec.json.decode(element.body)))
    # Places count within a table of routes, and an edge has several of those.
    if element.kind != "routes" or host is None or int(host[1]) >= len(hosts):
        return None
    return RoutePlace(int(host[1]), hosts[int(host[1])], None if route is None else int(route[1]))


def service_of(element: Element, place: RoutePlace | None) -> str:
    """Return the service that a gateway's cluster, virtual host or route is for; empty where that is not one alone."""
    if element.kind == "clusters":
        return element.name.removesuffix(versions_name(""))
    if place is None:
        return ""
    if (name := str(place.host.get("name", ""))) != "*":
        return name
    if place.route is None:
        return ""
    cluster: str = place.host["routes"][place.route].get("route", {}).get("cluster", "")
    return cluster.partition("#")[0].removesuffix(versions_name(""))


def reason_of(output: str) -> str:
    """Return Envoy's error in one line, without the documents that it repeats."""
    text = output.rpartition("error initializing configuration")[2]
    text = re.sub(r"^ '[^']*': ", "", text)
    if (violation := text.rfind("Proto constraint validation failed (")) >= 0:
        text = text[violation:].partition("(")[2].rpartition(")")[0].rpartition("| caused by ")[2]
    elif text.startswith("Unable to parse JSON as proto"):
        text = text.partition("): ")[0] + ")"
    elif (misfit := _MISFIT.search(text)) is not None:
        text = f"{misfit[2]} in {misfit[1]}"
    text = re.sub(rf"#(?:[0-9a-f]{{{HASH_DIGITS}}}|\d+)\b", "", " ".join(text.split()))
    return text[:MAX_REASON].rstrip(".")


_MISFIT = re.compile(
    r"message\s+([\w.]+),\s+near\s+[\d:]+\s+\(offset\s+\d+\):\s+(.{0,1000}?)\)\s+has unknown fields", re.DOTALL
)


def fault_of(element: Element, place: RoutePlace | None, refusal: str, configuration: Configuration) -> Fault:
    """Return Envoy's refusal of an element as a fault of the definition that the element was compiled from."""
    node = element.nodes[0]
    others = f" (and {len(element.nodes) - 1} more)" if len(element.nodes) > 1 else ""
    where = "" if place is None else f"{place} in "
    noun = {"clusters": "cluster", "routes": "routes", "listeners": "listener"}[element.kind]
    reason = reason_of(refusal)
    return Fault(
        _position(element, place, reason, configuration),
        f"Envoy refuses {where}the {noun} {element.name!r} of {node}{others}: {reason}.",
    )


def _position(element: Element, place: RoutePlace | None, reason: str, configuration: Configuration) -> Position:
    node = element.nodes[0]
    for folder, documents in (("gateways", configuration.gateways), ("edges", configuration.edges)):
        if node in documents:
            return Position(f"{folder}/{node}.yaml")
    whole = Position(f"services/{node}.yaml")
    caller = configuration.callers.get(node)
    path = "" if caller is None else _path(caller, element, place)
    if caller is None or not path:
        return whole
    written = {
        value: origin.position
        for value, origin in caller.origins.items()
        if origin.position.line and (value == path or value.startswith((f"{path}.", f"{path}[")))
    }
    field = _field(reason)
    of_field = [position for value, position in written.items() if field and field in re.split(r"[.\[\]]", value)]
    return min(of_field, default=written.get(path, whole))


def _path(caller: Caller, element: Element, place: RoutePlace | None) -> str:
    """Return the path of the dependency, or the route, that a cluster or a virtual host was compiled from."""
    if element.kind == "clusters":
        cluster = element.name.removesuffix(versions_name(""))
        reached = (*caller.dependencies, *caller.targets)
        return next((each.name or "" for each in reached if name_of(each) == cluster), "")
    if place is None:
        return ""
    name = str(place.host.get("name", ""))
    ordinal = place.ordinal()
    dependency = next((each for each in caller.dependencies if each.name == name), None)
    if dependency is None or ordinal is None or ordinal >= len(dependency.routes):
        return name
    return f"{name}.routes[{ordinal}]"


_FIELDS: Mapping[str, str] = {
    "connect_timeout": "connect_timeout",
    "outlier": "outlier_detection",
    "ejection": "outlier_detection",
    "health_check": "health_check",
    "healthchecking": "health_check",
    "circuit_breakers": "limit",
    "trusted_ca": "tls",
    "transport_socket": "tls",
    "regex": "routes",
    "retry": "retry",
    "fault": "fault",
    "weight": "split",
    "cookie": "sticky",
    "hash_policy": "sticky",
    "domain": "hosts",
    "timeout": "timeout",
}
"""The field of a definition that becomes what an error names, by a word of the error; the first that is met counts."""


def _field(reason: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason).lower()
    return next((field for word, field in _FIELDS.items() if word in words), "")
