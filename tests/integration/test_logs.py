"""What `registry serve` writes into its log, for machines and for the one who is woken."""

import json
import re
from pathlib import Path
from typing import Any

from harness.process import eventually
from harness.registry import Registry, registry

STARTED = {"sweep_lead_gained", "change_feed_following", "access_feed_following"}
"""What a registry says of its own start, in any order; what it says afterwards is said of what it is asked."""


def lines(found: Registry) -> list[dict[str, Any]]:
    """Return the events of the log; each line is one."""
    return [json.loads(line) for line in found.log.read_text().splitlines()]


def test_each_line_is_an_event_and_only_transitions_have_one(database: str, workplace: Path, service: str) -> None:
    """A change has a line with the id of its request; polls, renewals and reads have none."""
    with registry(database, workplace, removal_delay="0s", sweep_interval="0.2s") as found:
        headers = {"x-request-id": "deploy-7", "x-actor": "ann"}
        path = f"/v1/services/{service}/endpoints/10.0.0.1:80"
        body = {"instance_id": "i-1", "incarnation": 1}
        answer = found.client.put(path, json=body, headers=headers)
        assert answer.headers["x-request-id"] == "deploy-7"
        eventually(lambda: {one["event"] for one in lines(found)} >= STARTED, within=30)
        quiet = len(lines(found))
        held = None
        for _ in range(30):
            held = found.poll(service, version=held).json()["version_info"] if held is None else held
            found.poll(service, version=held)
            found.client.put(path, json=body, headers=headers)
            found.client.get("/v1/services")
            found.client.get(f"/v1/registration/{service}")
        assert len(lines(found)) == quiet
        drained = found.client.post(f"{path}/drain")
        (told,) = [one for one in lines(found) if one["event"] == "drained"]
        assert told["request_id"] == drained.headers["x-request-id"]
        (told,) = [one for one in lines(found) if one["event"] == "registered"]
        assert told.pop("timestamp").endswith("Z")
        assert told == {
            "event": "registered",
            "level": "info",
            "service": service,
            "endpoint": "10.0.0.1:80",
            "instance_id": "i-1",
            "status": "HEALTHY",
            "reason": "first registration as HEALTHY",
            "actor": "ann from 127.0.0.1",
            "version": 1,
            "request_id": "deploy-7",
        }
    assert all({"event", "level", "timestamp"} <= one.keys() for one in lines(found))


def test_a_problem_names_its_request(shared_registry: Registry) -> None:
    """The id of the answer's header stands in the problem document too, whoever refused: a route or the middleware."""
    for method, path, body in (
        ("GET", "/v1/services/no-such", None),
        ("GET", "/v1/services?limit=0", None),
        ("GET", "/v3/nothing", None),
        ("POST", "/v3/discovery:endpoints", b"{"),
        ("POST", "/v1/heartbeats", b"x" * 200_000),
    ):
        answer = shared_registry.client.request(method, path, content=body)
        assert answer.headers["content-type"] == "application/problem+json", path
        assert answer.json()["request_id"] == answer.headers["x-request-id"], path
        assert len(answer.headers.get_list("x-request-id")) == 1


def test_an_id_that_could_hurt_a_log_is_not_taken(shared_registry: Registry) -> None:
    """An id of another form, or a long one, is replaced; one of ours is unique."""
    for told in ("a b", '"}', "x" * 200, ""):
        answer = shared_registry.client.get("/version", headers={"x-request-id": told})
        assert answer.headers["x-request-id"] != told
        assert re.fullmatch(r"[0-9a-f]{10}-\d+", answer.headers["x-request-id"])
    answers = {shared_registry.client.get("/version").headers["x-request-id"] for _ in range(20)}
    assert len(answers) == 20
