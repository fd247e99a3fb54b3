"""The protocol of all sources of identity and address: settings, task, instance and machine."""

from typing import Protocol

from msgspec import Struct

from registrar.identity.spec import EndpointSpec


class Facts(Struct, frozen=True):
    """Facts about the instance; those that a source does not know are empty.

    Attributes:
        instance_id: the task or machine, the same after each restart.
        region: Envoy's locality region.
        zone: Envoy's locality zone.
        cluster: the ECS cluster.
        cluster_arn: the ARN of the ECS cluster.
        task: the id of the ECS task.
        revision: the task definition, for services that name no build of their own.
        service: the ECS service, for services without a name.
    """

    instance_id: str = ""
    region: str = ""
    zone: str = ""
    cluster: str = ""
    cluster_arn: str = ""
    task: str = ""
    revision: str = ""
    service: str = ""


class Location(Struct, frozen=True):
    """An address and a port to advertise.

    Attributes:
        address: a canonical IP literal.
        port: may differ from the setting's, where ports are mapped.
        literal: whether the configuration names this address literally.
    """

    address: str
    port: int
    literal: bool = False


class Answer(Struct, frozen=True):
    """The answer of a source about one endpoint.

    Attributes:
        asked: the URL, file or calls that were asked; empty when nothing was.
        said: the answer, or why there is none, as text.
        location: the endpoint's location, or None when the source does not know it.
        fix: how to make this source answer; empty when nothing is wrong with it.
    """

    asked: str
    said: str
    location: Location | None = None
    fix: str = ""


class Source(Protocol):
    """A source of locations and facts."""

    @property
    def name(self) -> str:
        """The name of the source in logs."""

    @property
    def costly(self) -> bool:
        """Whether it is asked only when no other source knows, because its requests count against a shared limit."""

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:
        """Return the location of the endpoint of ``spec``.

        Args:
            spec: the endpoint setting.
            container: the name of the app's container in an ECS task; empty for the one that has the port.

        Raises:
            AddressError: this source has to know the location, and does not.
        """

    async def facts(self) -> Facts:
        """Return the known facts about the instance.

        Raises:
            IdentityError: this source has to know the instance id, and does not.
        """
