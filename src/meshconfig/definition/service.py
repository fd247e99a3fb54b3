"""services/NAME.yaml: facts about a service, and what it calls."""

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.policies import Defaults
from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Duration, Percent, Protocol, ServiceName


class Objectives(StrictBlock, frozen=True, kw_only=True):
    """The objectives that a service promises its callers, for people: no Envoy, console page or alert reads them.

    Attributes:
        p99: the time within which 99 of 100 requests are answered.
        success: the percentage of requests that succeed.
    """

    p99: Duration | None = None
    success: Percent | None = None


class Provides(StrictBlock, frozen=True, kw_only=True):
    """Facts about a service and defaults for its callers.

    Attributes:
        protocol: the protocol that the service speaks.
        defaults: policies of its callers that do not write others.
        slo: the objectives that callers may expect.
    """

    protocol: Protocol = "http1"
    defaults: Defaults = Defaults()
    slo: Objectives = Objectives()


class Service(StrictBlock, frozen=True, kw_only=True):
    """services/NAME.yaml: one service, which is Envoy's node.cluster.

    Attributes:
        service: its name, which is the file's.
        provides: facts about it, and defaults for its callers.
        dependencies: what its app calls.
    """

    service: ServiceName
    provides: Provides = Provides()
    dependencies: tuple[Dependency, ...] = ()
