"""mesh.yaml: what all services of an environment share."""

from typing import Literal

from msgspec import field

from meshconfig.definition.admin import Admin
from meshconfig.definition.listen import Listen
from meshconfig.definition.policies import Defaults
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.statistics import Statistics
from meshconfig.definition.strict_block import StrictBlock
from meshconfig.definition.tracing import Tracing
from meshconfig.field_types import Duration, Text


class Mesh(StrictBlock, frozen=True, kw_only=True):
    """mesh.yaml: what all services of an environment share.

    Attributes:
        environment: the environment that its services run in.
        registry: the way to the registries.
        egress: the listener that apps call their dependencies by, on the machine of the app.
        admin: Envoy's admin interface.
        statistics: the receivers of statistics.
        tracing: the receiver of traces.
        dns_family: the IP versions that names of addresses are resolved to.
        internal_ranges: networks whose requests may bring x-envoy headers, such as the rest of a deadline.
        drain_time: the time that connections have when a listener changes; it has to be longer than the longest
            request.
        defaults: policies of all dependencies that nobody else writes.
    """

    environment: Text = "production"
    registry: RegistryClient = RegistryClient()
    egress: Listen = field(default_factory=lambda: Listen(port=9900))
    admin: Admin = Admin()
    statistics: Statistics = Statistics()
    tracing: Tracing | None = None
    dns_family: Literal["v4_only", "v4_preferred", "v6_only", "auto", "all"] = "v4_only"
    internal_ranges: tuple[str, ...] = ()
    drain_time: Duration = 600.0
    defaults: Defaults = Defaults()
