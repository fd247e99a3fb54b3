"""The seam for whatever knows something about this process: its settings, its task, its machine."""

from typing import Protocol

from msgspec import Struct

from registrar.identity.spec import EndpointSpec


class Facts(Struct, frozen=True):
    """What a source knows of the instance; empty where it does not know.

    Attributes:
        instance_id: the task or machine, the same after each restart.
        region: Envoy's locality region.
        zone: Envoy's locality zone.
        cluster: the ECS cluster; for people.
        revision: the task definition, for services that name no build of their own.
        service: the ECS service, for services without a name.
    """

    instance_id: str = ""
    region: str = ""
    zone: str = ""
    cluster: str = ""
    revision: str = ""
    service: str = ""


class Location(Struct, frozen=True):
    """An address and a port to advertise.

    Attributes:
        address: a canonical IP literal.
        port: may differ from the setting's, where ports are mapped.
        literal: the configuration named this very address, so the operator vouches for it.
    """

    address: str
    port: int
    literal: bool = False


class Answer(Struct, frozen=True):
    """What a source said about one endpoint.

    Attributes:
        asked: what was asked, like a URL or a file; empty when nothing was.
        said: what it answered, or why it did not, in words.
        location: where the endpoint is reached, or None when another source has to say.
        fix: what would make this source answer; empty when nothing is wrong with it.
    """

    asked: str
    said: str
    location: Location | None = None
    fix: str = ""


class Source(Protocol):
    """One place to ask."""

    @property
    def name(self) -> str:
        """The word for it in logs."""

    @property
    def costly(self) -> bool:
        """Whether it is only to be asked when nobody else knows, because others pay for the answer."""

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:
        """Say where ``spec`` can be reached.

        Args:
            spec: the endpoint setting.
            container: the name of the app's container in an ECS task; empty for the one that has the port.

        Raises:
            AddressError: this source is the one to say, and it cannot.
        """

    async def facts(self) -> Facts:
        """Return what is known of the instance.

        Raises:
            IdentityError: this source is the one to say which it is, and it cannot.
        """
