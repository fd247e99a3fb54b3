"""The registry's own clock moves nothing periodic: it may be set by an hour, and TZ may have any form."""

import time
from pathlib import Path

import pytest
from harness.faketime import Clock, clock_of, faked
from harness.process import eventually
from harness.registry import Registry, registry

_OPTIONS = {"sweep_interval": "500ms", "removal_delay": "1s"}
_LEASE = 1.0


def _sweeps(found: Registry) -> float:
    lines = found.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("registry_sweeps_total"))


def _expires_in_time(found: Registry, service: str) -> None:
    found.register(service, "10.0.0.1:80", ttl=_LEASE)
    eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "TIMEOUT"}, within=_LEASE + 5)


def _keeps_a_snapshot(found: Registry, path: Path, service: str) -> None:
    found.register(service, "10.0.0.2:80", ttl=600)
    eventually(lambda: path.exists() and service.encode() in path.read_bytes(), within=60)


@pytest.mark.slow
def test_a_step_of_the_wall_clock_changes_nothing(database: str, workplace: Path, service: str, tmp_path: Path) -> None:
    """An hour back and an hour forth: endpoints expire in time, sweeps, snapshots and readiness go on."""
    clock = Clock(tmp_path / "clock")
    data = tmp_path / "data"
    started = time.monotonic()
    with registry(database, workplace, data_dir=data, env=faked(clock), **_OPTIONS) as found:
        for number in range(30):
            # So many that the guard lets one endpoint lapse after each step.
            found.register(f"{service}-crowd", f"10.1.0.{number + 1}:80", ttl=600)
        _expires_in_time(found, f"{service}-0")
        for number, seconds in enumerate((-3600, 3600), start=1):
            clock.jump(seconds)
            assert abs(clock_of(clock) - time.time() - seconds) < 60
            swept, began = _sweeps(found), time.monotonic()
            _expires_in_time(found, f"{service}-{number}")
            _keeps_a_snapshot(found, data / "snapshot.msgpack", f"{service}-kept-{number}")
            assert _sweeps(found) - swept >= (time.monotonic() - began) / 0.5 * 0.3
            state = found.client.get("/v1/state").json()
            assert 0 <= state["snapshot"]["archive_ago"] < 60
            # Neither hour is in it.
            assert 0 <= state["at"] - state["process"]["started_at"] < time.monotonic() - started + 60
            parts = {part["name"]: part for part in found.client.get("/readyz?verbose").json()["parts"]}
            assert parts["sweeper"]["ok"], parts


@pytest.mark.parametrize("zone", ["JST-9", "<+0545>-5:45", ":Nowhere/City", ""])
def test_any_form_of_tz_starts_and_sweeps(database: str, workplace: Path, service: str, zone: str) -> None:
    """POSIX allows forms that name no file of the time zone database."""
    with registry(database, workplace, env={"TZ": zone}, **_OPTIONS) as found:
        _expires_in_time(found, service)
