"""Digests of traffic as registrars send them, without an Envoy."""

import contextlib
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx

from harness.registry import Registry

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """The traffic of one caller to one callee in ten seconds.

    ``bucket`` 33 is from 100 to 115 ms. ``reasons`` are timeouts, failed connections, none healthy, overflows, retries.
    """

    caller: str
    callee: str
    completed: int = 100
    failures: int = 0
    bucket: int = 33
    reasons: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    zone: str = "a"
    healthy: int = 3
    total: int = 3


def report(registry: Registry, calls: Sequence[Call], **headers: str) -> None:
    """Send one digest for each caller and zone that calls name."""
    callers = {(call.caller, call.zone): [each for each in calls if _envoy(each) == _envoy(call)] for call in calls}
    for (caller, zone), own in callers.items():
        answer = registry.client.post("/v1/traffic", json=digest(caller, zone, own), headers=headers)
        assert answer.is_success, answer.text


def _envoy(call: Call) -> tuple[str, str]:
    return call.caller, call.zone


def digest(caller: str, zone: str, calls: Sequence[Call]) -> dict[str, Any]:
    """Return the digest of the Envoy of a caller in a zone."""
    return {
        "caller": caller,
        "node": f"{caller}-{zone}",
        "region": "eu",
        "zone": zone,
        "seconds": 10.0,
        "sequence": next(_numbers),
        "edges": [
            [
                call.callee,
                [call.completed, 0, call.failures, *call.reasons, 0, call.healthy, call.total],
                [call.bucket, call.completed] if call.completed else [],
            ]
            for call in calls
        ],
    }


class Reporters(threading.Thread):
    """Sends the same digests again and again, so that the last minute always has them.

    Args:
        registry: where they are sent to.
        calls: what they say.
    """

    def __init__(self, registry: Registry, calls: Sequence[Call]) -> None:
        super().__init__(daemon=True)
        self._registry = registry
        self._calls = calls
        self._over = threading.Event()

    def run(self) -> None:
        """Report until told to end."""
        while not self._over.wait(5):
            # On a busy machine one may be late; the next comes soon.
            with contextlib.suppress(httpx.TransportError):
                report(self._registry, self._calls)

    def __enter__(self) -> Self:
        report(self._registry, self._calls)
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self.join(10)
