"""A sender of digests of one Envoy's attempts at endpoints, in the registrar's place."""

import contextlib
import threading
import time
from collections.abc import Iterator

import httpx

from harness.envoy import Envoy
from harness.registry import Registry


class _Sender(threading.Thread):
    def __init__(self, found: Envoy, process: Registry, caller: str, callee: str) -> None:
        super().__init__(daemon=True)
        self._envoy, self._process, self._caller, self._callee = found, process, caller, callee
        self._over = threading.Event()

    def run(self) -> None:
        """Send a digest each second."""
        before = self._envoy.attempts(self._callee)
        sent_at, sequence = time.monotonic(), 0
        with httpx.Client(base_url=self._process.url, trust_env=False, timeout=10) as client:
            while not self._over.wait(1):
                counted = self._envoy.attempts(self._callee)
                now, sequence = time.monotonic(), sequence + 1
                new = {
                    name: [each - last for each, last in zip(counts, before.get(name, (0, 0)), strict=True)]
                    for name, counts in counted.items()
                }
                totals = [sum(counts[place] for counts in new.values()) for place in (0, 1)]
                edge = [self._callee, [totals[0], 0, totals[1]], [], [[name, new[name]] for name in new]]
                digest = {"caller": self._caller, "node": "i-1", "seconds": now - sent_at, "sequence": sequence}
                client.post("/v1/traffic", json={**digest, "edges": [edge]}).raise_for_status()
                before, sent_at = counted, now

    def stop(self) -> None:
        """Send no more."""
        self._over.set()
        self.join(10)


@contextlib.contextmanager
def digests_of(found: Envoy, process: Registry, caller: str, callee: str) -> Iterator[None]:
    """Send the attempts of an Envoy at a service for the length of the block."""
    sender = _Sender(found, process, caller, callee)
    sender.start()
    try:
        yield
    finally:
        sender.stop()
