"""One client that polls under made-up node ids, as fast as it can, while others are to be answered."""

import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness.figures import Figures
from harness.flood import flood, probe
from harness.registry import registry

pytestmark = pytest.mark.faults

_ATTACKS: dict[str, dict[str, Any]] = {
    "1,000 polls of 400 names": {"polls": 1_000, "names": 400},
    "2,000 polls of 400 names with 2 kB of version_info": {"polls": 2_000, "names": 400, "version_info": "x" * 2_048},
    "60,000 polls of one name": {"polls": 60_000, "names": 1},
}
_AFTER = 20.0
"""Seconds for which others are asked for their times after the last poll: several turns of all periodic work."""


@pytest.mark.parametrize("attack", _ATTACKS)
def test_a_client_that_makes_up_node_ids(
    database: str, workplace: Path, service: str, figures: Figures, attack: str
) -> None:
    """Others are answered as before, memory is bounded, and nobody's lease is in doubt."""
    with registry(database, workplace, lease_ttl="5s") as found:
        process = psutil.Process(found.process.pid)
        with probe(found.url) as quiet:
            time.sleep(5)
        before = process.memory_info().rss
        path, registration = f"/v1/services/{service}/endpoints/10.0.0.1:80", {"instance_id": "i", "incarnation": 1}
        with probe(found.url) as busy, probe(found.url, path, registration):
            flood(found.url, **_ATTACKS[attack])
            time.sleep(_AFTER)
        fault = "25"
        figures.at_most(fault, f"{attack}: p99 of `/livez`", max(100, 3 * quiet.p99()), busy.p99(), "ms")
        figures.show(fault, f"{attack}: the slowest `/livez`", f"{busy.worst():.3g} ms")
        taken = (process.memory_info().rss - before) / 2**20
        figures.at_most(fault, f"{attack}: memory that the registry takes", 150, taken, "MB")
        events = found.client.get(f"/v1/events?service={service}").json()["events"]
        seen = {event["kind"] for event in events}
        figures.equal(
            fault, f"{attack}: kinds of events of an endpoint that sends heartbeats", "registered", " ".join(seen)
        )
        listed = found.client.get("/v1/subscribers?limit=1").json()
        assert sum(listed["states"].values()) <= 50_000
        assert not listed["complete"]
