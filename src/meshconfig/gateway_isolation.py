"""One gateway of a revision in force, without the services that would keep the others from being served.

Anybody who may register chooses names and metadata, and a newer compiler or Envoy may refuse what an older one took. So
a service that is refused is served as it was, or not yet. The gateway is refused as a whole only where neither helps.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from meshconfig.catalog import Metadata
from meshconfig.definition.gateway import Select
from meshconfig.document import place_of
from meshconfig.effective import Configuration
from meshconfig.gateway import selected, without_services
from meshconfig.position import Severity
from meshconfig.proof import RefusedPart
from meshconfig.repository import read
from meshconfig.resource import Catalog, Snapshot
from meshconfig.snapshot import compile_gateways

MAX_ROUNDS = 4
"""Times that services are left out and the rest is compiled and proven again."""

Prove = Callable[[Configuration, Snapshot], Sequence[RefusedPart]]
"""Returns what an Envoy refuses of a configuration and what it compiles to."""


class GatewayRefusedError(Exception):
    """A gateway as a whole can be served nothing new; the message says why."""

    def __init__(self, reason: str, service: str = "") -> None:
        super().__init__(reason)
        self.service = service
        """The service that it is refused for; empty: it is not a service's affair."""


class IsolatedGateway(Struct, frozen=True):
    """A gateway as it may be served.

    Attributes:
        configuration: its definition, and that of the services that it uses.
        snapshot: what it compiles to.
        catalog: the services as it uses them.
        refused: services that are served as they were, or not yet, each with the reason.
    """

    configuration: Configuration
    snapshot: Snapshot
    catalog: Catalog
    refused: Mapping[str, str]


def isolate(
    files: Mapping[str, str], name: str, catalog: Catalog, accepted: Catalog, served: Collection[str], prove: Prove
) -> IsolatedGateway | None:
    """Return a gateway as it may be served; None where no gateway has the name.

    Args:
        files: the files of the revision.
        name: the gateway.
        catalog: the registered services.
        accepted: the services as they were when the gateway was accepted last, as far as that is remembered.
        served: the clusters that its Envoys use now.
        prove: proves it.

    Raises:
        GatewayRefusedError: nothing new may be served of it.
        UnprovenError: no Envoy came to a verdict.
    """
    if not any(place_of(file) == ("gateways", name) for file in files):
        return None
    configuration, broken = _readable(files, name)
    remaining = _Remaining(configuration, name, catalog)
    for service, reason in broken.items():
        if service in remaining.services():
            remaining.leave_out(service, reason, served)
    for _ in range(MAX_ROUNDS):
        own, catalog = remaining.configuration(), remaining.catalog()
        snapshot, culprits = _attempt(own, name, catalog, prove)
        if not culprits:
            return IsolatedGateway(own, snapshot, catalog, remaining.refused)
        for service, reason in culprits.items():
            if not remaining.bring_back(service, reason, accepted):
                remaining.leave_out(service, reason, served)
    service, reason = next(reversed(remaining.refused.items()))
    raise GatewayRefusedError(reason, service)


class _Remaining:
    """The services that are left of a gateway.

    Attributes:
        refused: those that are served as they were, or not at all, each with the reason.
    """

    def __init__(self, configuration: Configuration, name: str, catalog: Catalog) -> None:
        self.refused: dict[str, str] = {}
        self._configuration = configuration
        self._name = name
        self._catalog = catalog
        self._out: set[str] = set()
        """Services that are left out. Written by leave_out()."""

    def services(self) -> Collection[str]:
        """Return the services that the gateway serves still."""
        return selected(self.configuration().gateways[self._name], self.catalog())

    def configuration(self) -> Configuration:
        """Return the configuration, without the names of services that are left out."""
        gateway, _ = without_services(self._configuration.gateways[self._name], self._catalog, self._out)
        return replace(self._configuration, gateways={self._name: gateway})

    def catalog(self) -> Catalog:
        """Return the catalog, without services that are left out."""
        return without_services(self._configuration.gateways[self._name], self._catalog, self._out)[1]

    def bring_back(self, service: str, reason: str, accepted: Catalog) -> bool:
        """Use a service as it was accepted last; return False where that is unknown, or the same."""
        metadata, grpc_services = _entry(accepted, service)
        if service in self.refused or metadata is None or (metadata, grpc_services) == _entry(self._catalog, service):
            return False
        self.refused[service] = reason
        self._catalog = Catalog(
            {**self._catalog.metadata, service: metadata},
            {**self._catalog.grpc_services, service: grpc_services},
        )
        return True

    def leave_out(self, service: str, reason: str, served: Collection[str]) -> None:
        """Leave a service out.

        Raises:
            GatewayRefusedError: it is served now, or leaving it out would change nothing.
        """
        if service in served or service not in self.services():
            raise GatewayRefusedError(reason, service)
        self.refused[service] = reason
        self._out.add(service)


def _entry(catalog: Catalog, service: str) -> tuple[Metadata | None, tuple[str, ...]]:
    return catalog.metadata.get(service), catalog.grpc_services.get(service, ())


def _only(catalog: Catalog, services: Collection[str]) -> Catalog:
    return Catalog(
        {service: catalog.metadata[service] for service in sorted(services) if service in catalog.metadata},
        {service: catalog.grpc_services.get(service, ()) for service in sorted(services)},
    )


def _readable(files: Mapping[str, str], name: str) -> tuple[Configuration, Mapping[str, str]]:
    """Return the configuration of one gateway, without files that this version refuses, and the services of those.

    Raises:
        GatewayRefusedError: its own file, or that of the mesh, is among them.
    """
    places = {file: place_of(file) for file in files}
    own = {
        file: files[file]
        for file, (folder, gateway) in places.items()
        if folder != "edges" and (folder != "gateways" or gateway == name)
    }
    broken: dict[str, str] = {}
    while True:
        configuration, faults = read(own)
        if configuration is not None:
            return configuration, broken
        errors = [fault for fault in faults if fault.severity is Severity.ERROR]
        for fault in errors:
            file = fault.position.file
            folder, service = place_of(file)
            if folder not in ("services", "groups") or file not in own:
                raise GatewayRefusedError(str(fault))
            if folder == "services":
                broken.setdefault(service, str(fault))
        for file in {fault.position.file for fault in errors}:
            del own[file]


def _attempt(
    configuration: Configuration, name: str, catalog: Catalog, prove: Prove
) -> tuple[Snapshot, Mapping[str, str]]:
    """Return what a gateway compiles to, and the services for which that may not be served, with reasons.

    Raises:
        GatewayRefusedError: it may not be served for another reason than a service.
    """
    try:
        snapshot = compile_gateways(configuration, catalog)
    except Exception as error:
        culprits = dict(_failing(configuration, name, catalog))
        if not culprits:
            raise GatewayRefusedError(_defect(error)) from error
        return Snapshot({}), culprits
    refused = prove(configuration, snapshot)
    if others := [part for part in refused if not part.service]:
        raise GatewayRefusedError(str(others[0].fault))
    return snapshot, {part.service: str(part.fault) for part in reversed(refused)}


def _failing(configuration: Configuration, name: str, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Yield the services with which alone a gateway cannot be compiled."""
    gateway = configuration.gateways[name]
    for service in selected(gateway, catalog):
        alone = replace(gateway, select=Select(services=(service,)))
        try:
            compile_gateways(replace(configuration, gateways={name: alone}), _only(catalog, {service}))
        except Exception as error:  # noqa: BLE001  # it is the affair of this service
            yield service, _defect(error)


def _defect(error: Exception) -> str:
    return f"the compiler failed by a defect: {error!r}"
