"""Silent endpoints in the tables and explanations of registryctl."""

import io
from typing import Any

import msgspec
from msgspec import Raw

from registryctl.explanation import show_explanation
from registryctl.output import Screen
from registryctl.pauses import show_expiry
from registryctl.tables import show_endpoints, show_service, show_services

NOW = 1_763_600_104.0
SILENCE: dict[str, Any] = {
    "since": NOW - 83,
    "last_heard": NOW - 104,
    "last_reported": "HEALTHY",
    "held_until": NOW + 800,
    "reason": "2 of 10 of the service lapsed within 60 s, limit 20 %",
}
ENDPOINT: dict[str, Any] = {
    "endpoint": "10.0.0.5:80",
    "status": "HEALTHY",
    "weight": None,
    "region": "r",
    "zone": "a",
    "revision": "1.2",
    "canary": False,
    "instance_id": "i-5",
    "lease_expires_at": NOW - 84,
    "changed_at": NOW - 83,
    "lapsed_at": None,
    "detail": "GET /healthz: 200",
    "override": None,
    "silence": SILENCE,
}
WELL = ENDPOINT | {"endpoint": "10.0.0.4:80", "silence": None, "lease_expires_at": NOW + 9}
SERVICE: dict[str, Any] = {
    "name": "shop",
    "version": 7,
    "endpoints": 6,
    "statuses": {"HEALTHY": 1, "SILENT": 5},
    "routable": 6,
    "silent": 5,
}


def raw(*documents: dict[str, Any]) -> list[Raw]:
    """Return documents as they come from the registry."""
    return [Raw(msgspec.json.encode(document)) for document in documents]


def shown() -> tuple[io.StringIO, Screen]:
    """Return what is printed to, and a screen that prints there."""
    out = io.StringIO()
    return out, Screen(out)


def test_a_service_with_silent_endpoints_is_in_trouble() -> None:
    """Its routable endpoints may be dead: that it has six of six is no comfort."""
    out, screen = shown()
    show_services(screen, {"services": [SERVICE]})
    head, line = out.getvalue().splitlines()
    assert head.split()[-1] == "SILENT"
    assert line.split()[:9] == ["shop", "7", "6", "1", "0", "0", "0", "0", "5"]
    assert line.endswith("5 silent, kept by the guard")


def test_silent_endpoints_come_first_and_say_when_they_were_heard() -> None:
    """Whatever the check of then said, and an override beside it."""
    out, screen = shown()
    overridden = ENDPOINT | {
        "endpoint": "10.0.0.6:80",
        "silence": SILENCE | {"last_heard": None},
        "override": {"weight": 5, "canary": None, "drain": False, "reason": "x", "actor": "ann", "expires_at": None},
    }
    show_endpoints(screen, raw(WELL, ENDPOINT, overridden), NOW)
    _, first, second, third = out.getvalue().splitlines()
    assert first.split()[:2] == ["10.0.0.5:80", "SILENT"]
    assert "last reported HEALTHY 104s ago, kept until " in first
    assert first.endswith("at most: 2 of 10 of the service lapsed within 60 s, limit 20 %")
    assert "last reported HEALTHY over 83s ago" in second
    assert "weight 5" in second
    assert third.split()[:2] == ["10.0.0.4:80", "HEALTHY"]
    out, screen = shown()
    show_service(screen, raw(SERVICE)[0], raw(WELL, ENDPOINT), NOW)
    assert out.getvalue().splitlines()[-1].split() == ["r", "a", "1", "0", "0", "0", "0", "1"]


def test_an_explanation_says_silent_and_what_it_lacks() -> None:
    """A registry without PostgreSQL answers from memory; that is said before anything else."""
    out, screen = shown()
    explanation = {
        "service": "shop",
        "endpoint": "10.0.0.5:80",
        "served": True,
        "status": "HEALTHY",
        "now": ENDPOINT,
        "because": ["SILENT, last reported HEALTHY 1m44s ago"],
        "would_change": [],
        "events": [],
        "from_memory": True,
        "missing": ["heartbeats and pauses since 12:20:31 UTC", "the history"],
        "away": "PostgreSQL is away",
    }
    show_explanation(screen, explanation)
    first, second, *_ = out.getvalue().splitlines()
    assert first == "from memory, without heartbeats and pauses since 12:20:31 UTC and the history: PostgreSQL is away"
    assert second == "shop 10.0.0.5:80  SILENT  gets traffic, which fails if it is dead"


def test_what_a_registry_of_before_sends_is_printed_as_before() -> None:
    """During an upgrade the command may be newer than the registry that it asks."""
    before = {name: value for name, value in WELL.items() if name != "silence"}
    out, screen = shown()
    show_endpoints(screen, raw(before), NOW)
    service = {"name": "shop", "version": 7, "endpoints": 2, "statuses": {"HEALTHY": 2}}
    show_services(screen, {"services": [service]})
    suspect = {"service": "shop", "endpoint": "10.0.0.5:80", "since": NOW - 9, "until": NOW + 9, "reason": "x"}
    show_expiry(screen, {"pauses": [], "suspects": [suspect]}, NOW)
    assert "HEALTHY" in out.getvalue()
    assert out.getvalue().splitlines()[-1].split() == ["shop", "10.0.0.5:80", "-", "9s", "9s", "x"]
