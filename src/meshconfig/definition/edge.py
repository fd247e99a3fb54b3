"""edges/NAME.yaml: TLS and hosts in front of services."""

from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.policies import Defaults
from meshconfig.definition.route import Route
from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import File, Host, ServiceName


class Certificate(StrictBlock, frozen=True, kw_only=True):
    """Files of a certificate chain and its private key, on the machine of the Envoy.

    Attributes:
        chain: the file with the certificate and those of its authorities.
        key: the file with the private key.
    """

    chain: File
    key: File


class SiteRoute(Route, frozen=True, kw_only=True):
    """One route of a site: a route with the service that it leads to.

    Attributes:
        service: the service that it leads to; a split in place of it leads to several.
    """

    service: ServiceName | None = None


class Site(StrictBlock, frozen=True, kw_only=True):
    """The hosts of an edge that share a certificate and routes.

    Attributes:
        hosts: the hosts.
        certificate: the certificate; an edge with several sites has one for each.
        routes: its routes, of which the first that matches counts. A prefix ends at a segment: /api takes /api/x, not
            /apix.
    """

    hosts: tuple[Host, ...]
    certificate: Certificate | None = None
    routes: tuple[SiteRoute, ...]


class Edge(StrictBlock, frozen=True, kw_only=True):
    """edges/NAME.yaml: TLS and hosts in front of services.

    Attributes:
        edge: its name, which is the file's and Envoy's node.cluster.
        listen: its listener.
        sites: its sites.
        defaults: policies of what it calls.
    """

    edge: str
    listen: GatewayListen
    sites: tuple[Site, ...]
    defaults: Defaults = Defaults()
