"""The way of Envoys to the registries."""

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.definition.tls import Tls
from meshconfig.field_types import EdgeAddress, File, HostPort, PositiveDuration, RefreshDelay


class RegistryClient(StrictBlock, frozen=True, kw_only=True):
    """The way of Envoys to the registries.

    Attributes:
        addresses: host:port of the registries; the first is used, the others when it does not answer.
        edge: the edge of the registrar beside an Envoy, which answers its polls; while it does not live, and with
            `null`, the registries answer them.
        tls: TLS to the registries; plain HTTP without it.
        certificate_sds: with TLS, the SDS document of Envoy's own certificate, called ``registry-certificate``.
        token_directory: the directory of Envoy's token and the SDS document that leads to it; it needs Envoy 1.37.
        max_connection_duration: the time after which a connection is replaced between two polls; a rotated client
            certificate comes into use by a new connection only.
        request_timeout: the longest that the registries may hold a poll.
        refresh_delay: the pause between two polls.
    """

    addresses: tuple[HostPort, ...] = ("127.0.0.1:8080",)
    edge: EdgeAddress | None = "127.0.0.1:9903"
    tls: Tls | None = None
    certificate_sds: File | None = None
    token_directory: File | None = None
    max_connection_duration: PositiveDuration | None = None
    request_timeout: PositiveDuration = 30.0
    refresh_delay: RefreshDelay = 0.2
