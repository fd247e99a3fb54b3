"""The gateways of the revision in force that were compiled again, since the services that they select have changed."""

from collections.abc import Sequence

from msgspec import Struct

UNPROVEN_GATEWAYS = "unproven_gateways"
"""The key, in the proof of the revision in force, of the gateways that no Envoy has accepted as they are served."""


class RecompiledGateway(Struct, frozen=True):
    """A gateway that is served something else than its revision was proven with.

    Attributes:
        node_cluster: its name.
        at: when it was compiled, by the database's clock.
        envoy: the versions of Envoy that have accepted it; none: it is unproven.
    """

    node_cluster: str
    at: float
    envoy: Sequence[str] = ()


class RefusedGateway(Struct, frozen=True):
    """The refusal of a gateway, or of one service of it, when it was compiled again.

    Attributes:
        reason: why, as a sentence.
        gateway: the gateway; empty: all of them.
        service: the service, which the gateway serves as it was, or not yet; empty: the gateway keeps all that it has.
    """

    reason: str
    gateway: str = ""
    service: str = ""


class GatewayRefusal(RefusedGateway, frozen=True):
    """A gateway, or one service of it, that does not follow the catalog.

    Attributes:
        since: when that was refused first, by the database's clock.
    """

    since: float = 0.0

    @property
    def subject(self) -> str:
        """The gateway or the service of it, in words."""
        if not self.gateway:
            return "all gateways"
        return f"gateway {self.gateway}" + (f", service {self.service}" if self.service else "")


class GatewayStatus(Struct, frozen=True):
    """The recompiled gateways of a revision.

    Attributes:
        recompiled: the gateways, by name.
        refusals: gateways, and services of them, that were refused at the last compile.
    """

    recompiled: Sequence[RecompiledGateway] = ()
    refusals: Sequence[GatewayRefusal] = ()

    @property
    def unproven(self) -> list[str]:
        """The gateways that no Envoy has accepted as they are served."""
        return [each.node_cluster for each in self.recompiled if not each.envoy]
