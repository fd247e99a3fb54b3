"""How often errands are asked for while the registry does not answer, and what they leave of the event loop."""

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from registrar.envoy_admin.client import EnvoyAdminClient
from registrar.errands import config, tap
from registrar.errands.admin import ErrandAdmin
from registrar.errands.errands import Errands
from registrar.errands.refused import RefusedError
from registrar.errors import RegistryUnavailable
from wire.errand import Config, Tap

OUTAGE = 1_100
"""Requests in a row that fail: half a day of an outage and more."""


class AwayRegistry:
    """A registry that does not answer, and stops the test after an outage."""

    def __init__(self) -> None:
        self.requests = 0

    async def next_errand(self, instance_id: str, endpoints: list[str]) -> Any:
        """Fail, at last by what ends the test."""
        self.requests += 1
        if self.requests > OUTAGE:
            raise asyncio.CancelledError
        # A Retry-After of a proxy between, once: it must not silence errands for a year.
        raise RegistryUnavailable("connection refused", retry_after=3e7 if self.requests == 5 else None)

    async def answer_errand(self, instance_id: str, endpoint: str, errand_id: str, result: bytes) -> None:
        """Never called."""


async def test_an_outage_of_any_length_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 1,025th failure in a row is as any other: errands are asked for twice a minute at least."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", pause)
    registered = SimpleNamespace(
        lease=SimpleNamespace(grant=object()),
        identity=SimpleNamespace(instance_id="i-1"),
        service=SimpleNamespace(service="shop"),
        name="10.0.0.1:80",
    )
    client = cast("EnvoyAdminClient", SimpleNamespace(address="127.0.0.1:9901"))
    away = AwayRegistry()
    errands = Errands(away, client, "read", tmp_path, lambda: [cast("Any", registered)])
    with pytest.raises(asyncio.CancelledError):
        await errands._take()
    assert away.requests == OUTAGE + 1
    assert max(pauses) <= 90
    assert 10 < sum(pauses[-500:]) / 500 < 20


async def test_a_large_configuration_keeps_nothing_else_waiting() -> None:
    """Heartbeats go on while megabytes are looked at, and Envoy's probes of the edge are answered."""
    hosts = [{"name": f"v{n}", "domains": [f"s{n}"], "routes": [{"match": {"prefix": f"/{n}"}}]} for n in range(4_000)]
    large = msgspec.Raw(msgspec.json.encode({"route_config": {"name": "all", "virtual_hosts": hosts}}))

    class LargeAdmin:
        async def config(self, _section: str, _name: str = "") -> list[msgspec.Raw]:
            return [large]

    admin = cast("ErrandAdmin", LargeAdmin())
    for errand in (config.look(admin, Config("routes")), tap.choose_filter(admin, Tap(), "")):
        looking = asyncio.ensure_future(errand)
        turns = 0
        while not looking.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns >= 5
        with contextlib.suppress(RefusedError):
            await looking
