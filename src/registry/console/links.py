"""The links of a service or an endpoint to other systems."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from registry.http.views.endpoints import EndpointView
from registry.link_template import ENDPOINT_PLACEHOLDERS, LinkTemplate


class Link(Struct, frozen=True):
    """A link as a page has it."""

    name: str
    url: str


def links_out(templates: Sequence[str], values: Mapping[str, str]) -> list[Link]:
    """Return the links of some templates that have all their values; the settings have checked the templates."""
    parsed = [LinkTemplate.parse(template, ENDPOINT_PLACEHOLDERS) for template in templates]
    filled = [(template.name, template.fill(values)) for template in parsed]
    return [Link(name, url) for name, url in filled if url is not None]


def endpoint_values(endpoint: EndpointView) -> dict[str, str]:
    """Return the values of an endpoint for the placeholders of its links."""
    return {
        "service": endpoint.service,
        "endpoint": endpoint.endpoint,
        "address": endpoint.address,
        "port": str(endpoint.port),
        "instance": endpoint.instance_id,
        "region": endpoint.region,
        "zone": endpoint.zone,
        "revision": endpoint.revision,
    }
