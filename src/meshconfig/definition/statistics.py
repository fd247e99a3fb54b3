"""The receivers of Envoys' statistics."""

from meshconfig.definition.listen import Listen
from meshconfig.definition.strict_block import StrictBlock


class Statistics(StrictBlock, frozen=True, kw_only=True):
    """The receivers of Envoys' statistics. A statsd address is an IP literal: Envoy refuses host names.

    Attributes:
        dog_statsd: address and port of a DogStatsD agent, as ip:port.
        prometheus: the listener that serves Prometheus; it leads to nothing else of the admin interface.
    """

    dog_statsd: str | None = None
    prometheus: Listen | None = None
