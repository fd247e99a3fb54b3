"""TLS to what is called."""

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import File, Host


class Tls(StrictBlock, frozen=True, kw_only=True):
    """TLS to an address or to the endpoints of a service; verified unless somebody writes otherwise.

    Attributes:
        server_name: the name that is sent as SNI and that certificates have to have; the host of the address unless
            written.
        ca_file: the file with the authorities that are trusted, on the machine of the Envoy; the system's unless
            written.
        verify: whether certificates are verified.
    """

    server_name: Host | None = None
    ca_file: File | None = None
    verify: bool = True
