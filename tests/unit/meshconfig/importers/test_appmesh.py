"""Documents of `aws appmesh describe-*` as files of a mesh repository."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshconfig.importers.appmesh import import_appmesh
from meshconfig.importers.imported import Imported, NotImportableError

_SAMPLES = Path(__file__).parents[3] / "samples" / "import"


def _samples() -> dict[str, object]:
    return {path.name: json.loads(path.read_text()) for path in sorted(_SAMPLES.glob("*appmesh*.json"))}


def _files(imported: Imported) -> dict[str, Any]:
    return {path: yaml.safe_load(text) for path, text in imported.files.items()}


def _route(name: str, **spec: Any) -> dict[str, Any]:
    return {"route": {"meshName": "m", "virtualRouterName": "r", "routeName": name, "spec": spec}}


def _http(weights: dict[str, int], **match: Any) -> dict[str, Any]:
    targets = [{"virtualNode": node, "weight": weight} for node, weight in weights.items()]
    return {"match": match, "action": {"weightedTargets": targets}}


def _service() -> dict[str, Any]:
    spec = {"provider": {"virtualRouter": {"virtualRouterName": "r"}}}
    return {"virtualService": {"meshName": "m", "virtualServiceName": "shop.local", "spec": spec}}


def _imported_routes(*routes: dict[str, Any]) -> list[dict[str, Any]]:
    documents: dict[str, object] = {"service.json": _service(), **{f"{i}.json": each for i, each in enumerate(routes)}}
    return _files(import_appmesh(documents))["groups/shop.local.yaml"]["dependencies"][0]["routes"]  # type: ignore[no-any-return]


def test_a_virtual_service_is_a_group_with_the_routes_of_its_router_by_priority() -> None:
    """Matches, weights and retries of both routes are there, the lower priority first."""
    (dependency,) = _files(import_appmesh(_samples()))["groups/shop.prod.internal.yaml"]["dependencies"]
    beta, rest = dependency["routes"]
    assert beta["headers"][0] == {"name": "x-user-group", "exact": "beta"}
    assert beta["headers"][2] == {"name": "user-agent", "prefix": "bot", "invert": True}
    assert beta["query"] == {"preview": "1"}
    assert beta["split"] == {"shop-v2": 100}
    assert rest["split"] == {"shop-v1": 90, "shop-v2": 10}
    assert rest["retry"]["attempts"] == 3
    assert rest["retry"]["per_try_timeout"] == "1500ms"


def test_a_virtual_node_is_a_service_with_the_defaults_of_its_callers() -> None:
    """Its listener says how callers treat it, and its backends whom it calls."""
    node = _files(import_appmesh(_samples()))["services/shop-v1.yaml"]
    assert node["provides"]["defaults"]["outlier_detection"]["consecutive_5xx"] == 5
    assert node["provides"]["defaults"]["limit"] == {"connections_per_endpoint": 100, "pending_requests": 50}
    assert node["dependencies"] == [{"name": "cart.prod.internal", "service": "cart"}]


def test_a_gateway_route_is_a_route_of_an_edge() -> None:
    """Host, query and rewrite stay, and the service is the one behind the virtual service."""
    edge = _files(import_appmesh(_samples()))["edges/edge.yaml"]
    (site,) = edge["sites"]
    assert site["hosts"] == ["*.example.net"]
    assert site["routes"] == [
        {
            "prefix": "/store/",
            "query": {"lang": "en"},
            "rewrite": {"prefix": "/"},
            "timeout": "15s",
            "service": "shop-v1",
        }
    ]


@pytest.mark.parametrize(
    ("file", "place", "word"),
    [
        ("08", "virtualNode.spec.backendDefaults.clientPolicy.tls.validation", "ACM"),
        ("08", "virtualNode.spec.listeners[0].tls", "TLS"),
        ("01", "virtualNode.spec.listeners[0].timeout", "callee"),
        ("01", "virtualNode.spec.listeners[0].healthCheck", "registrar"),
        ("01", "virtualNode.spec.serviceDiscovery.awsCloudMap", "REGISTRAR_REVISION=shop-v1"),
        ("02", "route.spec.httpRoute.action.weightedTargets[1].port", "port"),
        ("03", "route.spec", "price-router"),
        ("07", "gatewayRoute.spec", "virtual gateway edge"),
        ("09", "", "nextToken"),
    ],
)
def test_what_is_not_mapped_is_printed_with_its_place(file: str, place: str, word: str) -> None:
    """The reason names what an operator has to do or to know."""
    losses = [loss for loss in import_appmesh(_samples()).losses if loss.file.startswith(file) and loss.path == place]
    assert any(word in loss.reason for loss in losses)


def test_relative_weights_become_shares_that_add_up() -> None:
    """Three equal weights are percentages with four decimals, and make 100."""
    (route,) = _imported_routes(_route("all", httpRoute=_http({"a": 1, "b": 1, "c": 1}, prefix="/")))
    assert sum(route["split"].values()) == pytest.approx(100)
    assert route["split"]["b"] == 33.3333


def test_routes_of_one_priority_are_tried_from_the_narrowest() -> None:
    """An exact path comes before a prefix, and a long prefix before a short one."""
    routes = _imported_routes(
        _route("all", httpRoute=_http({"a": 1}, prefix="/")),
        _route("long", httpRoute=_http({"a": 1}, prefix="/cart/items")),
        _route("exact", httpRoute=_http({"a": 1}, path={"exact": "/cart"})),
        _route("first", priority=0, httpRoute=_http({"a": 1}, prefix="/")),
    )
    assert [route.get("path") or route["prefix"] for route in routes] == ["/", "/cart", "/cart/items", "/"]


def test_grpc_routes_are_paths_and_retried_as_before() -> None:
    """The maximum of retries becomes the number of tries, and POST may be sent again."""
    body = {
        **_http({"price": 1}, serviceName="price.v1.Price", methodName="Get"),
        "retryPolicy": {
            "maxRetries": 3,
            "perRetryTimeout": {"value": 2, "unit": "s"},
            "grpcRetryEvents": ["unavailable"],
        },
        "timeout": {"perRequest": {"value": 3, "unit": "s"}},
    }
    (route,) = _imported_routes(_route("get", grpcRoute=body))
    assert route["path"] == "/price.v1.Price/Get"
    assert route["retry"] == {
        "attempts": 4,
        "per_try_timeout": "2s",
        "when": ["unavailable"],
        "idempotent": ["POST"],
    }


@pytest.mark.parametrize(
    "match",
    [
        {"prefix": "/", "headers": [{"name": "x", "match": {"semver": "1"}}]},
        {"prefix": "/", "queryParameters": [{"name": "x", "match": {"regex": "1"}}]},
        {"prefix": "/", "scheme": "https"},
    ],
)
def test_a_route_with_an_unknown_condition_is_left_out_whole(match: dict[str, Any]) -> None:
    """Without its condition it would take requests that are not its own."""
    routes = _imported_routes(
        _route("narrow", httpRoute=_http({"a": 1}, **match)), _route("all", httpRoute=_http({"b": 1}, prefix="/"))
    )
    assert len(routes) == 1
    assert "split" not in routes[0]


@pytest.mark.parametrize("document", [{"surprise": 1}, [], "text", None, {"route": 1}, {"virtualNode": {"spec": []}}])
def test_a_document_of_another_shape_is_a_loss(document: object) -> None:
    """Nothing is raised, and something is printed."""
    assert import_appmesh({"x.json": document}).losses


def test_no_document_is_no_import() -> None:
    """An import of nothing is refused."""
    with pytest.raises(NotImportableError):
        import_appmesh({})
