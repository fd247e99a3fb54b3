"""What leaves the house in a bundle: no secret by its field's name, none by its look, and everything else as it was."""

from typing import Any

import pytest

from registry.ctl.redaction import redact, redact_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://app:s3cr3t@db:5432/x", "postgresql://[redacted]@db:5432/x"),
        (
            "postgresql://app@db/x?password=s3cr3t&sslmode=require",
            "postgresql://[redacted]@db/x?password=[redacted]&sslmode=require",
        ),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("authorization: basic YWJj", "authorization: basic [redacted]"),
        ("token=abc, next", "token=[redacted], next"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2ln", "[redacted]"),
        ("key AKIAIOSFODNN7EXAMPLE here", "key [redacted] here"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[redacted]"),
        ("GET http://10.0.0.5:80/healthz: 200", "GET http://10.0.0.5:80/healthz: 200"),
        ("the basics of a token", "the basics of a token"),
    ],
)
def test_secrets_are_known_by_their_look(text: str, expected: str) -> None:
    """Passwords in URLs, credentials of HTTP, assignments, keys and signed tokens go; other text stays."""
    assert redact_text(text) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"db_password": "x", "name": "y"}, {"db_password": "[redacted]", "name": "y"}),
        (
            {"apiKey": "x", "api-key": "y", "monkey": "z"},
            {"apiKey": "[redacted]", "api-key": "[redacted]", "monkey": "z"},
        ),
        (
            {"header": {"key": "authorization", "value": "abc"}},
            {"header": {"key": "authorization", "value": "[redacted]"}},
        ),
        ({"header": {"key": "x-zone", "value": "abc"}}, {"header": {"key": "x-zone", "value": "abc"}}),
        ({"private_key": {"inline_string": "x"}}, {"private_key": "[redacted]"}),
        ({"private_key": {"filename": "/etc/key.pem"}}, {"private_key": {"filename": "/etc/key.pem"}}),
        ([{"token": ["a", "b"]}, 1, None, True], [{"token": "[redacted]"}, 1, None, True]),
        ({"authToken": "x", "dbPassword": "y"}, {"authToken": "[redacted]", "dbPassword": "[redacted]"}),
        ({"uses_token": True}, {"uses_token": True}),
    ],
)
def test_secrets_are_known_by_the_names_of_fields(document: Any, expected: Any) -> None:
    """Fields that are named like secrets, and headers that carry them, lose their value and keep their name."""
    assert redact(document) == expected
