"""What resolvers say of the registries' name."""

from collections.abc import Sequence

NOBODY = "10.9.1.1"
"""An address at which nothing listens any more."""
FOREIGN = "10.9.1.2"
"""An address that is another program's by now, which answers everything with its own 404."""
UNUSABLE = "0.0.0.0"  # what a resolver that blocks a name returns
"""No address of any machine."""


class Dns:
    """One name; ``addresses`` is what resolvers return for it, None while no resolver answers."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self.addresses: list[str] | None = list(addresses)

    async def look_up(self, host: str) -> list[str]:
        """Return the addresses of the name."""
        if self.addresses is None:
            raise OSError(f"no resolver answered for {host}")
        return list(self.addresses)
