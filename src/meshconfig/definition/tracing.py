"""The receiver of spans."""

from typing import Literal

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import HostPort, Percent


class Tracing(StrictBlock, frozen=True, kw_only=True):
    """The receiver of spans, and the share of requests that get one.

    Attributes:
        provider: the kind of the receiver.
        address: host:port of the receiver.
        sample: the share of requests that get a trace.
    """

    provider: Literal["zipkin", "xray", "datadog", "opentelemetry", "skywalking"]
    address: HostPort
    sample: Percent = 100.0
