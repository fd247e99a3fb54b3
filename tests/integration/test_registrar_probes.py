"""Registrars are asked to probe by the grant of a heartbeat, and report by a request of their own."""

import time
from pathlib import Path
from typing import Any

from harness.process import eventually, free_port
from harness.registry import Registry, registry

_OTHERS = 4


def _grant(found: Registry, service: str, endpoint: str, **fields: Any) -> dict[str, Any]:
    answer = found.register(service, endpoint, **fields)
    assert answer.status_code == 200, answer.text
    grant: dict[str, Any] = answer.json()
    return grant


def _result(suspect: dict[str, Any], **fields: Any) -> dict[str, Any]:
    said = {"outcome": "refused", "attempts": 3, "ago": 0.1, "reached_ago": 60.0}
    return {"endpoint": suspect["endpoint"], "incarnation": suspect["incarnation"]} | said | fields


def test_a_prober_is_asked_and_its_report_counts_for_what_it_is(database: str, workplace: Path, service: str) -> None:
    """First the base line, then the suspects; a registrar alone lets nothing lapse, and speaks for itself alone."""
    port = free_port()
    names = [f"127.0.2.{number}:{port}" for number in range(1, _OTHERS + 4)]
    own, others, victims = names[0], names[1:3], names[3:]
    yes: dict[str, Any] = {"metadata": {"prober": "on"}}
    with registry(database, workplace, probes="on", sweep_interval="100ms", removal_delay="60s") as found:
        for name in others:
            _grant(found, service, name)
        for name in victims:
            _grant(found, service, name, ttl=1.5)
        # A heartbeat that asks for nothing is answered as ever.
        assert _grant(found, service, others[0]).keys() == {
            "service", "endpoint", "status", "version", "ttl", "interval", "drain_wait",
        }  # fmt: skip
        asked: list[dict[str, Any]] = []

        def ask(kind: str) -> bool:
            probes = _grant(found, service, own, **yes).get("probes", {})
            asked[:] = probes.get(kind, [])
            return bool(asked)

        eventually(lambda: ask("base_lines"), within=10, every=0.1)
        assert {target["endpoint"] for target in asked} <= {*others, *victims}
        eventually(lambda: ask("suspects"), within=10, every=0.1)
        suspect = asked[0]
        assert suspect["endpoint"] in victims
        assert set(suspect["controls"]) == set(others)

        def report(endpoint: str = own, instance: str | None = None, **fields: Any) -> Any:
            document = {"service": service, "endpoint": endpoint, "instance_id": instance or f"i-{endpoint}"}
            return found.client.post("/v1/probes", json=document | {"results": [_result(suspect)]} | fields)

        def counted(**fields: Any) -> int:
            answer = report(**fields)
            while answer.status_code == 429:
                time.sleep(0.2)
                answer = report(**fields)
            assert answer.status_code == 200, answer.text
            return int(answer.json()["counted"])

        assert report().json() == {"counted": 1}
        again = report()
        assert (again.status_code, again.json()["title"]) == (429, again.json()["title"])
        assert counted(results=[_result(suspect, incarnation=2), _result(suspect, endpoint=others[0])]) == 0
        assert counted(results=[_result(suspect, endpoint="nowhere"), _result(suspect, endpoint=own)]) == 0
        assert counted(endpoint=others[0]) == 0
        assert report("127.0.2.99:80").status_code == 404
        assert report(instance="i-other").status_code == 409
        assert report(results=[_result(suspect, outcome="dead")]).status_code == 422
        assert report(results=[_result(suspect)] * 11).status_code == 422
        # It was refused all right, and it is one registrar's word.
        assert list(found.statuses(service).values()).count("HEALTHY") >= len(names) - 1
