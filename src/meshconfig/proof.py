"""Proof of compiled resources: a real Envoy validates them before anything is served.

Envoy names one error and stops. Where its message does not say which resource is meant, halves are validated until one
is left; that resource is left out, and the rest is validated again, so that one proof tells all faults.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct

from meshconfig.bootstrap import bootstrap
from meshconfig.effective import Configuration
from meshconfig.position import Fault, Position
from meshconfig.proto_json import Document
from meshconfig.refusal import RoutePlace, fault_of, named_element, named_place, reason_of, service_of
from meshconfig.resource import Snapshot
from meshconfig.static_bootstrap import Element, StaticBootstrap, static_bootstraps, virtual_hosts, with_virtual_hosts

MAX_FAULTS = 20
"""Faults that one proof tells; each costs further runs of Envoy."""

_T = TypeVar("_T")


class Proof(Struct, frozen=True):
    """A proof that each of some Envoys accepts all compiled bytes.

    Attributes:
        sha256: the digest of the snapshot; a proof counts only for the same bytes.
        envoy: the versions of the Envoys that accepted all of it, such as ``1.40.0``.
    """

    sha256: str
    envoy: tuple[str, ...]

    def covers(self, snapshot: Snapshot) -> bool:
        """Tell whether it is a proof of a snapshot."""
        return bool(self.envoy) and self.sha256 == digest(snapshot)


def digest(snapshot: Snapshot) -> str:
    """Return the digest of all compiled bytes, by which a proof elsewhere is recognised as that of the same."""
    total = sha256()
    for node, kinds in sorted(snapshot.nodes.items()):
        for kind, resources in sorted(kinds.items()):
            for name, resource in sorted(resources.items()):
                total.update(msgspec.json.encode((node, kind, name, resource.sha256)))
    return total.hexdigest()


class Validation(Protocol):
    """The result of one run of Envoy, as ``wire.envoy_validation`` has it."""

    @property
    def verdict(self) -> Literal["accepted", "refused", "failed"]:
        """The result; ``failed`` says nothing of the configuration."""

    @property
    def output(self) -> str:
        """The output of Envoy, or why there is no verdict."""


class RefusedPart(Struct, frozen=True):
    """A part of a bootstrap that Envoy refuses.

    Attributes:
        fault: what Envoy says of it, as a fault of the definition.
        service: the service whose requests it is for; empty where it is for several, or for none.
        nodes: the node.clusters that get it; none where it is in every bootstrap.
    """

    fault: Fault
    service: str = ""
    nodes: tuple[str, ...] = ()


class UnprovenError(Exception):
    """No Envoy came to a verdict, so that nothing may be published; the message says why."""


def faults_of_mesh(
    configuration: Configuration,
    snapshot: Snapshot,
    validate: Callable[[bytes], Validation],
    directory: str,
) -> list[Fault]:
    """Validate all that a configuration compiles to, bootstraps too; return every fault, at most ``MAX_FAULTS``.

    Args:
        configuration: the definitions; faults name their lines.
        snapshot: what they compile to.
        validate: lets an Envoy validate a bootstrap.
        directory: the directory, for that Envoy, that has ``stand_in_files.FILES``.

    Raises:
        UnprovenError: a run came to no verdict.
    """
    names = (*configuration.callers, *configuration.gateways, *configuration.edges)
    bootstraps = {name: bootstrap(configuration, name) for name in names}
    return prove(static_bootstraps(snapshot, bootstraps, directory=directory), validate, configuration)


def prove(
    bootstraps: Iterable[StaticBootstrap],
    validate: Callable[[bytes], Validation],
    configuration: Configuration,
) -> list[Fault]:
    """Validate bootstraps and return every fault, at most ``MAX_FAULTS``; none when all of them are accepted.

    Raises:
        UnprovenError: a run came to no verdict.
    """
    # A part that all bootstraps have in common is refused in each of them.
    return list(dict.fromkeys(part.fault for part in refused_parts(bootstraps, validate, configuration)))


def refused_parts(
    bootstraps: Iterable[StaticBootstrap],
    validate: Callable[[bytes], Validation],
    configuration: Configuration,
) -> list[RefusedPart]:
    """Validate bootstraps and return everything that is refused, at most ``MAX_FAULTS`` parts.

    Raises:
        UnprovenError: a run came to no verdict.
    """
    proof = _Proof(validate)
    parts: list[RefusedPart] = []
    for static in bootstraps:
        parts += islice(proof.refused(static, configuration), MAX_FAULTS - len(parts))
        if len(parts) >= MAX_FAULTS:
            break
    return parts


class _Proof:
    """The runs of one Envoy."""

    def __init__(self, validate: Callable[[bytes], Validation]) -> None:
        self._validate = validate

    def refused(self, bootstrap: StaticBootstrap, configuration: Configuration) -> Iterator[RefusedPart]:
        """Yield what is refused of a bootstrap, part by part; each is left out before the next is looked for."""
        seen: set[Fault] = set()
        while (refusal := self._refusal(bootstrap)) is not None:
            element = named_element(refusal, bootstrap)
            if element is None:
                element, refusal = self._narrowed(bootstrap, refusal)
            if element is None:
                message = f"Envoy refuses the bootstrap: {reason_of(refusal)}."
                yield RefusedPart(Fault(Position("mesh.yaml"), message))
                return
            place = named_place(refusal, element) or self._narrowed_place(bootstrap, element)
            fault = fault_of(element, place, refusal, configuration)
            if fault in seen:
                # Envoy refuses still what was left out, so that nothing more can be learned.
                return
            seen.add(fault)
            yield RefusedPart(fault, service_of(element, place), element.nodes)
            bootstrap = bootstrap.without(element) if place is None else _without_place(bootstrap, element, place)

    def _refusal(self, bootstrap: StaticBootstrap) -> str | None:
        """Return what Envoy says against a bootstrap, or None when it accepts it."""
        result = self._validate(bootstrap.encode())
        if result.verdict == "failed":
            raise UnprovenError(result.output)
        return result.output if result.verdict == "refused" else None

    def _narrowed(self, bootstrap: StaticBootstrap, refusal: str) -> tuple[Element | None, str]:
        """Return the element that Envoy refuses, and what it says against that alone."""
        if not bootstrap.clusters and not bootstrap.listeners:
            return None, refusal
        if self._refusal(msgspec.structs.replace(bootstrap, clusters=(), listeners=())) is not None:
            return None, refusal
        clusters = self._refusal(msgspec.structs.replace(bootstrap, listeners=()))
        suspects = bootstrap.listeners if clusters is None else bootstrap.clusters
        element = self._narrow(suspects, lambda some: _only(bootstrap, some))
        own = None if element is None else self._refusal(_only(bootstrap, [element]))
        # It may be refused beside others alone, such as two of one name.
        return (None, refusal) if own is None else (element, own)

    def _narrowed_place(self, bootstrap: StaticBootstrap, element: Element) -> RoutePlace | None:
        """Return the route that Envoy refuses, or the virtual host, or None when it is neither."""
        document = msgspec.json.decode(element.body)
        hosts = list(virtual_hosts(document))

        def with_hosts(chosen: Mapping[int, Document]) -> StaticBootstrap:
            narrowed = with_virtual_hosts(document, iter([chosen.get(number) for number in range(len(hosts))]))
            return _only(bootstrap, [msgspec.structs.replace(element, body=msgspec.json.encode(narrowed))])

        number = self._narrow(range(len(hosts)), lambda some: with_hosts({index: hosts[index] for index in some}))
        if number is None or self._refusal(with_hosts({number: hosts[number]})) is None:
            return None
        host, place = hosts[number], number

        def with_routes(some: Sequence[int]) -> StaticBootstrap:
            return with_hosts({place: {**host, "routes": [host["routes"][index] for index in some]}})

        route = self._narrow(range(len(host["routes"])), with_routes)
        if route is None or self._refusal(with_routes([route])) is None:
            return RoutePlace(number, host)
        return RoutePlace(number, host, route)

    def _narrow(self, suspects: Sequence[_T], bootstrap_with: Callable[[Sequence[_T]], StaticBootstrap]) -> _T | None:
        """Return the suspect that Envoy refuses, or one of them, by halves."""
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            refused = self._refusal(bootstrap_with(half)) is not None
            suspects = half if refused else suspects[len(half) :]
        return suspects[0] if suspects else None


def _without_place(bootstrap: StaticBootstrap, element: Element, place: RoutePlace) -> StaticBootstrap:
    """Return a bootstrap with a plain route, or a plain virtual host, in the place of a faulty one."""
    document = msgspec.json.decode(element.body)
    hosts: list[Document] = list(virtual_hosts(document))
    host = hosts[place.number]
    if place.route is None:
        hosts[place.number] = {"name": host["name"], "domains": [f"{place.number}.invalid"]}
    else:
        routes = list(host["routes"])
        plain = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
        # Its name in statistics says from which route of the definition the following ones come.
        routes[place.route] = {**plain, "stat_prefix": routes[place.route].get("stat_prefix", "")}
        hosts[place.number] = {**host, "routes": routes}
    body = msgspec.json.encode(with_virtual_hosts(document, iter(hosts)))
    return bootstrap.replaced(element, msgspec.structs.replace(element, body=body))


def _only(bootstrap: StaticBootstrap, elements: Sequence[Element]) -> StaticBootstrap:
    """Return a bootstrap with these elements of it alone, and the clusters that they use."""
    names = {name for element in elements for name in element.uses}
    listeners = tuple(element for element in elements if element.kind != "clusters")
    clusters = tuple(element for element in elements if element.kind == "clusters") or tuple(
        cluster for cluster in bootstrap.clusters if cluster.embedded_name in names
    )
    return msgspec.structs.replace(bootstrap, clusters=clusters, listeners=listeners)
