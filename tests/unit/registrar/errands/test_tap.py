"""What of a tap leaves the registrar, and what is asked of Envoy."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.errands.tap import find_filters, read_traces, tap_request, without_query
from registrar.errands.top import add_up, fold
from wire.errand import Tap, Trace

ALLOWED = {
    ":method": "POST",
    ":path": "/pay/4711?card=SECRET",
    ":authority": "user:SECRET@shop:80",
    "X-Request-Id": "r-1",
    "content-type": "application/json",
    "USER-AGENT": "curl/8",
}
RESPONSE = {":status": "503", "grpc-status": "14", "x-envoy-upstream-service-time": "12"}


def buffered(request: dict[str, str], response: dict[str, str]) -> bytes:
    """Return a trace as Envoy writes it."""

    def headers(values: dict[str, str]) -> list[dict[str, str]]:
        return [{"key": name, "value": value, "raw_value": ""} for name, value in values.items()]

    trace = {"request": {"headers": headers(request)}, "response": {"headers": headers(response)}}
    return json.dumps({"http_buffered_trace": trace}, indent=1).encode()


def test_only_the_allowed_headers_leave_in_any_casing() -> None:
    """The path without its query, the authority without its user."""
    (trace,) = read_traces(buffered(ALLOWED, RESPONSE))
    assert trace == Trace("POST", "/pay/4711", "shop:80", "503", "r-1", "application/json", "curl/8", "14", "12")


@given(st.dictionaries(st.text(min_size=1), st.just("SECRET")), st.sampled_from(["upper", "title", "swapcase"]))
def test_no_other_header_leaves(headers: dict[str, str], casing: str) -> None:
    """Whatever its name and its casing, of the request and of the response."""
    names = [
        "authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "proxy-authorization",
        "x-amz-security-token",
        "referer",
    ]
    secret = {getattr(name, casing)(): "SECRET" for name in names}
    others = {
        name: value
        for name, value in headers.items()
        if name.lower() not in {each.lower() for each in ALLOWED | RESPONSE}
    }
    for request, response in ((secret | others, {}), ({}, secret | others)):
        (trace,) = read_traces(buffered(request, response))
        assert "SECRET" not in msgspec.json.encode(trace).decode()


def test_values_that_are_no_text_are_made_printable() -> None:
    """Envoy has them in base64; a terminal obeys control characters."""
    raw = base64.b64encode(b"evil\x1b[2J\xff").decode()
    trace = {"request": {"headers": [{"key": "user-agent", "value": "", "raw_value": raw}]}}
    (read,) = read_traces(json.dumps({"http_buffered_trace": trace}).encode())
    assert read.user_agent == "evil?[2J�"


@given(st.binary())
def test_garbage_is_no_trace_and_no_error(garbage: bytes) -> None:
    """A response that is cut, or of another format, has the traces before that."""
    whole = buffered(ALLOWED, RESPONSE)
    assert len(list(read_traces(whole + b"\n" + whole[: len(garbage)]))) == 1
    list(read_traces(garbage))


@pytest.mark.parametrize(
    ("path", "shown"),
    [("/a?b", "/a"), ("/a;s=1/b?c", "/a"), ("/a#f", "/a"), ("", ""), ("?x", ""), ("/a%3Fb", "/a"), ("/a%3bs=1", "/a")],
)
def test_a_path_has_no_query(path: str, shown: str) -> None:
    """Nor parameters or a fragment, also where they are encoded."""
    assert without_query(path) == shown


def test_the_request_of_a_tap_has_typed_matchers_and_no_body() -> None:
    """One matcher stands alone, because Envoy wants two in a list; a name of a service is quoted."""
    plain = tap_request(Tap(), "", "shop", 50, 30)["tap_config"]
    assert plain["match"] == {"any_match": True}
    assert plain["tap_enabled"]["default_value"] == {"numerator": 100, "denominator": "TEN_THOUSAND"}
    assert (plain["output_config"]["max_buffered_rx_bytes"], plain["output_config"]["max_buffered_tx_bytes"]) == (0, 0)
    single = tap_request(Tap(status="5xx"), "", "shop", 50, 30)["tap_config"]["match"]
    (header,) = single["http_response_headers_match"]["headers"]
    assert header == {"name": ":status", "string_match": {"safe_regex": {"regex": "5[0-9][0-9]"}}}
    several = tap_request(Tap(method="GET", path="/a"), "shop.v1", "egress", 50, 30)["tap_config"]["match"]
    rules: list[dict[str, Any]] = several["and_match"]["rules"]
    assert rules[-1]["http_request_headers_match"]["headers"][0]["string_match"] == {
        "safe_regex": {"regex": r"shop\.v1([.:].*)?"}
    }


def test_filters_are_found_with_the_direction_of_their_listener() -> None:
    """In static and dynamic listeners, however deep."""
    typed = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.tap.v3.Tap",
        "common_config": {"admin_config": {"config_id": "shop"}},
    }
    listener = {"listener": {"traffic_direction": "INBOUND", "chains": [[{"typed_config": typed}]]}}
    dynamic = {"active_state": listener}
    (first, second) = find_filters([msgspec.Raw(msgspec.json.encode(each)) for each in (listener, dynamic)])
    assert (first.config_id, first.direction) == ("shop", "INBOUND")
    assert second == first
    broken = {"typed_config": {"@type": typed["@type"], "common_config": []}}
    assert list(find_filters([msgspec.Raw(msgspec.json.encode(broken))])) == []


@pytest.mark.parametrize(
    ("path", "folded"),
    [
        ("/users/4711/cart", "/users/{id}/cart"),
        ("/o/0b54cd8e-7d2c-4b0e-9f35-3f4b61c8f0a1", "/o/{id}"),
        ("/reset/dGhpc2lzYXRva2VuMTIz", "/reset/{id}"),
        ("/u/ann@example.org", "/u/{id}"),
        ("/sha/deadbeef01", "/sha/{id}"),
        ("/v1/payments", "/v1/payments"),
        ("/checkout", "/checkout"),
        ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/…"),
        ("", ""),
    ],
)
def test_ids_in_paths_are_folded(path: str, folded: str) -> None:
    """Numbers, UUIDs, hashes, tokens and addresses; words stay."""
    assert fold(path) == folded


def test_requests_are_added_up_by_method_and_path() -> None:
    """Failures are 5xx and the gRPC statuses that are one; times are the median and the longest."""
    traces = [
        Trace("GET", "/users/1", status="200", upstream_milliseconds="4"),
        Trace("GET", "/users/2", status="503", upstream_milliseconds="8"),
        Trace("GET", "/users/3", status="200", grpc_status="14"),
        Trace("POST", "/users", status="200", upstream_milliseconds="x"),
    ]
    first, second = add_up(traces, "path")
    assert (first.path, first.requests, first.failures, first.p50, first.max) == ("/users/{id}", 3, 2, 4.0, 8.0)
    assert (second.method, second.p50) == ("POST", None)
    assert [row.method for row in add_up(traces, "method")] == ["GET", "POST"]
