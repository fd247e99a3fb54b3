"""What is cut out of Envoy's configuration before it leaves the registrar."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrar.errands.redaction import CUT, Redaction

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "document",
    [
        {"private_key": {"inline_string": SECRET}},
        {"private_key": {"inline_bytes": SECRET}},
        {"trusted_ca": {"inline_string": f"-----BEGIN CERTIFICATE----- {SECRET}"}},
        {"inline_code": f"local token = '{SECRET}'"},
        {"request_headers_to_add": [{"header": {"key": "X-Anything", "value": SECRET}}]},
        {"initial_metadata": [{"key": "x-token", "value": SECRET, "raw_value": SECRET}]},
        {"headers": [{"name": "AUTHORIZATION", "string_match": {"exact": f"Bearer {SECRET}"}}]},
        {"headers": [{"name": "Cookie", "safe_regex_match": {"regex": SECRET}}]},
        {"query_parameters": [{"name": "api_key", "string_match": {"exact": SECRET}}]},
        {"access_token": SECRET},
        {"password": SECRET, "ssl_password": [SECRET]},
        {"hmac_secret": SECRET},
        {"metadata": {"db": {"PASSWORD": SECRET, "apiKey": SECRET}}},
        {"uri": f"https://user:{SECRET}@idp/keys"},
        {"uri": f"https://idp/keys?signature={SECRET}"},
        {"text": f"Authorization: Bearer {SECRET}"},
        {"value": f"basic {SECRET}"},
        {"text": f"-----BEGIN PRIVATE KEY-----\n{SECRET}"},
        {"fields": [{"key": "session-id", "value": {"string_value": SECRET}}]},
        {"metadata": {"db": {"pass": SECRET}, "signing_key": SECRET}},
        {"filter_metadata": {"m": {"oauth": {"client": [SECRET]}}}},
        {"static_layer": {"api": {"key": SECRET}}},
        {"vm_config": {"environment_variables": {"key_values": {"DB_PASS": SECRET}}}},
        {"configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": SECRET}},
        {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "value": {"tokens": {"eu": SECRET}}},
        {"headers": [{"name": "x-origin-verify", "string_match": {"exact": SECRET}}]},
        {"query_parameters": [{"name": "k", "string_match": {"exact": SECRET}}]},
        {"http_health_check": {"path": f"/health?k={SECRET}"}},
        {"redirect": {"path_redirect": f"/login?k={SECRET}"}},
        {"tcp_health_check": {"send": {"text": SECRET}, "receive": [{"binary": SECRET}]}},
        {"uri": f"postgres://user:p@{SECRET}@db/shop"},
        {"dsn": f"user:{SECRET}@tcp(db)/shop"},
        {"text": f"host=db password={SECRET} port=5432"},
        {"details": f'goo.gle/debugproto\nbody {{ inline_string: "a\\"{SECRET}" }}: Proto constraint failed'},
        {"details": f'body {{ inline_string: "{SECRET}'},
    ],
)
def test_secrets_are_cut_wherever_they_stand(document: dict[str, Any]) -> None:
    """By the name of their field, by the name of their header, or by what they look like; in any depth."""
    redaction = Redaction()
    shown = json.dumps(redaction.shown({"configs": [[{"typed_config": document}]]}))
    assert SECRET not in shown
    assert CUT in shown
    assert redaction.cut >= 1


def test_what_an_operator_needs_is_shown() -> None:
    """Names, numbers, addresses, matches of paths and of plain headers, and where secrets are kept."""
    document = {
        "name": "payments",
        "connect_timeout": "1s",
        "sds_config": {"path_config_source": {"path": "/etc/envoy/sds.json"}},
        "tls_certificates": [{"private_key": {"filename": "/etc/key.pem"}}],
        "routes": [{"match": {"prefix": "/api"}, "route": {"cluster": "payments", "timeout": "5s"}}],
        "headers": [
            {"name": ":authority", "string_match": {"exact": "shop"}},
            {"name": "x-canary", "present_match": True},
        ],
        "request_headers_to_add": [{"header": {"key": "x-envoy-retry-on", "value": "5xx"}}],
        "address": {"socket_address": {"address": "10.0.0.5", "port_value": 8080}},
        "authority": "shop",
        "match": {"safe_regex": {"regex": "/a(?:b)?/c"}},
        "metadata": {"filter_metadata": {"envoy.lb": {"revision": "abc", "canary": True}}},
        "error_state": {"details": "Proto constraint failed (Status: value must be inside range [200, 600))"},
        "max_tokens": 5,
        "circuit_breakers": {"thresholds": [{"max_pending_requests": 100}]},
    }
    shown = Redaction().shown(document)
    del document["max_tokens"], shown["max_tokens"]
    assert shown == document


@given(
    st.recursive(st.text() | st.integers() | st.none(), lambda each: st.lists(each) | st.dictionaries(st.text(), each))
)
def test_any_json_is_copied_and_nothing_raises(document: Any) -> None:
    """Whatever Envoy, or somebody in its place, answers."""
    assert json.dumps(Redaction().shown(document))


def test_deep_nesting_is_cut() -> None:
    """It does not exhaust the stack."""
    document: Any = SECRET
    for _ in range(500):
        document = [document]
    assert SECRET not in json.dumps(Redaction().shown(document))
