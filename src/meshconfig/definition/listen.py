"""Addresses of listeners."""

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Port, Protocol


class Listen(StrictBlock, frozen=True, kw_only=True):
    """The address of a listener.

    Attributes:
        address: the IP address.
        port: the port.
        protocol: the protocol of clients; what they speak unless written.
    """

    address: str = "127.0.0.1"
    port: Port
    protocol: Protocol = "same"


class GatewayListen(StrictBlock, frozen=True, kw_only=True):
    """The address of a gateway or an edge, and the port whose requests are redirected to it.

    Attributes:
        address: the IP address.
        port: the port.
        protocol: the protocol of clients; what they speak unless written.
        redirect_from: the port of plain HTTP whose requests are redirected to https.
    """

    address: str = "0.0.0.0"  # noqa: S104  # a gateway is there for others
    port: Port
    protocol: Protocol = "same"
    redirect_from: Port | None = None
