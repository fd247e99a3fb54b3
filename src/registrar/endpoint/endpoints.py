"""The endpoints of this process: its settings, joined with what was found out about the task or machine."""

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
    """Return whom to ask, beginning with the settings.

    Args:
        settings: of this process.
        environ: the environment of this process.
        patience: seconds to wait for a container of the task that has not started yet.
    """
    facts = Facts(settings.instance_id or "", settings.region or "", settings.zone or "")
    return sources(facts, environ, patience)


async def build_endpoints(settings: Settings, asked: Sequence[Source]) -> list[Endpoint]:
    """Return the endpoints, each with the address at which it is reached.

    Raises:
        AddressError: one of them has no address that may be advertised.
        ConfigurationError: one of them has no name.
        IdentityError: nobody says which instance this is.
    """
    identity = await resolve_identity(asked)
    return [await build_endpoint(service, identity, asked) for service in settings.services]


async def build_endpoint(service: Service, identity: Identity, asked: Sequence[Source]) -> Endpoint:
    """Return the endpoint of one service.

    Raises:
        AddressError: it has no address that may be advertised.
        ConfigurationError: it has no name, or one that the registry refuses.
    """
    service = with_task_defaults(service, identity)
    location = await resolve_location(service.endpoint, asked, service.container)
    return Endpoint(service, location, identity, asyncio.get_running_loop().time())


async def check_service_names(settings: Settings, environ: Mapping[str, str]) -> None:
    """Look whether services without a name get one from the task that the registry takes.

    Raises:
        ConfigurationError: one of them does not.
        MetadataUnavailable: the task does not answer now.
    """
    metadata = Metadata.of(environ)
    if metadata is None or all(service.service for service in settings.services):
        return
    task = await metadata.task()
    for service in settings.services:
        with_task_defaults(service, Identity("", 1, service=task.service_name))


def with_task_defaults(service: Service, identity: Identity) -> Service:
    """Return a service with what its task is called, where the settings say nothing; what they say wins.

    Raises:
        ConfigurationError: it has no name even so, or one that the registry refuses.
    """
    name = service.service or identity.service
    if not name:
        raise ConfigurationError(
            [f"REGISTRAR_SERVICE: not set for {service.endpoint}, and the task's metadata has no ServiceName: set it"]
        )
    try:
        convert(name, ServiceName)
    except ValueError as error:
        fault = (
            f"REGISTRAR_SERVICE: the task's ServiceName {name!r} is no name that the registry takes: letters, digits"
        )
        mend = "and . _ : @ ~ -, with a letter or digit at its beginning; set REGISTRAR_SERVICE to one"
        raise ConfigurationError([f"{fault} {mend}"]) from error
    return structs.replace(service, service=name, revision=service.revision or identity.revision)
