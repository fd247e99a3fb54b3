"""Subscribers of the mesh configuration: joined from all processes, and certain only where every process watched."""

from typing import Any

import pytest

from meshconfig.phases import GONE_AFTER
from registry.core.mesh_subscriber import MAX_WATCH_AGE, Certainty, MeshReport, ProcessWatch, certainty, gather
from registry.core.subscriber_status import SubscriberReport

NOW = 1_000.0


def report(process: str = "p1", kind: str = "clusters", **fields: Any) -> MeshReport:
    """Return a report of a process about an Envoy that polled just now."""
    values: dict[str, Any] = {
        "name": "default" if kind == "routes" else "",
        "node_id": "e1",
        "address": "10.0.0.1",
        "cluster": "web",
        "envoy": "1.40.0",
        "version": 5,
        "refused": None,
        "refused_at": None,
        "denied": False,
        "started_at": None,
        "first_seen": NOW - 100,
        "polled_at": NOW,
        "seen_at": NOW,
        "held": False,
        "pause": 0.3,
    }
    return MeshReport(process, kind, **(values | fields))


def endpoints(service: str, **fields: Any) -> SubscriberReport:
    """Return a report about the same Envoy's endpoints."""
    values: dict[str, Any] = {
        "process": "p1",
        "node_id": "e1",
        "cluster": "web",
        "zone": "",
        "envoy": "1.40.0",
        "address": "10.0.0.1",
        "service": service,
        "api": "v3",
        "version_info": "db:7",
        "version": 7,
        "offered": None,
        "status": 304,
        "answered_at": NOW,
        "polled_at": NOW,
        "first_seen": NOW,
        "held": True,
        "pause": 0.3,
        "refusals": 0,
        "refused_since": None,
        "started_at": NOW - 1,
    }
    return SubscriberReport(**(values | fields))


def test_an_envoy_is_joined_from_what_all_processes_have_seen() -> None:
    """Its subscriptions come from several processes, and the newest report of each counts."""
    reports = [
        report("p1", seen_at=NOW - 5, started_at=NOW - 50),
        report("p2", version=6),
        report("p2", "routes"),
        report("p1", "listeners", version=None, denied=True),
        report("p1", node_id="e2", cluster="cart"),
    ]
    eds = [endpoints("user"), endpoints("user", process="p2", status=403, answered_at=NOW + 0.1)]
    gathered = gather(reports, [*eds, endpoints("user", node_id="e3")], NOW)
    assert gathered.keys() == {"web", "cart"}
    (envoy,) = gathered["web"]
    assert envoy.clusters is not None
    assert envoy.listeners is not None
    assert (envoy.clusters.version, envoy.clusters.started_at) == (6, NOW - 50)
    assert (envoy.listeners.version, envoy.listeners.denied) == (None, True)
    assert (list(envoy.routes), list(envoy.endpoints)) == (["default"], ["user"])
    assert (envoy.endpoints["user"].denied, envoy.endpoints["user"].started_at) == (True, NOW - 1)


def test_a_report_of_the_future_is_none() -> None:
    """A process that is gone stored it before the clock was set back."""
    (envoy,) = gather([report(seen_at=NOW + 3_600), report("p2", "routes")], [], NOW)["web"]
    assert envoy.clusters is None


LONG = ProcessWatch("p1", GONE_AFTER + 1, None, 1.0)
CERTAIN, NEW, DOUBTFUL = Certainty(True, False), Certainty(False, False), Certainty(False, True)


@pytest.mark.parametrize(
    ("living", "watches", "silent", "expected"),
    [
        (["p1"], [LONG], [], CERTAIN),
        (["p1"], [LONG], [GONE_AFTER + 1], CERTAIN),
        # Its Envoys have not gone elsewhere yet.
        (["p1"], [LONG], [GONE_AFTER - 1], NEW),
        (["p1"], [ProcessWatch("p1", GONE_AFTER - 1, None, 1.0)], [], NEW),
        (["p1"], [ProcessWatch("p1", 100.0, GONE_AFTER + 1, 1.0)], [], CERTAIN),
        (["p1"], [ProcessWatch("p1", 100.0, 1.0, 1.0)], [], DOUBTFUL),
        # It is of an older version, or PostgreSQL has lost what it said.
        (["p1", "p2"], [LONG], [], DOUBTFUL),
        (["p1", "p2"], [LONG, ProcessWatch("p2", 100.0, None, MAX_WATCH_AGE + 1)], [], DOUBTFUL),
        # One that stopped in order takes no polls any more.
        (["p1"], [LONG, ProcessWatch("p2", 1.0, 1.0, 1.0)], [], CERTAIN),
    ],
)
def test_that_nobody_was_seen_is_certain_only_where_every_process_watched(
    living: list[str], watches: list[ProcessWatch], silent: list[float], expected: Certainty
) -> None:
    """Each process that lives has told for longer than a hold, and had room; those that died are gone for as long."""
    assert certainty(living, watches, silent, 1e9) == expected
    assert certainty(living, watches, silent, 1.0) == DOUBTFUL
