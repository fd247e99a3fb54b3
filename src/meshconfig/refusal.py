"""Envoy's refusal of a bootstrap, as a fault of the definition that the refused resource was compiled from."""

import re
from collections.abc import Mapping

import msgspec

from meshconfig.cluster import name_of, versions_name
from meshconfig.effective import Caller, Configuration
from meshconfig.position import Fault, Position
from meshconfig.static_bootstrap import HASH_DIGITS, Element, StaticBootstrap, virtual_hosts

MAX_REASON = 400
"""Characters of Envoy's error that a fault repeats."""


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
    mentioned = set(_EMBEDDED_NAME.findall(refusal))
    named = [element for element in bootstrap.clusters if element.embedded_name in mentioned]
    return named[0] if len(named) == 1 else None


_PLACE = re.compile(
    r"(?:static_resources\.|StaticResourcesValidationError\.)(clusters|listeners)\[(\d+)\]", re.IGNORECASE
)
_HOST_PLACE = re.compile(r"virtual_?hosts\[(\d+)\]", re.IGNORECASE)
_EMBEDDED_NAME = re.compile(rf"[^\s'\"]+#[0-9a-f]{{{HASH_DIGITS}}}")


def named_host(refusal: str, element: Element) -> str:
    """Return the virtual host that Envoy's error names by its place, or an empty text."""
    place = _HOST_PLACE.search(refusal)
    hosts = list(virtual_hosts(msgspec.json.decode(element.body)))
    # Only where the element has one table of routes is the place that in all of them.
    return hosts[int(place[1])] if place is not None and int(place[1]) < len(hosts) else ""


def reason_of(output: str) -> str:
    """Return Envoy's error in one line, without the documents that it repeats."""
    text = output.rpartition("error initializing configuration")[2]
    text = re.sub(r"^ '[^']*': ", "", text)
    if (violation := text.rfind("Proto constraint validation failed (")) >= 0:
        text = text[violation:].partition("(")[2].rpartition(")")[0].rpartition("| caused by ")[2]
    elif text.startswith("Unable to parse JSON as proto"):
        text = text.partition("): ")[0] + ")"
    text = re.sub(rf"#(?:[0-9a-f]{{{HASH_DIGITS}}}|\d+)\b", "", " ".join(text.split()))
    return text[:MAX_REASON].rstrip(".")


def fault_of(element: Element, host: str, refusal: str, configuration: Configuration) -> Fault:
    """Return Envoy's refusal of an element as a fault of the definition that the element was compiled from."""
    node = element.nodes[0]
    others = f" (and {len(element.nodes) - 1} more)" if len(element.nodes) > 1 else ""
    where = f"virtual host {host!r} in " if host else ""
    noun = {"clusters": "cluster", "routes": "routes", "listeners": "listener"}[element.kind]
    reason = reason_of(refusal)
    return Fault(
        _position(element, host, reason, configuration),
        f"Envoy refuses {where}the {noun} {element.name!r} of {node}{others}: {reason}.",
    )


def _position(element: Element, host: str, reason: str, configuration: Configuration) -> Position:
    node = element.nodes[0]
    for folder, documents in (("gateways", configuration.gateways), ("edges", configuration.edges)):
        if node in documents:
            return Position(f"{folder}/{node}.yaml")
    whole = Position(f"services/{node}.yaml")
    caller = configuration.callers.get(node)
    name = "" if caller is None else _dependency_name(caller, element, host)
    if caller is None or not name:
        return whole
    written = [
        (path, origin.position)
        for path, origin in caller.origins.items()
        if origin.position.line and (path == name or path.startswith((f"{name}.", f"{name}[")))
    ]
    field = _field(reason)
    narrow = [position for path, position in written if field and field in re.split(r"[.\[\]]", path)]
    return min(narrow or [position for _, position in written if position.file == whole.file], default=whole)


def _dependency_name(caller: Caller, element: Element, host: str) -> str:
    """Return the name of the dependency that a cluster or a virtual host was compiled from."""
    if element.kind != "clusters":
        return host
    cluster = element.name.removesuffix(versions_name(""))
    reached = (*caller.dependencies, *caller.targets)
    names = [dependency.name or "" for dependency in reached if name_of(dependency) == cluster]
    return names[0] if names else ""


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
