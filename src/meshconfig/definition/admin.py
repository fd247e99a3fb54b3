"""Envoy's admin interface."""

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Port


class Admin(StrictBlock, frozen=True, kw_only=True):
    """Envoy's admin interface.

    Attributes:
        address: the IP address. The interface has no access control.
        port: the port.
    """

    address: str = "127.0.0.1"
    port: Port = 9901
