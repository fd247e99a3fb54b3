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


class GatewayRefusal(Struct, frozen=True):
    """The last compile of the gateways was refused or failed, so that they do not follow the catalog.

    Attributes:
        reason: why, as a sentence.
        since: when that was refused first, by the database's clock.
    """

    reason: str
    since: float


class GatewayStatus(Struct, frozen=True):
    """The recompiled gateways of a revision.

    Attributes:
        recompiled: the gateways, by name.
        refusal: why the last compile was refused; None: it was not.
    """

    recompiled: Sequence[RecompiledGateway] = ()
    refusal: GatewayRefusal | None = None

    @property
    def unproven(self) -> list[str]:
        """The gateways that no Envoy has accepted as they are served."""
        return [each.node_cluster for each in self.recompiled if not each.envoy]
