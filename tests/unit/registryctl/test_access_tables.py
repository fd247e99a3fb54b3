"""What `whoami` and `login` say of the mode of access."""

import io
from typing import Any

import pytest

from registryctl.access_tables import show_whoami
from registryctl.output import Screen

WHOAMI: dict[str, Any] = {
    "principal": "token:ann from 10.0.0.9",
    "kind": "operator",
    "credential": "s33426zjxtxv6ttz",
    "expires_at": None,
    "grants": [],
    "problem": None,
}


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ({"mode": "off", "noted_verbs": []}, "access is off: everything is allowed"),
        ({"mode": "audit", "noted_verbs": ["read"]}, "access is in audit: what would be refused is noted and allowed"),
        ({"mode": "on", "noted_verbs": []}, "access is on\n"),
        (
            {"mode": "on", "noted_verbs": ["discover", "read"]},
            "would be refused of discover, read is noted and allowed",
        ),
        ({"mode": "on"}, "access is on\n"),
    ],
)
def test_the_mode_says_what_is_only_noted(view: dict[str, Any], said: str) -> None:
    """Verbs that wait are named; a registry of an earlier version does not say which do."""
    out = io.StringIO()
    show_whoami(Screen(out), WHOAMI | view, 0.0)
    assert said in out.getvalue()
