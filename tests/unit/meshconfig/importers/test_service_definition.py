"""Service definitions of kumonos and itacho as files of a mesh repository."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshconfig.importers.imported import Loss
from meshconfig.importers.itacho import import_itacho
from meshconfig.importers.kumonos import import_kumonos

_SAMPLES = Path(__file__).parents[3] / "samples" / "import"


def _dependency(**fields: Any) -> tuple[dict[str, Any], list[Loss]]:
    document = {"version": 1, "dependencies": [{"name": "user", "cluster_name": "user", "lb": "u:80", **fields}]}
    imported = import_kumonos(document, "web.yml", "web")
    return yaml.safe_load(imported.files["services/web.yaml"])["dependencies"][0], list(imported.losses)


def _route(**fields: Any) -> dict[str, Any]:
    return _dependency(routes=[{"prefix": "/", **fields}])[0]["routes"][0]  # type: ignore[no-any-return]


def test_a_definition_is_one_file_of_the_repository() -> None:
    """Every field of the sample has its place, and the risky one is printed."""
    document = json.loads((_SAMPLES / "20-kumonos-service-definition.json").read_text())
    imported = import_kumonos(document, "web.json", "web")
    user, search = yaml.safe_load(imported.files["services/web.yaml"])["dependencies"]
    assert (user["address"], user["cluster"], user["host_header"]) == (
        "user.internal:80",
        "user-production",
        "user-service",
    )
    assert user["routes"][0] == {"path": "/ping", "timeout": "100ms", "retry": None}
    assert (search["service"], search["protocol"]) == ("search-production", "http2")
    assert search["limit"] == {
        "connections_per_endpoint": None,
        "connections": 64,
        "pending_requests": 128,
        "retries": 3,
    }
    assert search["outlier_detection"]["consecutive_5xx"] == 3
    assert [loss.path for loss in imported.losses] == ["dependencies[1].routes[0].retry_policy"]


def test_itacho_speaks_what_the_client_speaks() -> None:
    """Its clusters use the protocol of the downstream connection."""
    document = {"version": 1, "dependencies": [{"name": "user", "cluster_name": "user", "sds": True}]}
    files = import_itacho(document, "web.yml", "web").files
    assert yaml.safe_load(files["services/web.yaml"])["dependencies"][0]["protocol"] == "same"


def test_retries_count_the_first_try() -> None:
    """Three retries are four tries, and a condition without effect is not imported."""
    policy = {"retry_on": "5xx,retriable-status-codes", "num_retries": 3, "per_try_timeout_ms": 700}
    assert _route(timeout_ms=3000, retry_policy=policy)["retry"] == {
        "attempts": 4,
        "per_try_timeout": "700ms",
        "when": ["5xx"],
    }


def test_a_try_that_outlives_its_request_had_no_limit() -> None:
    """A time limit for a try at or above the timeout of the route never took effect."""
    policy = {"retry_on": "5xx", "num_retries": 1, "per_try_timeout_ms": 3000}
    assert _route(timeout_ms=3000, retry_policy=policy)["retry"]["per_try_timeout"] is None


def test_unverified_tls_stays_unverified_and_is_told() -> None:
    """The file says it, and the loss says how to verify."""
    dependency, losses = _dependency(tls=True)
    assert dependency["tls"] == {"verify": False}
    assert "verify: false" in losses[0].reason


@pytest.mark.parametrize(
    ("append", "kind"), [(None, "add"), (True, "add"), (False, "set")]
)  # Envoy's request_headers_to_add appends unless it is told not to
def test_headers_are_appended_unless_the_definition_replaces(append: bool | None, kind: str) -> None:
    """The option without a word appends, as in Envoy."""
    option = {"header": {"key": "X-Test", "value": "abc"}, **({} if append is None else {"append": append})}
    dependency, losses = _dependency(headers={"request_headers_to_add": [option]})
    assert dependency["headers"] == {kind: {"X-Test": "abc"}}
    assert losses == []


def test_shares_of_faults_are_percentages() -> None:
    """Each denominator is one of three."""
    abort = {"http_status": 503, "percentage": {"numerator": 5, "denominator": "TEN_THOUSAND"}}
    delay = {"type": "fixed", "fixed_delay": "2s", "percentage": {"numerator": 100, "denominator": "HUNDRED"}}
    dependency, _ = _dependency(fault_filter_config={"abort": abort, "delay": delay})
    assert dependency["fault"] == {"abort": {"status": 503, "percent": 0.05}, "delay": {"time": "2s", "percent": 100}}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"surprise": 1}, "dependencies[0].surprise"),
        (
            {"outlier_detection": {"enforcing_success_rate": 5}},
            "dependencies[0].outlier_detection.enforcing_success_rate",
        ),
        ({"connect_timeout_ms": "250"}, "dependencies[0].connect_timeout_ms"),
        ({"routes": [{"timeout_ms": 1}]}, "dependencies[0].routes[0]"),
        ({"routes": "all"}, "dependencies[0].routes"),
    ],
)
def test_what_is_not_mapped_is_printed_with_its_place(fields: dict[str, Any], path: str) -> None:
    """The reason names what an operator has to do or to know."""
    assert path in [loss.path for loss in _dependency(**fields)[1]]


@pytest.mark.parametrize("document", [None, [], 5, {"dependencies": 5}, {"dependencies": [None, 3]}])
def test_a_document_of_another_shape_is_a_loss(document: object) -> None:
    """Nothing is raised, and something is printed."""
    assert import_kumonos(document, "x", "web").losses
