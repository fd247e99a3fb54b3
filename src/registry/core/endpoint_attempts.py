"""Attempts at the endpoints of services under a shift, kept for an hour in slots that grow with age."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

from msgspec import Struct

from registry.core.shared_table import SharedTable
from registry.core.traffic import Attempts, EndpointCounts, Reporting
from wire.traffic_digest import MAX_COUNT, Edge

FINE_SLOT = 2.0
"""Seconds of the newest slots: the interval of digests while a shift runs."""
COARSE_SLOT = 30.0
"""Seconds of slots older than ``_FINE_AGE``."""
_FINE_AGE = 60.0
_KEPT = 3_600.0
"""Seconds for which attempts are kept; a step that takes longer is judged by these."""
_CALLER_OVERDUE = 30.0
"""Seconds after which a caller without traffic to the service counts no more."""
_CALLERS_OF_STEP = 20
"""Callers that are gone through in one step."""
MAX_WATCHED_ENDPOINTS = 2_000
"""Endpoints of one service that are counted; attempts at further ones are left out."""
MAX_CALLERS = 10_000
"""Envoys that are remembered as callers of one service; beyond them those of the callers with the most give way."""

Envoy = tuple[str, str]
"""Caller and node."""


class SlotImage(Struct, array_like=True, frozen=True, gc=False):
    """The attempts of one slot; its age is that of its beginning."""

    age: float
    attempts: int
    errors: int


class EndpointImage(Struct, array_like=True, frozen=True, gc=False):
    """An endpoint, with its slots."""

    endpoint: str
    slots: list[SlotImage]


class ServiceImage(Struct, array_like=True, frozen=True, gc=False):
    """A service under a shift as other processes get it.

    Attributes:
        service: its name.
        endpoints: its endpoints.
        callers: Envoys with traffic to it: caller, node, seconds since the last one, and since it counted endpoints.
    """

    service: str
    endpoints: list[EndpointImage]
    callers: list[tuple[str, str, float, float]]


class _Service:
    __slots__ = ("callers", "endpoints", "touched")

    def __init__(self) -> None:
        self.endpoints: dict[str, list[list[float]]] = {}
        """By endpoint: its slots, oldest first, each with its beginning, attempts and errors."""
        self.callers: SharedTable[Envoy, list[float]] = SharedTable(MAX_CALLERS, lambda seen: seen[0])
        """By Envoy: when it last had traffic to the service, and when it last counted its endpoints."""
        self.touched = 0.0
        """When the last digest with traffic to the service came."""


class EndpointTable:
    """The attempts at endpoints that the digests of one process count."""

    def __init__(self) -> None:
        self._services: dict[str, _Service] = {}

    def take(
        self, edge: Edge, envoy: Envoy, now: float, is_registered: Callable[[str], bool], principal: str = ""
    ) -> None:
        """Add the endpoints of an edge.

        Args:
            edge: its callee is under a shift.
            envoy: whose edge it is.
            now: this process's monotonic clock.
            is_registered: whether the callee has this endpoint. One that it does not have is not counted, so that
                invented ones take no place; one that was counted before is, after it has left too.
            principal: who sent it, by which the callers are shared.
        """
        service = self._services.setdefault(edge.callee, _Service())
        service.touched = now
        seen = service.callers.get(envoy)
        if seen is None:
            seen = [now, float("-inf")]
            service.callers.add(envoy, seen, (principal, envoy[0]))
        seen[0] = now
        if not edge.endpoints:
            return
        seen[1] = now
        beginning = now - now % FINE_SLOT
        for each in edge.endpoints:
            slots = service.endpoints.get(each.endpoint)
            if slots is None:
                if len(service.endpoints) >= MAX_WATCHED_ENDPOINTS or not is_registered(each.endpoint):
                    continue
                slots = service.endpoints[each.endpoint] = []
            if not slots or slots[-1][0] != beginning:
                slots.append([beginning, 0, 0])
            slots[-1][1] = min(slots[-1][1] + each.counts.attempts, MAX_COUNT)
            slots[-1][2] = min(slots[-1][2] + each.counts.errors, MAX_COUNT)

    def in_use(self, now: float) -> bool:
        """Return whether there is traffic to a service under a shift."""
        return any(service.touched > now - _CALLER_OVERDUE for service in self._services.values())

    def forget_in_steps(self, now: float) -> Iterator[None]:
        """Join old slots, and forget what is older than an hour, a step for each endpoint and caller."""
        for name, service in list(self._services.items()):
            if service.touched < now - _KEPT:
                del self._services[name]
                continue
            yield from service.callers.forget_in_steps(lambda seen: seen[0] < now - _KEPT)
            for endpoint, slots in list(service.endpoints.items()):
                slots[:] = _join(slots, now)
                if not slots:
                    del service.endpoints[endpoint]
                yield

    def images_in_steps(self, now: float) -> Generator[None, None, list[ServiceImage]]:
        """Return all services with ages instead of times, a step for each endpoint and for some callers.

        Digests may come in between. An hour of 2,000 endpoints at once would take 0.4 s.
        """
        images = []
        for name, service in list(self._services.items()):
            images.append((yield from _image_in_steps(name, service, now, _KEPT)))
        return images

    def image_of_in_steps(self, service: str, now: float, within: float) -> Generator[None, None, list[ServiceImage]]:
        """Return one service with the slots of the last seconds, in the same steps; nothing if it has none."""
        known = self._services.get(service)
        return [] if known is None else [(yield from _image_in_steps(service, known, now, within))]


def _image_in_steps(name: str, service: _Service, now: float, within: float) -> Generator[None, None, ServiceImage]:
    oldest = now - within - COARSE_SLOT
    endpoints = []
    for endpoint, slots in list(service.endpoints.items()):
        kept = [SlotImage(round(now - slot[0], 2), int(slot[1]), int(slot[2])) for slot in slots if slot[0] >= oldest]
        endpoints.append(EndpointImage(endpoint, kept))
        yield
    callers = []
    for number, (envoy, seen) in enumerate(service.callers.items()):
        callers.append((*envoy, round(now - seen[0], 2), round(min(now - seen[1], 2 * _KEPT), 2)))
        if number % _CALLERS_OF_STEP == 0:
            yield
    return ServiceImage(name, endpoints, callers)


def endpoint_counts_in_steps(
    images: Iterable[tuple[float, Iterable[ServiceImage]]], service: str, within: float
) -> Generator[None, None, EndpointCounts]:
    """Return the attempts at a service's endpoints of the last seconds, by all processes, in the same steps.

    Args:
        images: of each process, with the seconds since they were made.
        service: the service's name.
        within: seconds; slots that began earlier are left out.
    """
    totals: dict[str, list[int]] = {}
    seen: dict[Envoy, tuple[float, float]] = {}
    for age, services in images:
        for image in services:
            if image.service != service:
                continue
            for each in image.endpoints:
                _add_slots(totals, each, within - age)
                yield
            for number, (caller, node, traffic, counted) in enumerate(image.callers):
                before = seen.get((caller, node), (float("inf"), float("inf")))
                seen[caller, node] = (min(before[0], traffic + age), min(before[1], counted + age))
                if number % _CALLERS_OF_STEP == 0:
                    yield
    current = [counted for traffic, counted in seen.values() if traffic <= _CALLER_OVERDUE]
    reporting = Reporting(sum(counted <= _CALLER_OVERDUE for counted in current), len(current))
    return EndpointCounts(_attempts(totals), reporting)


def _add_slots(totals: dict[str, list[int]], image: EndpointImage, within: float) -> None:
    total = totals.setdefault(image.endpoint, [0, 0])
    for slot in image.slots:
        if slot.age <= within:
            total[0] += slot.attempts
            total[1] += slot.errors


def _attempts(totals: Mapping[str, list[int]]) -> dict[str, Attempts]:
    return {endpoint: Attempts(attempts, errors) for endpoint, (attempts, errors) in totals.items()}


def _join(slots: Iterable[list[float]], now: float) -> list[list[float]]:
    """Return slots with old ones joined, and those of more than an hour ago left out."""
    joined: list[list[float]] = []
    for beginning, attempts, errors in slots:
        if beginning < now - _KEPT:
            continue
        start = beginning - beginning % COARSE_SLOT if beginning < now - _FINE_AGE else beginning
        if joined and joined[-1][0] == start:
            joined[-1][1] = min(joined[-1][1] + attempts, MAX_COUNT)
            joined[-1][2] = min(joined[-1][2] + errors, MAX_COUNT)
        else:
            joined.append([start, attempts, errors])
    return joined
