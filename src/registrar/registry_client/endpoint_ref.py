"""What this process may take back at the registry: an endpoint, as owned by one start of its instance."""

from urllib.parse import quote

from msgspec import Struct


class EndpointRef(Struct, frozen=True):
    """An endpoint's name with its owner.

    Attributes:
        service: its service.
        endpoint: ``ip:port``.
        instance_id: the owner.
        incarnation: of this start; the registry takes it for all earlier ones too.
    """

    service: str
    endpoint: str
    instance_id: str
    incarnation: int

    def path(self, verb: str = "") -> str:
        """Return where the registry takes a word about it."""
        return (
            f"/v1/services/{quote(self.service, safe='')}/endpoints/{quote(self.endpoint, safe=':')}{verb}"
            f"?instance_id={quote(self.instance_id, safe='')}&incarnation={self.incarnation}"
        )
