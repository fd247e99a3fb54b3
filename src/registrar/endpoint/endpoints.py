"""The endpoints of this process, built from the settings and from the identity of the task or machine."""

import asyncio
from collections.abc import Mapping, Sequence

from msgspec import structs

from registrar.config.conversion import convert
from registrar.config.settings import Service, Settings
from registrar.endpoint.endpoint import Endpoint
from registrar.errors import ConfigurationError
from registrar.identity.ecs_task import PATIENCE
from registrar.identity.metadata import Metadata
from registrar.identity.resolver import Identity, resolve_identity, resolve_location
from registrar.identity.source import Facts, Source
from registrar.identity.sources import sources
from wire.model import ServiceName


def identity_sources(settings: Settings, environ: Mapping[str, str], patience: float = PATIENCE) -> tuple[Source, ...]:
    """Return the identity sources in their order, with the settings first.

    Args:
        settings: the settings of the process.
        environ: the environment of the process.
        patience: seconds to wait for a container of the task that has not started yet.
    """
    facts = Facts(settings.instance_id or "", settings.region or "", settings.zone or "")
    return sources(facts, environ, patience)


async def build_endpoints(settings: Settings, sources: Sequence[Source]) -> list[Endpoint]:
    """Return the endpoints of all services, each with its advertised address.

    Raises:
        AddressError: an endpoint has no address that may be advertised.
        ConfigurationError: a service has no name, or one that the registry refuses.
        IdentityError: no source names the instance.
    """
    identity = structs.replace(await resolve_identity(sources), prober=settings.probes.on)
    return [await build_endpoint(service, identity, sources) for service in settings.services]


async def build_endpoint(service: Service, identity: Identity, sources: Sequence[Source]) -> Endpoint:
    """Return the endpoint of one service.

    Raises:
        AddressError: the endpoint has no address that may be advertised.
        ConfigurationError: the service has no name, or one that the registry refuses.
    """
    service = with_task_defaults(service, identity)
    location = await resolve_location(service.endpoint, sources, service.container)
    return Endpoint(service, location, identity, asyncio.get_running_loop().time())


async def check_service_names(settings: Settings, environ: Mapping[str, str]) -> None:
    """Check that each service without a name gets a valid one from the task's metadata.

    Raises:
        ConfigurationError: a service has no name, or one that the registry refuses.
        MetadataUnavailable: the task metadata endpoint does not respond.
    """
    metadata = Metadata.of(environ)
    if metadata is None or all(service.service for service in settings.services):
        return
    task = await metadata.task()
    for service in settings.services:
        with_task_defaults(service, Identity("", 1, service=task.service_name))


def with_task_defaults(service: Service, identity: Identity) -> Service:
    """Return a service with the task's name and revision where the settings have none.

    Raises:
        ConfigurationError: the service has no name, or one that the registry refuses.
    """
    name = service.service or identity.service
    if not name:
        raise ConfigurationError(
            [f"REGISTRAR_SERVICE: not set for {service.endpoint}, and the task's metadata has no ServiceName; set it"]
        )
    try:
        convert(name, ServiceName)
    except ValueError as error:
        fault = (
            f"REGISTRAR_SERVICE: the registry refuses the task's ServiceName {name!r}: allowed are letters, digits and"
        )
        fix = ". _ : @ ~ -, beginning with a letter or digit; set REGISTRAR_SERVICE to such a name"
        raise ConfigurationError([f"{fault} {fix}"]) from error
    return structs.replace(service, service=name, revision=service.revision or identity.revision)
