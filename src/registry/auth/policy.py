"""Permissions: the one place that decides what a principal may do.

Every use case asks it before it does anything, and both HTTP fronts ask it before a poll, a renewal and a registration.
No front decides by itself, and no rule about permissions stands anywhere else. A rule knows a principal by its address;
the name that it gives itself is not verified, and only writes carry one (``registry.auth.principal``).
"""

from enum import StrEnum

from registry.auth.principal import Principal


class Verb(StrEnum):
    """A thing that a principal asks to do with a service. A later grant names verbs and services."""

    DISCOVER = "discover"
    """Poll for resources, or ask for the hosts of a service in v1."""
    READ = "read"
    """Read the catalogue, events, subscribers and explanations, by API or console."""
    REGISTER = "register"
    """Register and renew endpoints; drain and deregister them by the name of their instance or incarnation.

    Clients of the drop-in contracts deregister by the address alone, because these contracts know no instances.
    """
    OPERATE = "operate"
    """Override endpoints, drain and deregister them without naming their instance, pause expiry."""
    CONFIGURE = "configure"
    """Apply and roll back the mesh configuration."""
    INSPECT = "inspect"
    """Look at the configuration that an Envoy holds."""
    DEBUG = "debug"
    """Change an Envoy's log level, or tap its traffic."""
    OBSERVE = "observe"
    """Read metrics and the state of the registry's processes."""
    ADMIN = "admin"
    """Manage credentials and grants."""


class Policy:
    """Decides what principals may do. It allows everything until access control is built."""

    __slots__ = ()

    def allow(self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "") -> None:
        """Return when a principal may do something, and raise otherwise.

        Args:
            principal: who asks.
            verb: what is asked for.
            service: the service or the resource name that is concerned; empty when no single one is.
            endpoint: the endpoint that is concerned, as ``address:port``; empty when no single one is.

        Raises:
            NotAllowedError: the principal may not do this.
        """
