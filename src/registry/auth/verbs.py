"""The verbs that principals ask for, and that grants name."""

from enum import StrEnum


class Verb(StrEnum):
    """A thing that a principal asks to do with a service. A grant names verbs and services."""

    # Enum hashes names, in Python; a verb equals its text, so it may have the hash of its text too.
    __hash__ = str.__hash__

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
