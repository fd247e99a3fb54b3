"""The JSON document of service discovery for Prometheus."""

from msgspec import Struct


class TargetGroup(Struct, frozen=True):
    """Targets for Prometheus, with their labels."""

    targets: list[str]
    labels: dict[str, str]
