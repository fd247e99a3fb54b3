"""The format of a foreign document, by its shape: one that can be imported, or a name for the refusal."""

from collections.abc import Mapping
from typing import Any

_APP_MESH = frozenset(
    {"mesh", "virtualNode", "virtualService", "virtualRouter", "route", "virtualGateway", "gatewayRoute"}
)
_APP_MESH_LISTS = frozenset({f"{kind}s" for kind in _APP_MESH} | {"meshes"})
_CONSUL_KINDS = (
    "service-",
    "proxy-defaults",
    "mesh",
    "ingress-gateway",
    "terminating-gateway",
    "http-route",
    "tcp-route",
)
_API_GROUPS = {
    "networking.istio.io": "Istio",
    "security.istio.io": "Istio",
    "split.smi-spec.io": "SMI",
    "specs.smi-spec.io": "SMI",
    "access.smi-spec.io": "SMI",
    "gateway.networking.k8s.io": "the Kubernetes Gateway API",
    "linkerd.io": "Linkerd",
    "policy.linkerd.io": "Linkerd",
    "kuma.io": "Kuma",
}


def format_of(document: object) -> str:
    """Return the name of a document's format, as people call it; an empty text for one that is not known."""
    if not isinstance(document, Mapping):
        return ""
    if "dependencies" in document:
        return "service definition"
    if _APP_MESH & set(document) or _APP_MESH_LISTS & set(document):
        return "App Mesh"
    return _kubernetes(document) or _consul(document) or _envoy(document)


def _kubernetes(document: Mapping[str, Any]) -> str:
    version = document.get("apiVersion")
    return _API_GROUPS.get(version.partition("/")[0], "Kubernetes") if isinstance(version, str) else ""


def _consul(document: Mapping[str, Any]) -> str:
    kind = document.get("Kind")
    return "Consul" if isinstance(kind, str) and kind.startswith(_CONSUL_KINDS) else ""


def _envoy(document: Mapping[str, Any]) -> str:
    return "Envoy's own configuration" if {"static_resources", "resources", "admin"} & set(document) else ""
