"""A reference to an endpoint as its owner registered it, for drains and deregistrations."""

from urllib.parse import quote

from msgspec import Struct


class EndpointRef(Struct, frozen=True):
    """The key of an endpoint, with the instance and the incarnation that own it.

    Attributes:
        service: the service's name.
        endpoint: ``ip:port``.
        instance_id: the owner.
        incarnation: the owner's current one; the registry accepts it for what earlier ones registered.
    """

    service: str
    endpoint: str
    instance_id: str
    incarnation: int

    def path(self, verb: str = "") -> str:
        """Return path and query of the endpoint in the registry's API, with ``verb`` behind the path."""
        return (
            f"/v1/services/{quote(self.service, safe='')}/endpoints/{quote(self.endpoint, safe=':')}{verb}"
            f"?instance_id={quote(self.instance_id, safe='')}&incarnation={self.incarnation}"
        )
