"""The guard, pauses and explanations, through a real registry."""

import time
from pathlib import Path
from typing import Any

from harness.process import eventually
from harness.registry import Registry, registry


def _explained(found: Registry, service: str, endpoint: str) -> dict[str, Any]:
    answer = found.client.get(f"/v1/services/{service}/endpoints/{endpoint}/explain")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def _kinds(found: Registry, service: str) -> list[str]:
    events = found.client.get(f"/v1/events?service={service}").json()["events"]
    return [event["kind"] for event in reversed(events)]


def _look_at_silence(found: Registry, service: str, endpoint: str) -> None:
    """Check that people see the endpoint as SILENT in every document, and that Envoys still receive HEALTHY."""
    listed = found.client.get(f"/v1/services/{service}").json()
    assert listed["statuses"] == {"TIMEOUT": 1, "SILENT": 9}
    assert (listed["routable"], listed["silent"]) == (9, 9)
    page = f"/v1/services/{service}/endpoints"
    # Leases of a second are over before the next complete reading, from which their times are known.
    eventually(lambda: found.client.get(f"{page}/{endpoint}").json()["silence"]["last_heard"] is not None, within=5)
    shown = found.client.get(f"{page}/{endpoint}").json()
    silence = shown["silence"]
    assert (shown["status"], silence["last_reported"]) == ("HEALTHY", "HEALTHY")
    assert 0.9 < silence["since"] - silence["last_heard"] < 5
    assert 899 < silence["held_until"] - silence["last_heard"] < 903
    assert len(found.client.get(page, params={"status": "SILENT"}).json()["endpoints"]) == 9
    assert found.client.get(page, params={"status": "HEALTHY"}).json()["endpoints"] == []
    override = found.client.put(f"{page}/{endpoint}/override", json={"weight": 5})
    assert override.json()["silence"]["reason"] == silence["reason"]
    assert found.client.delete(f"{page}/{endpoint}/override").status_code == 204


def test_suspects_are_served_and_shown(database: str, workplace: Path, service: str) -> None:
    """Of ten that fall silent one lapses; the others stay HEALTHY, flagged with the reason and the end."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        for number in range(10):
            found.register(service, f"10.0.0.{number + 1}:80", ttl=1)
        eventually(lambda: len(found.client.get("/v1/expiry").json()["suspects"]) == 9, within=8)
        assert sorted(found.statuses(service).values()) == ["HEALTHY"] * 9 + ["TIMEOUT"]
        suspect = found.client.get("/v1/expiry").json()["suspects"][0]
        assert "lapsed within 60 s" in suspect["reason"]
        assert 890 < suspect["until"] - suspect["since"] < 910
        _look_at_silence(found, service, suspect["endpoint"])
        told = _explained(found, service, suspect["endpoint"])
        assert told["served"] is True
        assert any("SILENT, " in reason for reason in told["because"])
        assert _kinds(found, service).count("suspected") == 9
        found.register(service, suspect["endpoint"], ttl=1)
        after = found.client.get(f"/v1/services/{service}/endpoints/{suspect['endpoint']}").json()
        assert after["suspect_since"] is None
        assert _kinds(found, service)[-1] == "returned"


def test_a_pause_keeps_everything_served(database: str, workplace: Path, service: str) -> None:
    """While expiry is paused nothing lapses; who paused it, why and until when is told; resumed, it goes on."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        pause = {"service": service, "reason": "network work", "expires_in": 600}
        assert found.client.put("/v1/expiry/pause", json=pause, headers={"x-actor": "ann"}).status_code == 200
        found.register(service, "10.0.0.1:80", ttl=1)
        time.sleep(2.5)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        page = f"/v1/services/{service}/endpoints/10.0.0.1:80"
        # The pause is in memory after the next complete reading.
        eventually(lambda: found.client.get(page).json()["silence"] is not None, within=5)
        (told,) = found.client.get("/v1/expiry").json()["pauses"]
        assert (told["service"], told["reason"]) == (service, "network work")
        assert told["actor"].startswith("ann from ")
        because = _explained(found, service, "10.0.0.1:80")["because"]
        assert any("expiry is paused by ann" in reason for reason in because)
        assert found.client.delete("/v1/expiry/pause", params={"service": service}).status_code == 204
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=5)
        assert found.client.delete("/v1/expiry/pause", params={"service": service}).status_code == 404
        assert "paused" in _kinds(found, service)
        assert "resumed" in _kinds(found, service)


def test_a_pause_everywhere_ends_by_itself(database: str, workplace: Path, service: str) -> None:
    """A pause of all services has an end, and a pause without one is refused."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as found:
        assert found.client.put("/v1/expiry/pause", json={"reason": "x"}).status_code == 422
        found.client.put("/v1/expiry/pause", json={"reason": "fail-over", "expires_in": 3})
        found.register(service, "10.0.0.1:80", ttl=1)
        time.sleep(2)
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=6)


def test_each_state_is_explained(database: str, workplace: Path, service: str) -> None:
    """The deciding reason comes first, and what would change it is said."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="1s") as found:
        found.register(service, "10.0.0.1:80", health="UNHEALTHY", detail="GET /healthz: 500")
        told = _explained(found, service, "10.0.0.1:80")
        assert (told["listed"], told["served"], told["status"]) == (True, False, "UNHEALTHY")
        assert told["because"][0] == "its registrar reports UNHEALTHY (GET /healthz: 500)"
        assert "its lease has" in told["because"][1]
        found.register(service, "10.0.0.2:80")
        found.client.put(
            f"/v1/services/{service}/endpoints/10.0.0.2:80/override",
            json={"drain": True, "reason": "slow disk", "expires_in": 600},
        )
        told = _explained(found, service, "10.0.0.2:80")
        assert told["because"][0] == "an operator drained it: slow disk"
        assert told["would_change"] == ["taking the override back (DELETE .../override)"]
        found.client.delete(f"/v1/services/{service}/endpoints/10.0.0.2:80")
        eventually(lambda: "10.0.0.2:80" not in found.statuses(service), within=5)
        told = _explained(found, service, "10.0.0.2:80")
        assert (told["listed"], told["served"], told["now"]) == (False, False, None)
        assert "removed" in told["because"][0]
        assert [event["kind"] for event in told["events"]] == ["registered", "overridden", "expelled", "removed"]
        missing = found.client.get(f"/v1/services/{service}/endpoints/10.0.0.99:80/explain")
        assert missing.status_code == 404


def test_the_past_can_be_asked_for(database: str, workplace: Path, service: str) -> None:
    """What was listed at a past time, and in which state, is told from the history."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="200ms") as found:

        def past(at: float) -> dict[str, str]:
            answer = found.client.get(f"/v1/services/{service}/history", params={"at": at}).json()
            return {one["endpoint"]: one["status"] for one in answer["endpoints"]}

        moments = [time.time()]
        found.register(service, "10.0.0.1:80")
        moments.append(time.time())
        found.register(service, "10.0.0.2:80")
        found.register(service, "10.0.0.1:80", health="UNHEALTHY")
        moments.append(time.time())
        found.client.delete(f"/v1/services/{service}/endpoints/10.0.0.1:80")
        eventually(lambda: "10.0.0.1:80" not in found.statuses(service), within=5)
        moments.append(time.time())
        assert [past(at) for at in moments] == [
            {},
            {"10.0.0.1:80": "HEALTHY"},
            {"10.0.0.1:80": "UNHEALTHY", "10.0.0.2:80": "HEALTHY"},
            {"10.0.0.2:80": "HEALTHY"},
        ]
