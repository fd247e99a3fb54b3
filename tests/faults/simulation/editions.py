"""What each version of each service stands for, and what subscribers were given under it."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
from faults.simulation.violation import Violation

from registry.core.endpoint import Endpoint

Content = tuple[Any, ...]

_VERSION = re.compile(rb'"version_info":"world:(\d+)"')


class Editions:
    """I4: equal versions are equal content, in every process and for ever, also those that a fail-over lost.

    ``lost`` counts the services whose last numbers a fail-over lost.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._contents: defaultdict[tuple[str, int], list[Content]] = defaultdict(list)
        self._answers: dict[tuple[str, int], bytes] = {}
        self._newest: dict[str, tuple[int, int]] = {}

    def published(self, service: str, version: int, change: int, rows: Iterable[Endpoint]) -> None:
        """Take note of what was committed as a version, and of the change that did it."""
        newest = self._newest.get(service, (0, 0))
        self._newest[service] = max(newest[0], version), max(newest[1], change)
        content = tuple(sorted(((row.address, row.port), row.status.value, row.weight, row.visible) for row in rows))
        known = self._contents[service, version]
        if content in known:
            return
        if known:
            raise Violation(f"I4: version {version} of {service} has two contents: {known[-1]} and {content}")
        known.append(content)

    def lose(self, service: str, version: int, change: int) -> None:
        """Take note of the numbers that a service has after a fail-over: those up to the newest were lost."""
        newest = self._newest[service]
        self.lost += version < newest[0] or change < newest[1]

    def services(self) -> list[str]:
        """Return the services that ever had a version."""
        return sorted(self._newest)

    def answered(self, service: str, body: bytes) -> int | None:
        """Compare an answer with what was committed; return its version, None if it says nothing of the service."""
        found = _VERSION.search(body)
        version = 0 if found is None else int(found[1])
        if not version:
            return None
        name = service, version
        if self._answers.get(name) == body:
            return version
        if name in self._answers:
            raise Violation(f"I4: version {version} of {service} was answered in two ways: {body!r}")
        self._answers[name] = body
        told = _read(body)
        if not any(told == [entry[:3] for entry in content] for content in self._contents[name]):
            raise Violation(f"I4: version {version} of {service} is {self._contents[name]} and was answered as {told}")
        return version


def _read(body: bytes) -> list[tuple[tuple[str, int], str, int | None]]:
    found = []
    for locality in msgspec.json.decode(body)["resources"][0]["endpoints"]:
        for one in locality["lb_endpoints"]:
            address = one["endpoint"]["address"]["socket_address"]
            place = address["address"], address["port_value"]
            found.append((place, one["health_status"], one.get("load_balancing_weight")))
    return sorted(found)
