"""The seam for whatever knows something about this process: its machine, later its task."""

from typing import Protocol

from msgspec import Struct

from registrar.identity.spec import EndpointSpec


class Facts(Struct, frozen=True):
    """What a source knows of the instance; empty where it does not know."""

    instance_id: str = ""
    region: str = ""
    zone: str = ""


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


class Source(Protocol):
    """One place to ask."""

    @property
    def name(self) -> str:
        """The word for it in logs."""

    async def locate(self, spec: EndpointSpec) -> Location | None:
        """Return where ``spec`` can be reached, or None if another source has to say.

        Raises:
            AddressError: this source is the one to say, and it cannot.
        """

    async def facts(self) -> Facts:
        """Return what is known of the instance."""
