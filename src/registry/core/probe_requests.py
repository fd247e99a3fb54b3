"""The probes that registrars are asked to make: of whom, for which endpoints of their service, and when.

Each endpoint has up to ``PROBERS`` registrars of its service that probe it. They are found on a ring of digests, as in
consistent hashing (Karger et al., 1997): all processes come to the same ones without asking each other, and an endpoint
that comes or goes changes those of its neighbours alone. So a prober has a base line with few endpoints, and every
endpoint has some probers with a base line, of which a fault that takes 40 % of the hosts leaves one in all likelihood.

A request waits for the next heartbeat of its prober, whose grant takes it along. Registrars say by ``prober`` in their
metadata that they may be asked. Times are monotonic seconds.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter

from msgspec import Struct

from registry.core.endpoint import Endpoint, Key
from registry.core.probing import CONTROLS, is_healthy, opts_out
from registry.core.silence import is_silent
from wire.probe_request import MAX_BASE_LINES, MAX_SUSPECTS, ProbeRequest, ProbeSuspect, ProbeTarget
from wire.reserved_metadata import PROBER

PROBERS = 5
"""Registrars that probe one endpoint."""
REPEAT_INTERVAL = 240.0
"""Seconds between two requests for the base lines of one prober."""
MIN_INTERVAL = 30.0
"""Seconds between two such requests at least, when the prober's endpoints have changed meanwhile."""

_MAX_STEPS = 4 * PROBERS
"""Places on the ring that are looked at for one endpoint: several may be on one host."""

ChooseControls = Callable[[Endpoint, str], Sequence[str]]
"""Returns the controls for a suspect, as ``ip:port``, that a prober on the host of this address may use."""

Subjects = frozenset[tuple[int, int]]
"""The ids of endpoints, each with its incarnation."""


class _BaseLineRequest(Struct, frozen=True):
    """When a prober was last asked for its base lines, and for which endpoints and incarnations."""

    at: float
    subjects: Subjects


class ProbeRequests:
    """The requests that wait for the heartbeats of their probers."""

    def __init__(self) -> None:
        self.pending: dict[Key, ProbeRequest] = {}
        """By prober: the request that its next grant takes along. Empty while no registrar has to be asked."""
        # By service: its probers, each with the last request for base lines that a grant took along; None: none yet.
        # A prober is forgotten when it is not listed any more.
        self._probers: dict[str, dict[Key, _BaseLineRequest | None]] = {}
        # The base lines of a pending request; noted as asked when the grant takes it along.
        self._offered: dict[Key, Subjects] = {}
        # By service: the probers whose pending request is about suspects.
        self._asked_for_suspects: dict[str, list[Key]] = {}

    def take(self, prober: Key, now: float) -> ProbeRequest | None:
        """Return the request for a prober, whose grant takes it along now."""
        request = self.pending.pop(prober, None)
        subjects = self._offered.pop(prober, None)
        if subjects is not None and prober[0] in self._probers:
            self._probers[prober[0]][prober] = _BaseLineRequest(now, subjects)
        return request

    def plan_base_lines(self, service: str, endpoints: Collection[Endpoint], now: float) -> None:
        """Plan the base lines of one service's probers."""
        probers = [endpoint for endpoint in endpoints if is_prober(endpoint)]
        asked = self._keep_probers(service, probers)
        if not probers:
            return
        targets = [each for each in endpoints if is_healthy(each) and not opts_out(each)]
        for key, assigned in assign(targets, probers).items():
            chosen = assigned[:MAX_BASE_LINES]
            subjects = frozenset((target.id, target.registration.incarnation) for target in chosen)
            if key not in self.pending and _is_due(asked[key], subjects, now):
                self.pending[key] = ProbeRequest(base_lines=[_target(target) for target in chosen])
                self._offered[key] = subjects

    def plan_suspects(self, service: str, endpoints: Collection[Endpoint], choose: ChooseControls) -> None:
        """Plan the probes of one service's suspects; they come before base lines, which can wait."""
        self.clear_suspects(service)
        probers = {endpoint.key: endpoint for endpoint in endpoints if is_prober(endpoint)}
        suspects = [endpoint for endpoint in endpoints if is_silent(endpoint) and not opts_out(endpoint)]
        for key, assigned in assign(suspects, probers.values()).items():
            # A prober that is a suspect itself keeps its place on the ring, so that the others keep theirs.
            if not probers[key].alive:
                continue
            own = probers[key].address
            requested = [_suspect(suspect, choose(suspect, own)) for suspect in assigned[:MAX_SUSPECTS]]
            # Without controls a prober has no say.
            requested = [suspect for suspect in requested if len(suspect.controls) == CONTROLS]
            if requested:
                self.pending[key] = ProbeRequest(suspects=requested)
                self._offered.pop(key, None)
                self._asked_for_suspects.setdefault(service, []).append(key)

    def clear_suspects(self, service: str) -> None:
        """Drop the requests about suspects of a service that no grant has taken along."""
        for key in self._asked_for_suspects.pop(service, ()):
            if key in self.pending and self.pending[key].suspects:
                del self.pending[key]

    @property
    def services_with_suspects(self) -> list[str]:
        """The services about whose suspects registrars were asked."""
        return list(self._asked_for_suspects)

    def keep_services(self, services: Collection[str]) -> None:
        """Forget the services that are gone."""
        for gone in self._probers.keys() - set(services):
            self._keep_probers(gone, ())
            self.clear_suspects(gone)

    def _keep_probers(self, service: str, probers: Iterable[Endpoint]) -> Mapping[Key, "_BaseLineRequest | None"]:
        """Forget the probers of a service that are not listed any more, and return the others."""
        before = self._probers.pop(service, {})
        kept = {prober.key: before.get(prober.key) for prober in probers}
        for gone in before.keys() - kept.keys():
            self.pending.pop(gone, None)
            self._offered.pop(gone, None)
        if kept:
            self._probers[service] = kept
        return kept


def _is_due(last: _BaseLineRequest | None, subjects: Subjects, now: float) -> bool:
    return last is None or now - last.at >= (REPEAT_INTERVAL if subjects <= last.subjects else MIN_INTERVAL)


def is_prober(endpoint: Endpoint) -> bool:
    """Return whether the registrar of an endpoint said that it may be asked."""
    return endpoint.registration.metadata.get(PROBER) == "on"


def assign(targets: Iterable[Endpoint], probers: Iterable[Endpoint]) -> Mapping[Key, list[Endpoint]]:
    """Return for each prober the endpoints that it probes: none on its own host, and up to ``PROBERS`` for each."""
    ring = _in_order(probers)
    digests = [digest for digest, _ in ring]
    assigned: dict[Key, list[Endpoint]] = {}
    for digest, target in _in_order(targets):
        start = bisect_right(digests, digest)
        hosts = {target.address}
        for step in range(min(len(ring), _MAX_STEPS)):
            _, prober = ring[(start + step) % len(ring)]
            if prober.address not in hosts:
                hosts.add(prober.address)
                assigned.setdefault(prober.key, []).append(target)
            if len(hosts) > PROBERS:
                break
    return assigned


def _in_order(endpoints: Iterable[Endpoint]) -> list[tuple[bytes, Endpoint]]:
    return sorted(((_digest(endpoint), endpoint) for endpoint in endpoints), key=itemgetter(0))


def _digest(endpoint: Endpoint) -> bytes:
    # The same in every process, unlike Python's own hashes.
    return blake2b(f"{endpoint.service} {endpoint.name}".encode(), digest_size=16).digest()


def _suspect(suspect: Endpoint, controls: Iterable[str]) -> ProbeSuspect:
    return ProbeSuspect(suspect.name, suspect.registration.incarnation, tuple(controls))


def _target(endpoint: Endpoint) -> ProbeTarget:
    return ProbeTarget(endpoint.name, endpoint.registration.incarnation)
