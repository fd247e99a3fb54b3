"""gateways/NAME.yaml: services of the catalog through one Envoy."""

from collections.abc import Mapping

from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.policies import Defaults
from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import ServiceName, Text


class Select(StrictBlock, frozen=True, kw_only=True):
    """The services of the catalog that a gateway serves, by the metadata of their endpoints or by name.

    Attributes:
        metadata: metadata that at least one endpoint of a service has.
        services: names of services.
    """

    metadata: Mapping[Text, str] = {}
    services: tuple[ServiceName, ...] = ()


class Gateway(StrictBlock, frozen=True, kw_only=True):
    """gateways/NAME.yaml: services of the catalog through one Envoy, by host and by gRPC path.

    Attributes:
        gateway: its name, which is the file's and Envoy's node.cluster.
        listen: its listener.
        select: the services that it serves.
        hosts: the host of each service; {service} is its name.
        paths: whether gRPC services are also found by path, on every host.
        defaults: policies of what it calls.
    """

    gateway: str
    listen: GatewayListen
    select: Select
    hosts: str = "{service}"
    paths: bool = False
    defaults: Defaults = Defaults()
